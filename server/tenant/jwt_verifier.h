// JwtVerifier: bearer tokens (JWT, RFC 7519) against a JWKS file (RFC 7517) that may change.
#ifndef TENON_SERVER_TENANT_JWT_VERIFIER_H_
#define TENON_SERVER_TENANT_JWT_VERIFIER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/tenant/identity.h"
#include "server/tenant/key_set.h"

namespace tenon {

/// What a token must say.
struct JwtRules {
  std::string issuer;    ///< "iss" must be this; empty: any
  std::string audience;  ///< "aud" must be or hold this; empty: any
  std::string tenant_claim = "tenant";
  std::string role_claim = "role";            ///< a role's name, or a list of them
  absl::Duration leeway = absl::Seconds(30);  ///< of clocks that differ
};

inline constexpr size_t kMaxTokenBytes = 8 << 10;

/// Tokens in compact form, signed with RS256, ES256 or EdDSA (Ed25519) by a key of the set. `exp`
/// must be there. The algorithm is the key's, whatever the token asks for; a token with `crit` is
/// refused. OpenSSL checks the signatures.
///
/// Thread-safe. A set that is replaced does not disturb calls that verify.
class JwtVerifier {
 public:
  explicit JwtVerifier(JwtRules rules) : rules_(std::move(rules)) {}

  /// Takes over the keys of a JWKS document. INVALID_ARGUMENT for one that is malformed or holds no
  /// usable key; the last good set then stays.
  absl::Status Replace(absl::string_view jwks) ABSL_LOCKS_EXCLUDED(mutex_);

  /// UNAUTHENTICATED: CREDENTIALS_INVALID or CREDENTIALS_EXPIRED.
  absl::StatusOr<Identity> Verify(absl::string_view token, absl::Time now) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  /// Whether the last Replace succeeded.
  bool is_current() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  const JwtRules rules_;
  mutable absl::Mutex mutex_;
  std::shared_ptr<const KeySet> keys_ ABSL_GUARDED_BY(mutex_) = std::make_shared<const KeySet>();
  bool is_current_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace tenon

#endif  // TENON_SERVER_TENANT_JWT_VERIFIER_H_
