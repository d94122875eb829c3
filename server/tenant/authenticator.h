// Authenticator: from what a call carries to who calls, and whether he may.
#ifndef TENON_SERVER_TENANT_AUTHENTICATOR_H_
#define TENON_SERVER_TENANT_AUTHENTICATOR_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/tenant/api_key.h"
#include "server/tenant/certificate_rules.h"
#include "server/tenant/identity.h"
#include "server/tenant/jwt_verifier.h"
#include "server/tenant/tenant_directory.h"

namespace tenon {

/// What a call carries. Views are valid for the call.
struct CallerEvidence {
  /// Values of the metadata `authorization`.
  std::vector<absl::string_view> authorization;
  /// Names in the certificate that the transport has verified; empty without one.
  CertificateNames certificate;
  /// Where it came from, which TrustedProxies settles: "ipv4:127.0.0.1:50000", "unix:/path".
  std::string peer;
  /// Whether it says that a proxy passed it on. Such a call is not this machine's own, whoever is
  /// the peer, unless a trusted proxy names an address of this machine.
  bool forwarded = false;
};

/// One policy for every method of every listener. An API key or a token in `authorization` decides
/// alone when it is there; else the peer's certificate does. With no credentials configured at all
/// (no key was ever issued, no key file, no JWKS, no certificate rules) callers on this machine act
/// for the tenant `default` with every role, and others are refused.
///
/// Thread-safe.
class Authenticator {
 public:
  struct Options {
    const TenantDirectory* directory = nullptr;  ///< borrowed
    std::string operator_key;                    ///< of a key file; empty: none
    const JwtVerifier* tokens = nullptr;         ///< borrowed; null: none
    std::optional<CertificateRules> certificates;
    bool allow_unauthenticated = false;  ///< without credentials, from everywhere
    std::function<absl::Time()> clock;
  };
  explicit Authenticator(Options options);

  /// Who calls `method` (a name of FindMethodPolicy). UNAUTHENTICATED (CREDENTIALS_MISSING,
  /// CREDENTIALS_INVALID, CREDENTIALS_EXPIRED, CREDENTIALS_REVOKED) or PERMISSION_DENIED
  /// (TENANT_SUSPENDED, ROLE_MISSING, METHOD_UNKNOWN).
  absl::StatusOr<Identity> Admit(absl::string_view method, const CallerEvidence& evidence) const;

  /// Whether callers need credentials.
  bool has_credentials() const;

 private:
  absl::StatusOr<Identity> Authenticate(const CallerEvidence& evidence) const;
  absl::StatusOr<Identity> AuthenticateBearer(absl::string_view token) const;
  absl::StatusOr<Identity> WithoutCredentials(const CallerEvidence& evidence) const;

  const Options options_;
  const ApiKeyHasher operator_hasher_;
  const std::string operator_digest_;
};

/// Whether `peer`, as gRPC writes addresses, is on this machine.
bool IsLocalPeer(absl::string_view peer);

}  // namespace tenon

#endif  // TENON_SERVER_TENANT_AUTHENTICATOR_H_
