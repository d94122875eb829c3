// LocalAdapterStore: adapters in a folder of this machine.
#ifndef TENON_ADAPTERS_STORE_LOCAL_STORE_H_
#define TENON_ADAPTERS_STORE_LOCAL_STORE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "adapters/store/adapter_store.h"
#include "adapters/store/catalogue.h"
#include "adapters/store/posix_file.h"

namespace tenon {

class LocalUpload;

/// Content-addressed blobs and an SQLite catalogue below one root folder:
///
///   <root>/lock                   flock: one process at a time
///   <root>/catalogue.db           which versions exist
///   <root>/blobs/sha256/<hex>     their files, each content once
///   <root>/tmp/<upload>/<file>    uploads in progress
///
/// An upload becomes durable in this order: files written and fsynced in tmp/, renamed to blobs/,
/// blobs/ fsynced, catalogue row committed. The last step is the acknowledgement; a crash before it
/// leaves blobs that no row names, which Create sweeps. A deletion goes the other way: row first,
/// then the blobs that no other row names.
///
/// Thread-safe. Staging and reading run in parallel; the catalogue and blobs/ change under one
/// mutex which is, unlike others of Tenon, held across I/O (an fsync or two). Only workers and the
/// adapter loader may meet it.
class LocalAdapterStore final : public AdapterStore {
 public:
  using Clock = std::function<absl::Time()>;

  /// Opens the store, creating `root` where needed, and cleans up after a crash.
  /// FAILED_PRECONDITION when another process has it open or a newer Tenon wrote it,
  /// PERMISSION_DENIED when the folder cannot be written.
  static absl::StatusOr<std::unique_ptr<LocalAdapterStore>> Create(const std::string& root,
                                                                   Clock clock = absl::Now);

  absl::StatusOr<std::unique_ptr<StagedUpload>> Begin(int64_t max_bytes) override;
  absl::StatusOr<CommittedVersion> Commit(std::unique_ptr<StagedUpload> upload, AdapterInfo facts,
                                          const CommitOrder& order) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<FileSet> Open(const AdapterId& id) override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<std::vector<AdapterName>> Names() override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<AdapterName> Name(absl::string_view tenant, absl::string_view name) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<NameChange> MoveAlias(const AliasMove& move) override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<NameChange> SetSplit(absl::string_view tenant, absl::string_view name,
                                      const std::vector<SplitArm>& split,
                                      absl::string_view actor) override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<NameChange> Delete(const AdapterId& id, const std::vector<AliasMove>& moves,
                                    absl::string_view actor) override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<NameChange> DeleteName(absl::string_view tenant, absl::string_view name,
                                        absl::string_view actor) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<std::vector<AliasChange>> History(absl::string_view tenant,
                                                   absl::string_view name) override
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Folders {
    UniqueFd lock, tmp, blobs;
  };
  // A file of a version with its blob open.
  struct OpenBlob {
    StoredFile file;
    UniqueFd fd;
  };

  LocalAdapterStore(Folders folders, Catalogue catalogue, Clock clock);

  static absl::StatusOr<Folders> OpenFolders(const std::string& root);
  absl::Status Recover() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::vector<OpenBlob>> OpenBlobs(const AdapterId& id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<CommittedVersion> Install(LocalUpload* upload, StoredVersion version,
                                           const CommitOrder& order)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Versions that hold a damaged blob, with the reason. What cannot be asked now is left out: its
  // Open fails all the same.
  std::map<AdapterId, std::string> DamagedVersions() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Fills in which versions are quarantined.
  void AddDamage(std::span<AdapterName> names) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<NameChange> FinishRemoval(absl::StatusOr<RemovedFiles> removed)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Drops the blobs of an upload that failed before its commit.
  void Discard(const std::vector<StoredFile>& files) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropUnreferenced(const std::vector<StoredFile>& files) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Folders folders_;
  const Clock clock_;
  std::atomic<int64_t> num_uploads_ = 0;  // Names the folders in tmp/, which is empty at start.

  absl::Mutex mutex_;
  Catalogue catalogue_ ABSL_GUARDED_BY(mutex_);
  // Blobs found missing or wrong: sha256 -> what is wrong.
  absl::flat_hash_map<std::string, std::string> damaged_blobs_ ABSL_GUARDED_BY(mutex_);
  // Blobs of a commit that failed in doubt: dropped after the next change of the catalogue, when no
  // crash can bring that commit's rows back (see Catalogue).
  std::vector<StoredFile> in_doubt_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_STORE_LOCAL_STORE_H_
