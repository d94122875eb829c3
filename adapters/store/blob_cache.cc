#include "adapters/store/blob_cache.h"

#include <unistd.h>

#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"

namespace tenon {

absl::StatusOr<std::unique_ptr<BlobCache>> BlobCache::Create(int blobs_dirfd, int tmp_dirfd,
                                                             int64_t max_bytes) {
  std::unique_ptr<BlobCache> cache(new BlobCache(blobs_dirfd, tmp_dirfd, max_bytes));
  TENON_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                         ListDirectory(blobs_dirfd, "list the blob cache"));
  absl::MutexLock lock(&cache->mutex_);
  for (const std::string& name : names) {
    TENON_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(blobs_dirfd, name, "list the blob cache"));
    TENON_ASSIGN_OR_RETURN(const int64_t num_bytes, FileSize(fd.get(), "list the blob cache"));
    cache->Touch(name, num_bytes);
  }
  return cache;
}

absl::StatusOr<FileBytes> BlobCache::Open(const std::string& sha256, Fetch fetch) {
  {
    absl::MutexLock lock(&mutex_);
    const auto is_free = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return !in_flight_.contains(sha256);
    };
    mutex_.Await(absl::Condition(&is_free));
    in_flight_.insert(sha256);
  }
  const absl::Cleanup done = [&] {
    absl::MutexLock lock(&mutex_);
    in_flight_.erase(sha256);
  };
  absl::StatusOr<FileBytes> copy = OpenCopy(sha256);
  if (!absl::IsNotFound(copy.status()) && !absl::IsDataLoss(copy.status())) {
    return copy;
  }
  TENON_RETURN_IF_ERROR(FetchCopy(sha256, fetch));
  return OpenCopy(sha256);
}

absl::StatusOr<FileBytes> BlobCache::OpenCopy(const std::string& sha256) {
  TENON_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(blobs_dirfd_, sha256, "open a cached blob"));
  TENON_ASSIGN_OR_RETURN(const int64_t num_bytes, FileSize(fd.get(), "open a cached blob"));
  TENON_ASSIGN_OR_RETURN(const std::string found, HashFile(fd.get(), "check a cached blob"));
  if (found != sha256) {
    absl::MutexLock lock(&mutex_);
    Drop(sha256);
    return absl::DataLossError("the cached copy does not match its digest");
  }
  absl::StatusOr<FileBytes> bytes = MapFile(fd.get(), "map a cached blob");
  absl::MutexLock lock(&mutex_);
  Touch(sha256, num_bytes);
  return bytes;
}

absl::Status BlobCache::FetchCopy(const std::string& sha256, Fetch fetch) {
  const std::string name = absl::StrCat("fetch-", sha256);  // one at a time for each digest
  TENON_RETURN_IF_ERROR(RemoveFile(tmp_dirfd_, name, "fetch a blob"));
  const absl::Cleanup remove = [&] { RemoveFile(tmp_dirfd_, name, "fetch a blob").IgnoreError(); };
  TENON_ASSIGN_OR_RETURN(const UniqueFd fd, CreateFile(tmp_dirfd_, name, "fetch a blob"));
  TENON_RETURN_IF_ERROR(fetch(fd.get()));
  TENON_ASSIGN_OR_RETURN(const std::string found, HashFile(fd.get(), "check a fetched blob"));
  if (found != sha256) {
    return absl::DataLossError("does not match its digest in the object store");
  }
  TENON_ASSIGN_OR_RETURN(const int64_t num_bytes, FileSize(fd.get(), "fetch a blob"));
  TENON_RETURN_IF_ERROR(Rename(tmp_dirfd_, name, blobs_dirfd_, sha256, "keep a fetched blob"));
  Adopt(sha256, num_bytes);
  return absl::OkStatus();
}

void BlobCache::Adopt(const std::string& sha256, int64_t num_bytes) {
  absl::MutexLock lock(&mutex_);
  Touch(sha256, num_bytes);
}

bool BlobCache::Contains(const std::string& sha256) const {
  absl::MutexLock lock(&mutex_);
  return copies_.contains(sha256);
}

int64_t BlobCache::num_bytes() const {
  absl::MutexLock lock(&mutex_);
  return num_bytes_;
}

void BlobCache::Touch(const std::string& sha256, int64_t num_bytes) {
  const auto [found, added] = copies_.try_emplace(sha256);
  Copy& copy = found->second;
  if (added) {
    by_use_.push_front(sha256);
    copy.position = by_use_.begin();
  } else {
    by_use_.splice(by_use_.begin(), by_use_, copy.position);
  }
  num_bytes_ += num_bytes - copy.num_bytes;
  copy.num_bytes = num_bytes;
  while (num_bytes_ > max_bytes_ && by_use_.size() > 1) {
    Drop(std::string(by_use_.back()));
  }
}

// Unlinking a file is quick, and what is mapped of it stays.
void BlobCache::Drop(const std::string& sha256) {
  const auto found = copies_.find(sha256);
  if (found != copies_.end()) {
    num_bytes_ -= found->second.num_bytes;
    by_use_.erase(found->second.position);
    copies_.erase(found);
  }
  RemoveFile(blobs_dirfd_, sha256, "drop a cached blob").IgnoreError();
}

}  // namespace tenon
