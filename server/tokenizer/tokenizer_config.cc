#include "server/tokenizer/tokenizer_config.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/json_text.h"
#include "adapters/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace tenon {
namespace {

using Json = nlohmann::json;

// tokenizer_config.json lists every added token; the largest in use is about 2 MiB.
constexpr int64_t kMaxConfigBytes = int64_t{64} << 20;

// An absent file reads as an empty object.
absl::StatusOr<Json> ReadOptionalObject(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path, kMaxConfigBytes);
  if (absl::IsNotFound(text.status())) {
    return Json::object();
  }
  TENON_RETURN_IF_ERROR(text.status());
  Json json = ParseJson(*text);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a JSON object"));
  }
  return json;
}

// A special token is written as its text or as {"content": text, ...}.
void TakeSpecialTokens(const Json& object, std::map<std::string, std::string>& tokens) {
  for (const auto& [key, value] : object.items()) {
    if (!absl::EndsWith(key, "_token")) {
      continue;
    }
    if (value.is_string()) {
      tokens[key] = value.get<std::string>();
    } else if (value.is_object() && value.contains("content") && value["content"].is_string()) {
      tokens[key] = value["content"].get<std::string>();
    }
  }
}

// A template is a string or a list of {"name": ..., "template": ...}.
std::optional<std::string> TemplateFrom(const Json& value) {
  if (value.is_string()) {
    return value.get<std::string>();
  }
  if (!value.is_array()) {
    return std::nullopt;
  }
  for (const Json& entry : value) {
    if (entry.is_object() && entry.value("name", Json()) == "default" &&
        entry.contains("template") && entry["template"].is_string()) {
      return entry["template"].get<std::string>();
    }
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) {
    return error == std::errc::no_such_file_or_directory
               ? absl::NotFoundError(absl::StrCat(path, ": no such file"))
               : absl::InvalidArgumentError(absl::StrCat(path, ": ", error.message()));
  }
  if (size > static_cast<uintmax_t>(max_bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", size, " bytes exceed the limit of ", max_bytes));
  }
  std::string bytes(size, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(bytes.data(), static_cast<std::streamsize>(size))) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", std::strerror(errno)));
  }
  return bytes;
}

absl::StatusOr<TokenizerConfig> ReadTokenizerConfig(const std::string& folder) {
  TENON_ASSIGN_OR_RETURN(const Json map,
                         ReadOptionalObject(absl::StrCat(folder, "/special_tokens_map.json")));
  TENON_ASSIGN_OR_RETURN(const Json json,
                         ReadOptionalObject(absl::StrCat(folder, "/tokenizer_config.json")));
  TokenizerConfig config;
  TakeSpecialTokens(map, config.special_tokens);
  TakeSpecialTokens(json, config.special_tokens);
  if (json.contains("add_bos_token") && json["add_bos_token"].is_boolean()) {
    config.add_bos_token = json["add_bos_token"].get<bool>();
  }
  if (json.contains("chat_template")) {
    config.chat_template = TemplateFrom(json["chat_template"]);
  }
  absl::StatusOr<std::string> file =
      ReadFile(absl::StrCat(folder, "/chat_template.jinja"), kMaxConfigBytes);
  if (file.ok()) {
    config.chat_template = *std::move(file);
  } else if (!absl::IsNotFound(file.status())) {
    return file.status();
  }
  return config;
}

}  // namespace tenon
