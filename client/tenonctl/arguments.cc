#include "client/tenonctl/arguments.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace tenon {
namespace {

const FlagSpec* Find(std::span<const FlagSpec> flags, absl::string_view name) {
  for (const FlagSpec& flag : flags) {
    if (flag.name == name) {
      return &flag;
    }
  }
  return nullptr;
}

absl::Status WrongValue(absl::string_view name, absl::string_view value, absl::string_view want) {
  return absl::InvalidArgumentError(absl::StrCat("--", name, ": '", value, "' is not ", want));
}

std::string Spelling(const FlagSpec& flag) {
  return flag.value.empty() ? absl::StrCat("--", flag.name)
                            : absl::StrCat("--", flag.name, "=", flag.value);
}

}  // namespace

absl::Status Arguments::Parse(std::span<const std::string>& args, std::span<const FlagSpec> flags,
                              bool stop_at_word) {
  bool only_words = false;
  while (!args.empty()) {
    const std::string& arg = args.front();
    const bool is_flag = !only_words && arg.size() > 1 && arg[0] == '-';
    if (!is_flag && stop_at_word) {
      return absl::OkStatus();
    }
    args = args.subspan(1);
    if (!is_flag) {
      words_.push_back(arg);
    } else if (arg == "--") {
      only_words = true;
    } else if (arg == "-h") {
      values_["help"].push_back("true");
    } else if (!absl::StartsWith(arg, "--")) {
      return absl::InvalidArgumentError(absl::StrCat("unknown flag ", arg));
    } else if (absl::Status status = TakeFlag(arg, args, flags); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status Arguments::TakeFlag(absl::string_view flag, std::span<const std::string>& rest,
                                 std::span<const FlagSpec> flags) {
  const absl::string_view text = flag.substr(2);
  const size_t equals = text.find('=');
  const bool has_value = equals != absl::string_view::npos;
  const std::string name = absl::StrReplaceAll(text.substr(0, equals), {{"_", "-"}});
  const FlagSpec* spec = Find(flags, name);
  if (spec == nullptr && !has_value && absl::StartsWith(name, "no-")) {
    spec = Find(flags, absl::StripPrefix(name, "no-"));
    if (spec != nullptr && spec->value.empty()) {
      values_[spec->name].push_back("false");
      return absl::OkStatus();
    }
    spec = nullptr;
  }
  if (spec == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("unknown flag --", name));
  }
  std::string value = has_value ? std::string(text.substr(equals + 1)) : "true";
  if (spec->value.empty()) {
    if (value != "true" && value != "false") {
      return WrongValue(name, value, "true or false");
    }
  } else if (!has_value) {
    if (rest.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("--", name, " needs a value"));
    }
    value = rest.front();
    rest = rest.subspan(1);
  }
  values_[spec->name].push_back(std::move(value));
  return absl::OkStatus();
}

const std::string* Arguments::Last(absl::string_view name) const {
  const auto found = values_.find(std::string(name));
  return found == values_.end() ? nullptr : &found->second.back();
}

bool Arguments::GetSwitch(absl::string_view name) const {
  const std::string* value = Last(name);
  return value != nullptr && *value == "true";
}

std::string Arguments::GetText(absl::string_view name, absl::string_view otherwise) const {
  const std::string* value = Last(name);
  return value != nullptr ? *value : std::string(otherwise);
}

std::vector<std::string> Arguments::GetTexts(absl::string_view name) const {
  const auto found = values_.find(std::string(name));
  return found == values_.end() ? std::vector<std::string>() : found->second;
}

absl::StatusOr<std::optional<int32_t>> Arguments::GetInt(absl::string_view name) const {
  const std::string* value = Last(name);
  int32_t number = 0;
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!absl::SimpleAtoi(*value, &number)) {
    return WrongValue(name, *value, "a whole number");
  }
  return std::optional<int32_t>(number);
}

absl::StatusOr<std::optional<uint64_t>> Arguments::GetUint64(absl::string_view name) const {
  const std::string* value = Last(name);
  uint64_t number = 0;
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!absl::SimpleAtoi(*value, &number)) {
    return WrongValue(name, *value, "a whole number of 0 or more");
  }
  return std::optional<uint64_t>(number);
}

absl::StatusOr<std::optional<float>> Arguments::GetFloat(absl::string_view name) const {
  const std::string* value = Last(name);
  float number = 0;
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!absl::SimpleAtof(*value, &number)) {
    return WrongValue(name, *value, "a number");
  }
  return std::optional<float>(number);
}

absl::StatusOr<absl::Duration> Arguments::GetDuration(absl::string_view name,
                                                      absl::Duration otherwise) const {
  const std::string* value = Last(name);
  absl::Duration duration;
  if (value == nullptr) {
    return otherwise;
  }
  if (!absl::ParseDuration(*value, &duration) || duration <= absl::ZeroDuration()) {
    return WrongValue(name, *value, "a duration such as 30s or 1m30s");
  }
  return duration;
}

std::string DescribeFlags(std::span<const FlagSpec> flags) {
  size_t width = 0;
  for (const FlagSpec& flag : flags) {
    width = std::max(width, Spelling(flag).size());
  }
  std::string text;
  for (const FlagSpec& flag : flags) {
    const std::string spelling = Spelling(flag);
    absl::StrAppend(&text, "  ", spelling, std::string(width + 2 - spelling.size(), ' '), flag.help,
                    "\n");
  }
  return text;
}

}  // namespace tenon
