#include "adapters/base/sha256.h"

#include <array>
#include <cstdlib>

#include "absl/strings/escaping.h"

namespace tenon {
namespace {

constexpr size_t kDigestBytes = 32;

// OpenSSL fails these calls only for want of memory or for a broken installation.
void Require(int result) {
  if (result != 1) {
    std::abort();
  }
}

}  // namespace

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  Require(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr));
}

void Sha256::Update(std::span<const std::byte> bytes) {
  Require(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()));
}

void Sha256::Update(absl::string_view text) {
  Require(EVP_DigestUpdate(context_.get(), text.data(), text.size()));
}

std::string Sha256::HexDigest() {
  std::array<unsigned char, kDigestBytes> digest;
  Require(EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr));
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

}  // namespace tenon
