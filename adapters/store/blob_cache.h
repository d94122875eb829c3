// BlobCache: local copies of blobs that live elsewhere.
#ifndef TENON_ADAPTERS_STORE_BLOB_CACHE_H_
#define TENON_ADAPTERS_STORE_BLOB_CACHE_H_

#include <cstdint>
#include <list>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "adapters/formats/file_set.h"
#include "adapters/store/posix_file.h"

namespace tenon {

/// Content-addressed files in one folder, within a budget of bytes: over it the ones that were used
/// longest ago go. What is mapped stays readable. A copy that has rotted is dropped and fetched
/// anew.
///
/// Thread-safe. One fetch at a time for each blob, however many wait for it; different blobs are
/// fetched side by side.
class BlobCache {
 public:
  /// Fills an empty file, open for writing: UNAVAILABLE when the blob cannot be had now, NOT_FOUND
  /// when there is none.
  using Fetch = absl::FunctionRef<absl::Status(int fd)>;

  /// Takes over the copies that are in `blobs_dirfd`; `tmp_dirfd` is on the same file system and
  /// empty. Both are borrowed.
  static absl::StatusOr<std::unique_ptr<BlobCache>> Create(int blobs_dirfd, int tmp_dirfd,
                                                           int64_t max_bytes);

  /// The content, mapped and checked against its digest. DATA_LOSS when what `fetch` brought does
  /// not match it.
  absl::StatusOr<FileBytes> Open(const std::string& sha256, Fetch fetch)
      ABSL_LOCKS_EXCLUDED(mutex_);

  /// Counts a file that was put into the folder under its digest.
  void Adopt(const std::string& sha256, int64_t num_bytes) ABSL_LOCKS_EXCLUDED(mutex_);

  bool Contains(const std::string& sha256) const ABSL_LOCKS_EXCLUDED(mutex_);
  int64_t num_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Copy {
    int64_t num_bytes = 0;
    std::list<std::string>::iterator position;
  };

  BlobCache(int blobs_dirfd, int tmp_dirfd, int64_t max_bytes)
      : blobs_dirfd_(blobs_dirfd), tmp_dirfd_(tmp_dirfd), max_bytes_(max_bytes) {}

  absl::StatusOr<FileBytes> OpenCopy(const std::string& sha256) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status FetchCopy(const std::string& sha256, Fetch fetch) ABSL_LOCKS_EXCLUDED(mutex_);
  void Touch(const std::string& sha256, int64_t num_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Drop(const std::string& sha256) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int blobs_dirfd_;
  const int tmp_dirfd_;
  const int64_t max_bytes_;
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, Copy> copies_ ABSL_GUARDED_BY(mutex_);
  std::list<std::string> by_use_ ABSL_GUARDED_BY(mutex_);  // the latest in front
  int64_t num_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_set<std::string> in_flight_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_STORE_BLOB_CACHE_H_
