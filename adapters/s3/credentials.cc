#include "adapters/s3/credentials.h"

#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

absl::StatusOr<S3Credentials> ReadCredentials(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) {
    return absl::FailedPreconditionError(absl::StrCat("cannot read '", path, "'"));
  }
  absl::StatusOr<S3Credentials> credentials = ParseCredentials(text.str());
  return credentials.ok() ? std::move(credentials) : Annotate(credentials.status(), path);
}

}  // namespace

absl::StatusOr<CredentialSource> CredentialsFromEnvironment(
    const std::function<const char*(const char*)>& environment) {
  S3Credentials credentials;
  const auto read = [&](const char* name, std::string* value) {
    const char* found = environment(name);
    *value = found == nullptr ? "" : found;
    return value->empty()
               ? absl::FailedPreconditionError(absl::StrCat("the variable ", name, " is not set"))
               : absl::OkStatus();
  };
  TENON_RETURN_IF_ERROR(read("AWS_ACCESS_KEY_ID", &credentials.access_key_id));
  TENON_RETURN_IF_ERROR(read("AWS_SECRET_ACCESS_KEY", &credentials.secret_access_key));
  read("AWS_SESSION_TOKEN", &credentials.session_token).IgnoreError();  // most have none
  return CredentialSource([credentials] { return credentials; });
}

absl::StatusOr<CredentialSource> CredentialsFromFile(const std::string& path) {
  TENON_RETURN_IF_ERROR(ReadCredentials(path).status());
  return CredentialSource([path] { return ReadCredentials(path); });
}

absl::StatusOr<S3Credentials> ParseCredentials(absl::string_view text) {
  S3Credentials credentials;
  bool in_default = false;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line[0] == '#' || line[0] == ';') {
      continue;
    }
    if (line[0] == '[') {
      in_default = line == "[default]";
      continue;
    }
    const std::pair<absl::string_view, absl::string_view> field =
        absl::StrSplit(line, absl::MaxSplits('=', 1));
    const absl::string_view name = absl::StripAsciiWhitespace(field.first);
    const std::string value(absl::StripAsciiWhitespace(field.second));
    if (in_default && name == "aws_access_key_id") {
      credentials.access_key_id = value;
    } else if (in_default && name == "aws_secret_access_key") {
      credentials.secret_access_key = value;
    } else if (in_default && name == "aws_session_token") {
      credentials.session_token = value;
    }
  }
  if (credentials.access_key_id.empty()) {
    return absl::FailedPreconditionError("the profile [default] has no aws_access_key_id");
  }
  if (credentials.secret_access_key.empty()) {
    return absl::FailedPreconditionError("the profile [default] has no aws_secret_access_key");
  }
  return credentials;
}

}  // namespace tenon
