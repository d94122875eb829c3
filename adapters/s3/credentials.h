// Where the credentials of an object store come from.
#ifndef TENON_ADAPTERS_S3_CREDENTIALS_H_
#define TENON_ADAPTERS_S3_CREDENTIALS_H_

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "adapters/s3/sigv4.h"

namespace tenon {

/// Asked before each request, so that what a rotation puts in their place is used at once.
/// Thread-safe.
using CredentialSource = std::function<absl::StatusOr<S3Credentials>()>;

/// From the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), read once.
/// FAILED_PRECONDITION, naming the variable, when one of the first two is missing.
absl::StatusOr<CredentialSource> CredentialsFromEnvironment(
    const std::function<const char*(const char*)>& environment);

/// From a file as AWS's tools keep it, the profile `[default]`; read again for each request.
/// FAILED_PRECONDITION at once when it cannot be used.
absl::StatusOr<CredentialSource> CredentialsFromFile(const std::string& path);

/// The profile `[default]` of such a text: aws_access_key_id, aws_secret_access_key and perhaps
/// aws_session_token. FAILED_PRECONDITION, naming what is missing and never a value.
absl::StatusOr<S3Credentials> ParseCredentials(absl::string_view text);

}  // namespace tenon

#endif  // TENON_ADAPTERS_S3_CREDENTIALS_H_
