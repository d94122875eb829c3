// KeySet: the public keys of a JWKS document, and signatures checked with them.
#ifndef TENON_SERVER_TENANT_KEY_SET_H_
#define TENON_SERVER_TENANT_KEY_SET_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct evp_pkey_st;

namespace tenon {

/// Signature algorithms of RFC 7518 and RFC 8037 that are taken.
enum class SignatureAlgorithm { kRs256, kEs256, kEdDsa };

/// "RS256", "ES256", "EdDSA"; nothing for any other name, "none" included.
std::optional<SignatureAlgorithm> ParseSignatureAlgorithm(absl::string_view name);

/// Immutable, thread-safe.
class KeySet {
 public:
  /// Keys of other kinds or for other uses than signatures are passed over. INVALID_ARGUMENT when
  /// the document is malformed, when a key of a known kind is (RSA under 2048 bits, a point off its
  /// curve), or when none is left.
  static absl::StatusOr<KeySet> Parse(absl::string_view jwks);

  /// Whether a key of `algorithm`, and of id `key_id` unless that is empty, has signed `message`.
  bool Verify(SignatureAlgorithm algorithm, absl::string_view key_id, absl::string_view message,
              absl::string_view signature) const;

  size_t size() const { return keys_.size(); }

 private:
  struct Key {
    std::string id;
    SignatureAlgorithm algorithm = SignatureAlgorithm::kRs256;
    std::shared_ptr<evp_pkey_st> key;
  };
  std::vector<Key> keys_;
};

/// base64url without padding (RFC 7515, appendix C); nothing for any other text.
std::optional<std::string> DecodeBase64Url(absl::string_view text);

}  // namespace tenon

#endif  // TENON_SERVER_TENANT_KEY_SET_H_
