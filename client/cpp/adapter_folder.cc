#include "client/cpp/adapter_folder.h"

#include <openssl/evp.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <system_error>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace tenon {
namespace {

namespace fs = std::filesystem;

/// sha256 of a stream of bytes.
class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr);
  }
  void Update(absl::string_view bytes) {
    EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size());
  }
  std::string HexDigest() {
    std::string digest(EVP_MAX_MD_SIZE, '\0');
    unsigned int size = 0;
    EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.data()), &size);
    digest.resize(size);
    return absl::BytesToHexString(digest);
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

absl::StatusOr<AdapterFolder> AdapterFolder::Open(const std::string& path) {
  std::error_code error;
  fs::directory_iterator entries(path, error);
  if (error) {
    return absl::NotFoundError(absl::StrCat(path, ": ", error.message()));
  }
  std::vector<std::string> names;
  int64_t num_bytes = 0;
  for (const fs::directory_entry& entry : entries) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file(error) && name[0] != '.') {
      names.push_back(name);
      num_bytes += static_cast<int64_t>(entry.file_size(error));
    }
  }
  if (names.empty()) {
    return absl::NotFoundError(absl::StrCat(path, ": holds no files"));
  }
  std::sort(names.begin(), names.end());
  return AdapterFolder(path, std::move(names), num_bytes);
}

absl::StatusOr<std::string> AdapterFolder::Read(
    int64_t chunk_bytes,
    const std::function<bool(const std::string&, absl::string_view)>& on_chunk) const {
  Sha256 folder_digest;
  std::string buffer(static_cast<size_t>(chunk_bytes), '\0');
  for (const std::string& name : file_names_) {
    const std::string file_path = absl::StrCat(path_, "/", name);
    std::ifstream file(file_path, std::ios::binary);
    if (!file) {
      return absl::NotFoundError(absl::StrCat(file_path, ": cannot be opened"));
    }
    Sha256 file_digest;
    bool first = true;
    while (true) {
      file.read(buffer.data(), chunk_bytes);
      const absl::string_view chunk(buffer.data(), static_cast<size_t>(file.gcount()));
      if (chunk.empty() && !first) {
        break;
      }
      first = false;
      file_digest.Update(chunk);
      if (!on_chunk(name, chunk)) {
        return absl::CancelledError("the reader of the folder stopped");
      }
    }
    if (file.bad()) {
      return absl::DataLossError(absl::StrCat(file_path, ": cannot be read"));
    }
    folder_digest.Update(absl::StrCat(file_digest.HexDigest(), "  ", name, "\n"));
  }
  return folder_digest.HexDigest();
}

}  // namespace tenon
