// Sha256: the streaming digest that names blobs, adapters and models.
#ifndef TENON_ADAPTERS_BASE_SHA256_H_
#define TENON_ADAPTERS_BASE_SHA256_H_

#include <openssl/evp.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "absl/strings/string_view.h"

namespace tenon {

/// SHA-256 of what Update was given so far (FIPS 180-4, by OpenSSL). Movable; not thread-safe.
class Sha256 {
 public:
  Sha256();

  void Update(std::span<const std::byte> bytes);
  void Update(absl::string_view text);

  /// Lower-case hex, 64 characters. Ends the stream: nothing may be called after it.
  std::string HexDigest();

 private:
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  std::unique_ptr<EVP_MD_CTX, Free> context_;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_BASE_SHA256_H_
