#include "server/tenant/authenticator.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/registry/adapter_id.h"
#include "server/tenant/method_policy.h"

namespace tenon {
namespace {

std::string DrawPepper() {
  std::string pepper(32, '\0');
  DrawRandomBytes(std::span(reinterpret_cast<unsigned char*>(pepper.data()), pepper.size()));
  return pepper;
}

// The credentials of `Bearer <credentials>` (RFC 6750); the scheme's case does not matter.
absl::StatusOr<absl::string_view> BearerOf(absl::string_view value) {
  constexpr absl::string_view kScheme = "bearer ";
  if (!absl::StartsWithIgnoreCase(value, kScheme) || value.size() == kScheme.size()) {
    return InvalidCredentialsError();
  }
  return value.substr(kScheme.size());
}

}  // namespace

bool IsLocalPeer(absl::string_view peer) {
  return absl::StartsWith(peer, "unix:") || absl::StartsWith(peer, "ipv4:127.") ||
         absl::StartsWith(peer, "ipv6:%5B::1%5D:") || absl::StartsWith(peer, "ipv6:[::1]:") ||
         absl::StartsWith(peer, "ipv6:%5B::ffff:127.") ||
         absl::StartsWith(peer, "ipv6:[::ffff:127.");
}

Authenticator::Authenticator(Options options)
    : options_(std::move(options)),
      operator_hasher_(DrawPepper()),
      operator_digest_(operator_hasher_.Digest(options_.operator_key)) {}

bool Authenticator::has_credentials() const {
  return !options_.operator_key.empty() || options_.tokens != nullptr ||
         options_.certificates.has_value() || options_.directory->has_keys();
}

absl::StatusOr<Identity> Authenticator::Admit(absl::string_view method,
                                              const CallerEvidence& evidence) const {
  const MethodPolicy* const policy = FindMethodPolicy(method);
  if (policy == nullptr) {
    return PermissionDeniedError("METHOD_UNKNOWN",
                                 absl::StrCat("method ", method, " has no policy"));
  }
  if (policy->roles.empty()) {
    return Identity{};
  }
  TENON_ASSIGN_OR_RETURN(Identity identity, Authenticate(evidence));
  if (!identity.roles.Meets(policy->roles)) {
    return PermissionDeniedError(
        "ROLE_MISSING",
        absl::StrCat(identity.credential, " has the roles (", identity.roles.ToString(), "); ",
                     policy->method, " takes any of (", policy->roles.ToString(), ")"));
  }
  return identity;
}

absl::StatusOr<Identity> Authenticator::Authenticate(const CallerEvidence& evidence) const {
  if (evidence.authorization.size() > 1) {
    return InvalidCredentialsError();
  }
  if (!evidence.authorization.empty()) {
    TENON_ASSIGN_OR_RETURN(const absl::string_view token, BearerOf(evidence.authorization[0]));
    return AuthenticateBearer(token);
  }
  if (options_.certificates.has_value() && !evidence.certificate.empty()) {
    TENON_ASSIGN_OR_RETURN(Identity identity, options_.certificates->Match(evidence.certificate));
    if (!identity.tenant.empty()) {
      TENON_RETURN_IF_ERROR(options_.directory->CheckActive(identity.tenant));
    }
    return identity;
  }
  return WithoutCredentials(evidence);
}

absl::StatusOr<Identity> Authenticator::AuthenticateBearer(absl::string_view token) const {
  if (!options_.operator_key.empty() && operator_hasher_.Matches(token, operator_digest_)) {
    return Identity{"", {Role::kOperator}, "key:operator-file"};
  }
  if (absl::StartsWith(token, kApiKeyPrefix) || options_.tokens == nullptr) {
    return options_.directory->AuthenticateKey(token);
  }
  TENON_ASSIGN_OR_RETURN(Identity identity, options_.tokens->Verify(token, options_.clock()));
  if (!identity.tenant.empty()) {
    TENON_RETURN_IF_ERROR(options_.directory->CheckActive(identity.tenant));
  }
  return identity;
}

absl::StatusOr<Identity> Authenticator::WithoutCredentials(const CallerEvidence& evidence) const {
  if (has_credentials()) {
    return UnauthenticatedError("CREDENTIALS_MISSING",
                                "no credentials: send `authorization: Bearer <key>`");
  }
  const bool is_local = IsLocalPeer(evidence.peer) && !evidence.forwarded;
  if (!options_.allow_unauthenticated && !is_local) {
    return UnauthenticatedError("CREDENTIALS_MISSING",
                                "this server has no credentials configured, and without them "
                                "answers callers on its own machine only");
  }
  return Identity{std::string(kDefaultTenant), RoleSet::All(), "local"};
}

}  // namespace tenon
