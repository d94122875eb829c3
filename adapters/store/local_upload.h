// LocalUpload: an upload into a folder of LocalAdapterStore's tmp/.
#ifndef TENON_ADAPTERS_STORE_LOCAL_UPLOAD_H_
#define TENON_ADAPTERS_STORE_LOCAL_UPLOAD_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "adapters/base/sha256.h"
#include "adapters/store/adapter_store.h"
#include "adapters/store/catalogue.h"
#include "adapters/store/posix_file.h"

namespace tenon {

/// Files of one upload, hashed while they are written. Not thread-safe.
///
/// Life: Create -> Append ... -> Seal -> MoveTo (by Commit). The destructor removes what was not
/// moved; what a crash leaves is swept when the store opens.
class LocalUpload final : public StagedUpload {
 public:
  /// Makes the folder `name` in `tmp_dirfd`, which is borrowed.
  static absl::StatusOr<std::unique_ptr<LocalUpload>> Create(int tmp_dirfd, std::string name,
                                                             int64_t max_bytes);
  ~LocalUpload() override;

  absl::Status Append(absl::string_view file_name, std::span<const std::byte> bytes) override;
  absl::StatusOr<FileSet> Seal() override;
  const std::string& digest() const override { return digest_; }
  int64_t num_bytes() const override { return num_bytes_; }

  /// What a store has been given to commit, borrowed. FAILED_PRECONDITION when it is not a sealed
  /// upload of this kind.
  static absl::StatusOr<LocalUpload*> FindSealed(StagedUpload* upload);

  /// The catalogue's row of it; `facts` gives what the files do not say. INVALID_ARGUMENT for names
  /// that are none.
  absl::StatusOr<StoredVersion> ToVersion(AdapterInfo facts, absl::Time created) const;

  /// The files, ordered by name. Empty before Seal.
  const std::vector<StoredFile>& files() const { return files_; }

  /// Renames every file to its sha256 in `blobs_dirfd`, over an equal blob that is there (which
  /// repairs it if it has rotted).
  absl::Status MoveTo(int blobs_dirfd);

 private:
  struct OpenFile {
    UniqueFd fd;
    Sha256 hash;
    int64_t num_bytes = 0;
  };

  LocalUpload(int tmp_dirfd, std::string name, UniqueFd folder, int64_t max_bytes);
  absl::Status Write(absl::string_view file_name, std::span<const std::byte> bytes);

  const int tmp_dirfd_;
  const std::string name_;
  const UniqueFd folder_;
  const int64_t max_bytes_;
  std::map<std::string, OpenFile, std::less<>> open_files_;
  std::vector<StoredFile> files_;
  std::string digest_;
  int64_t num_bytes_ = 0;
  absl::Status status_;  // The first error; every later call returns it.
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_STORE_LOCAL_UPLOAD_H_
