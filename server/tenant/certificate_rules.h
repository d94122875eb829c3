// CertificateRules: whose a verified client certificate is.
#ifndef TENON_SERVER_TENANT_CERTIFICATE_RULES_H_
#define TENON_SERVER_TENANT_CERTIFICATE_RULES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/tenant/identity.h"

namespace tenon {

/// Names in a certificate whose chain the transport has verified.
struct CertificateNames {
  std::vector<std::string> spiffe_ids;  ///< URI names "spiffe://..."
  std::string subject;                  ///< RFC 2253: "CN=web,O=Acme"

  bool empty() const { return spiffe_ids.empty() && subject.empty(); }
};

/// An ordered list of rules; the first that matches decides. Immutable, thread-safe.
///
///   {"rules": [
///     {"spiffe_id": "spiffe://acme.example/ns/prod/sa/*", "tenant": "acme", "role": "inference"},
///     {"subject": "CN=ops,O=Acme", "role": "operator"}]}
///
/// A pattern may end in one "*", which stands for the rest.
class CertificateRules {
 public:
  /// INVALID_ARGUMENT, saying which rule, for anything else than the above.
  static absl::StatusOr<CertificateRules> Parse(absl::string_view json);

  /// UNAUTHENTICATED (CREDENTIALS_INVALID) when no rule matches.
  absl::StatusOr<Identity> Match(const CertificateNames& names) const;

 private:
  struct Rule {
    bool is_spiffe = false;
    std::string pattern;
    std::string tenant;
    Role role = Role::kInference;
  };
  std::vector<Rule> rules_;
};

}  // namespace tenon

#endif  // TENON_SERVER_TENANT_CERTIFICATE_RULES_H_
