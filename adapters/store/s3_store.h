// S3AdapterStore: adapters in an object store that many replicas share.
#ifndef TENON_ADAPTERS_STORE_S3_STORE_H_
#define TENON_ADAPTERS_STORE_S3_STORE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "adapters/s3/s3_client.h"
#include "adapters/store/adapter_store.h"
#include "adapters/store/blob_cache.h"
#include "adapters/store/name_state.h"
#include "adapters/store/posix_file.h"

namespace tenon {

class LocalUpload;

/// Everything is in the bucket; a local folder holds copies, and may be lost:
///
///   names/<tenant>/<name>.json                what there is of a name: the point of
///   acknowledgement versions/<tenant>/<name>/<number>.json    a version's row, written once
///   (If-None-Match: *) blobs/sha256/<hex>                        the files, each content once
///
/// A change reads the name's object, changes it and writes it back under the condition that nobody
/// else has (If-Match): one of two writers wins, the other tries again on what the first one left.
/// An upload puts its blobs first, claims a number by writing the version's object, then changes
/// the name. A crash in between leaves objects that no name mentions, and a number that is not
/// used.
///
/// Refresh finds what other replicas changed: one listing, and the names whose ETag is another.
/// Until it succeeds for the first time the store answers from the copy that the last process left.
///
/// Blobs are checked against their digest whenever they are read. Thread-safe; writers wait for one
/// another across I/O.
class S3AdapterStore final : public AdapterStore {
 public:
  struct Options {
    S3Client::Options client;
    std::string cache_folder;
    int64_t cache_bytes = int64_t{10} << 30;
    std::function<absl::Time()> clock;
    std::function<std::string()> draw_nonce;  ///< a random text for each write
  };

  /// Opens the folder and reads the catalogue. A bucket that cannot be reached is no error: see
  /// status(). FAILED_PRECONDITION when another process has the folder open; PERMISSION_DENIED when
  /// the bucket or the folder refuses.
  static absl::StatusOr<std::unique_ptr<S3AdapterStore>> Create(Options options);

  absl::StatusOr<std::unique_ptr<StagedUpload>> Begin(int64_t max_bytes) override;
  absl::StatusOr<CommittedVersion> Commit(std::unique_ptr<StagedUpload> upload, AdapterInfo facts,
                                          const CommitOrder& order) override
      ABSL_LOCKS_EXCLUDED(write_mutex_, mutex_);
  absl::StatusOr<FileSet> Open(const AdapterId& id) override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<std::vector<AdapterName>> Names() override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<AdapterName> Name(absl::string_view tenant, absl::string_view name) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<NameChange> MoveAlias(const AliasMove& move) override
      ABSL_LOCKS_EXCLUDED(write_mutex_, mutex_);
  absl::StatusOr<NameChange> SetSplit(absl::string_view tenant, absl::string_view name,
                                      const std::vector<SplitArm>& split,
                                      absl::string_view actor) override
      ABSL_LOCKS_EXCLUDED(write_mutex_, mutex_);
  absl::StatusOr<NameChange> Delete(const AdapterId& id, const std::vector<AliasMove>& moves,
                                    absl::string_view actor) override
      ABSL_LOCKS_EXCLUDED(write_mutex_, mutex_);
  absl::StatusOr<NameChange> DeleteName(absl::string_view tenant, absl::string_view name,
                                        absl::string_view actor) override
      ABSL_LOCKS_EXCLUDED(write_mutex_, mutex_);
  absl::StatusOr<std::vector<AliasChange>> History(absl::string_view tenant,
                                                   absl::string_view name) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<std::vector<AdapterName>> Refresh() override ABSL_LOCKS_EXCLUDED(mutex_);
  StoreStatus status() const override ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // A name as it was last seen.
  struct Entry {
    std::string etag;  // empty: there is no object yet
    NameState state;
  };
  struct Damage {
    std::string reason;
    absl::Time found;
  };
  struct Folders {
    UniqueFd root, lock, tmp, blobs;
  };
  using Change = absl::FunctionRef<absl::StatusOr<AliasChange>(NameState&)>;

  S3AdapterStore(Options options, Folders folders, std::unique_ptr<BlobCache> cache);

  // The name as the bucket has it now; an empty one when it has none.
  absl::StatusOr<Entry> Load(const std::string& tenant, const std::string& name)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<Entry> LoadObject(const std::string& key) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<StoredVersion> LoadVersion(const NameState& state, int64_t number) const;
  // Loads many side by side; those that fail are logged and left out.
  std::vector<Entry> LoadAll(const std::vector<std::string>& keys) ABSL_LOCKS_EXCLUDED(mutex_);

  // Reads, changes and writes a name until nobody came between.
  absl::StatusOr<NameChange> Alter(const std::string& tenant, const std::string& name,
                                   Change change) ABSL_LOCKS_EXCLUDED(write_mutex_, mutex_);
  // One try of it; ABORTED with reason CHANGED_MEANWHILE when somebody came between.
  absl::StatusOr<NameChange> AlterOnce(Entry entry, Change change) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<NameChange> Remove(const std::string& tenant, const std::string& name,
                                    Change change) ABSL_LOCKS_EXCLUDED(write_mutex_, mutex_);

  absl::Status PutBlobs(const std::vector<StoredFile>& files) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status PutBlob(const StoredFile& file) ABSL_LOCKS_EXCLUDED(mutex_);
  // Gives `version` a number that nobody has, above the name's last.
  absl::Status ClaimNumber(const NameState& state, StoredVersion& version);
  absl::StatusOr<FileBytes> OpenBlob(const std::string& sha256) ABSL_LOCKS_EXCLUDED(mutex_);
  // Takes the blobs that no name mentions any more out of the bucket.
  void DropUnreferenced(const std::vector<StoredVersion>& removed) ABSL_LOCKS_EXCLUDED(mutex_);
  bool IsReferenced(absl::string_view sha256) const ABSL_LOCKS_EXCLUDED(mutex_);

  AdapterName Keep(Entry entry) ABSL_LOCKS_EXCLUDED(mutex_);
  AdapterName Describe(const NameState& state) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Gives blobs that were found wrong a while ago another chance, and the names that hold them:
  // whoever opens one checks it again.
  std::vector<AdapterName> ForgetDamage() ABSL_LOCKS_EXCLUDED(mutex_);

  void WriteCopy() ABSL_LOCKS_EXCLUDED(mutex_);
  void ReadCopy() ABSL_LOCKS_EXCLUDED(mutex_);

  const Options options_;
  const S3Client client_;
  const Folders folders_;
  const std::unique_ptr<BlobCache> cache_;
  std::atomic<int64_t> num_uploads_ = 0;

  absl::Mutex write_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);  // held across I/O, by writers only
  mutable absl::Mutex mutex_;
  absl::btree_map<std::string, Entry> names_ ABSL_GUARDED_BY(mutex_);  // by key
  bool copy_is_stale_ ABSL_GUARDED_BY(mutex_) = false;
  StoreStatus status_ ABSL_GUARDED_BY(mutex_);
  // Blobs that are wrong in the bucket, by sha256.
  absl::flat_hash_map<std::string, Damage> damaged_blobs_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_STORE_S3_STORE_H_
