// API keys: tnk_<id>_<secret>.
#ifndef TENON_SERVER_TENANT_API_KEY_H_
#define TENON_SERVER_TENANT_API_KEY_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tenon {

/// Fills `bytes` with random bits fit for secrets.
using RandomBytes = std::function<void(std::span<unsigned char> bytes)>;

/// OpenSSL's generator. Ends the process when the system has no randomness to give.
void DrawRandomBytes(std::span<unsigned char> bytes);

inline constexpr absl::string_view kApiKeyPrefix = "tnk_";
inline constexpr size_t kApiKeyIdDigits = 16;      ///< 64 bits: names the key in logs and lists
inline constexpr size_t kApiKeySecretDigits = 64;  ///< 256 bits

/// A key as its owner holds it, shown once.
struct ApiKey {
  std::string id;
  std::string text;  ///< the whole of it

  static ApiKey Draw(const RandomBytes& random);
};

/// The id of a text that has a key's form; nothing otherwise. Views into `text`.
std::optional<absl::string_view> ApiKeyId(absl::string_view text);

/// Digests of keys: HMAC-SHA256 (RFC 2104) of the whole key, keyed with the server's pepper, as
/// lower-case hex. A key holds 256 random bits, so that a slow hash, made to protect guessable
/// passwords, would add only its latency; the pepper, kept beside the database and not in it, makes
/// a stolen database useless even for testing a key. About a microsecond. Thread-safe.
class ApiKeyHasher {
 public:
  /// `pepper` of any length.
  explicit ApiKeyHasher(std::string pepper) : pepper_(std::move(pepper)) {}

  /// Reads the pepper from `path`, or makes one of 32 bytes there, mode 0600, durable before this
  /// returns. FAILED_PRECONDITION for a file of less than 16 bytes.
  static absl::StatusOr<ApiKeyHasher> Open(const std::string& path, const RandomBytes& random);

  std::string Digest(absl::string_view key) const;

  /// Whether `key` has that digest, in time that does not depend on where they differ.
  bool Matches(absl::string_view key, absl::string_view digest) const;

 private:
  std::string pepper_;
};

}  // namespace tenon

#endif  // TENON_SERVER_TENANT_API_KEY_H_
