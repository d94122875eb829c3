#include "adapters/registry/adapter_id.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

bool IsNameByte(char c) { return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-'; }

// A version as ToString writes it: decimal digits only, no sign, no leading zero, 1 or more.
bool ParseVersion(absl::string_view text, int64_t* version) {
  return !text.empty() && text[0] >= '1' && text[0] <= '9' &&
         std::all_of(text.begin(), text.end(), absl::ascii_isdigit) &&
         absl::SimpleAtoi(text, version);
}

}  // namespace

std::string AdapterId::ToString() const { return absl::StrCat(tenant, "/", name, "@", version); }

std::string AdapterRef::ToString() const {
  if (version != 0) {
    return absl::StrCat(name, "@", version);
  }
  return alias.empty() ? name : absl::StrCat(name, "@", alias);
}

absl::Status ValidateName(absl::string_view field, absl::string_view name) {
  if (name.empty()) {
    return InvalidFieldError(field, "a name is needed");
  }
  if (name.size() > kMaxNameBytes) {
    return InvalidFieldError(field, absl::StrCat("name ", Quoted(name), " exceeds the limit of ",
                                                 kMaxNameBytes, " bytes"));
  }
  if (!absl::ascii_isalnum(name[0])) {
    return InvalidFieldError(
        field, absl::StrCat("name ", Quoted(name), " does not begin with a letter or digit"));
  }
  if (!std::all_of(name.begin(), name.end(), IsNameByte)) {
    return InvalidFieldError(field, absl::StrCat("name ", Quoted(name),
                                                 " has characters other than letters, digits, "
                                                 "'.', '_' and '-'"));
  }
  return absl::OkStatus();
}

absl::Status ValidateAlias(absl::string_view field, absl::string_view alias) {
  if (alias.size() > kMaxAliasBytes) {
    return InvalidFieldError(field, absl::StrCat("alias ", Quoted(alias), " exceeds the limit of ",
                                                 kMaxAliasBytes, " bytes"));
  }
  if (alias.empty() || !absl::ascii_isalpha(alias[0]) ||
      !std::all_of(alias.begin(), alias.end(), IsNameByte)) {
    return InvalidFieldError(
        field, absl::StrCat("alias ", Quoted(alias),
                            " is not a letter followed by letters, digits, '.', '_' and '-'"));
  }
  return absl::OkStatus();
}

absl::StatusOr<AdapterRef> ParseAdapterRef(absl::string_view field, absl::string_view text) {
  AdapterRef ref;
  const size_t at = text.find('@');
  if (at != absl::string_view::npos && !ParseVersion(text.substr(at + 1), &ref.version)) {
    ref.alias = std::string(text.substr(at + 1));
    if (absl::Status alias = ValidateAlias(field, ref.alias); !alias.ok()) {
      return InvalidFieldError(
          field, absl::StrCat("what follows '@' in ", Quoted(text),
                              " is neither a version, a whole number from 1 on, nor an alias"));
    }
  }
  const absl::string_view name = text.substr(0, at);
  TENON_RETURN_IF_ERROR(ValidateName(field, name));
  ref.name = std::string(name);
  return ref;
}

}  // namespace tenon
