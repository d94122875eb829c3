#include "server/tenant/api_key.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace tenon {
namespace {

constexpr size_t kPepperBytes = 32;
constexpr size_t kMinPepperBytes = 16;

std::string Hex(std::span<const unsigned char> bytes) {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

std::string DrawHex(const RandomBytes& random, size_t num_digits) {
  std::vector<unsigned char> bytes(num_digits / 2);
  random(bytes);
  return Hex(bytes);
}

bool IsHex(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isdigit(static_cast<unsigned char>(c)) || (c >= 'a' && c <= 'f');
  });
}

// Written under another name first: a crash leaves the whole pepper or none.
absl::Status WritePepper(const std::string& path, absl::string_view pepper) {
  const std::string temporary = absl::StrCat(path, ".new");
  const int fd =
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode_t{0600});
  const bool written =
      fd >= 0 && write(fd, pepper.data(), pepper.size()) == static_cast<ssize_t>(pepper.size()) &&
      fsync(fd) == 0;
  if (fd >= 0) {
    close(fd);
  }
  if (!written || rename(temporary.c_str(), path.c_str()) != 0) {
    return absl::UnavailableError("cannot write the key pepper");
  }
  const std::string folder = std::filesystem::path(path).parent_path().string();
  const int folder_fd = open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_CLOEXEC);
  const bool synced = folder_fd >= 0 && fsync(folder_fd) == 0;
  if (folder_fd >= 0) {
    close(folder_fd);
  }
  return synced ? absl::OkStatus() : absl::UnavailableError("cannot sync the key pepper");
}

}  // namespace

void DrawRandomBytes(std::span<unsigned char> bytes) {
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) {
    std::fputs("no randomness for secrets\n", stderr);
    std::abort();
  }
}

ApiKey ApiKey::Draw(const RandomBytes& random) {
  ApiKey key;
  key.id = DrawHex(random, kApiKeyIdDigits);
  key.text = absl::StrCat(kApiKeyPrefix, key.id, "_", DrawHex(random, kApiKeySecretDigits));
  return key;
}

std::optional<absl::string_view> ApiKeyId(absl::string_view text) {
  constexpr size_t kBytes = kApiKeyPrefix.size() + kApiKeyIdDigits + 1 + kApiKeySecretDigits;
  if (text.size() != kBytes || !absl::StartsWith(text, kApiKeyPrefix)) {
    return std::nullopt;
  }
  const absl::string_view id = text.substr(kApiKeyPrefix.size(), kApiKeyIdDigits);
  const absl::string_view rest = text.substr(kApiKeyPrefix.size() + kApiKeyIdDigits);
  if (rest[0] != '_' || !IsHex(id) || !IsHex(rest.substr(1))) {
    return std::nullopt;
  }
  return id;
}

absl::StatusOr<ApiKeyHasher> ApiKeyHasher::Open(const std::string& path,
                                                const RandomBytes& random) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    std::array<unsigned char, kPepperBytes> bytes;
    random(bytes);
    std::string pepper(bytes.begin(), bytes.end());
    if (absl::Status status = WritePepper(path, pepper); !status.ok()) {
      return status;
    }
    return ApiKeyHasher(std::move(pepper));
  }
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  if (!file || content.str().size() < kMinPepperBytes) {
    return absl::FailedPreconditionError(
        absl::StrCat("the key pepper cannot be read or has less than ", kMinPepperBytes, " bytes"));
  }
  return ApiKeyHasher(std::move(content).str());
}

std::string ApiKeyHasher::Digest(absl::string_view key) const {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int size = 0;
  HMAC(EVP_sha256(), pepper_.data(), static_cast<int>(pepper_.size()),
       reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data(), &size);
  return Hex(std::span(digest.data(), size));
}

bool ApiKeyHasher::Matches(absl::string_view key, absl::string_view digest) const {
  const std::string computed = Digest(key);
  return computed.size() == digest.size() &&
         CRYPTO_memcmp(computed.data(), digest.data(), digest.size()) == 0;
}

}  // namespace tenon
