// AdapterVersions: every change of versions and aliases, first durable, then visible.
#ifndef TENON_ADAPTERS_STORE_ADAPTER_VERSIONS_H_
#define TENON_ADAPTERS_STORE_ADAPTER_VERSIONS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "adapters/formats/file_set.h"
#include "adapters/registry/adapter_registry.h"
#include "adapters/store/adapter_store.h"

namespace tenon {

/// Joins store and registry. A change is committed to the store, then put into the registry, one at
/// a time: what a caller has been answered is what the next request sees, here and after a crash.
/// Requests that hold a version finish on it, whatever happens to the name.
///
/// Thread-safe; methods do I/O, so they are called from a worker, never from the engine thread or a
/// gRPC poller.
///
///   AdapterVersions versions(&store, &registry, max_adapters);
///   TENON_RETURN_IF_ERROR(versions.Restore());
///   versions.Promote({"acme", "fr", "stable", 7, /*expected_version=*/6, AliasAction::kPromote,
///                     "key:ops"});
class AdapterVersions {
 public:
  /// Both are borrowed and outlive this.
  AdapterVersions(AdapterStore* store, AdapterRegistry* registry, int64_t max_versions_per_tenant);

  /// Told of every version that goes, after it went: whoever has its tensors may drop them. Set
  /// before the first change.
  void set_on_retired(std::function<void(const AdapterInfo&)> on_retired) {
    on_retired_ = std::move(on_retired);
  }

  /// Puts all stored names into the registry. Called once, at start. Damaged versions are logged.
  absl::Status Restore() ABSL_LOCKS_EXCLUDED(change_mutex_);

  /// Takes what other replicas changed in a shared store into the registry, and returns how many
  /// names that were. Errors of AdapterStore::Refresh; what was known then stays served.
  absl::StatusOr<int64_t> Refresh() ABSL_LOCKS_EXCLUDED(change_mutex_);
  StoreStatus store_status() const { return store_->status(); }

  absl::StatusOr<std::unique_ptr<StagedUpload>> Begin(int64_t max_bytes) {
    return store_->Begin(max_bytes);
  }

  /// AdapterStore::Commit. RESOURCE_EXHAUSTED (reason ADAPTERS_PER_TENANT) when the tenant has its
  /// fill of versions.
  absl::StatusOr<CommittedVersion> Commit(std::unique_ptr<StagedUpload> upload, AdapterInfo facts,
                                          const CommitOrder& order)
      ABSL_LOCKS_EXCLUDED(change_mutex_);

  /// Points an alias at a version, or removes it. New requests see it when this returns. ABORTED
  /// when the alias is not where `move` expects it.
  absl::StatusOr<NameChange> Promote(AliasMove move) ABSL_LOCKS_EXCLUDED(change_mutex_);

  /// Points an alias at the version that it pointed to before (RollbackTarget). NOT_FOUND when the
  /// name has no such alias, FAILED_PRECONDITION (reason NO_EARLIER_VERSION) when it has been
  /// nowhere else that is still there.
  absl::StatusOr<NameChange> Rollback(absl::string_view tenant, absl::string_view name,
                                      absl::string_view alias,
                                      std::optional<int64_t> expected_version,
                                      absl::string_view actor) ABSL_LOCKS_EXCLUDED(change_mutex_);

  /// Sets the shares of a bare name's requests. INVALID_ARGUMENT, naming "arms", for what
  /// ValidateSplit refuses; NOT_FOUND when an arm's alias, or the name, is not there.
  absl::StatusOr<NameChange> SetSplit(absl::string_view tenant, absl::string_view name,
                                      const std::vector<SplitArm>& split, absl::string_view actor)
      ABSL_LOCKS_EXCLUDED(change_mutex_);

  /// Deletes one version, or with a bare `ref` the whole name, and returns the versions that went.
  /// `ref` names no alias. A version that aliases point to is deleted with `force` only, and they
  /// go back to where they were before, or away. FAILED_PRECONDITION (reason VERSION_IN_USE)
  /// without; NOT_FOUND when there is none.
  absl::StatusOr<std::vector<int64_t>> Delete(absl::string_view tenant, const AdapterRef& ref,
                                              bool force, absl::string_view actor)
      ABSL_LOCKS_EXCLUDED(change_mutex_);

  /// Oldest first. Empty for a name that never was.
  absl::StatusOr<std::vector<AliasChange>> History(absl::string_view tenant,
                                                   absl::string_view name) {
    return store_->History(tenant, name);
  }

  /// The files of a version that is there, or that is deleted and still claimed by a request. A
  /// version whose files turn out to be damaged is quarantined in the registry.
  absl::StatusOr<FileSet> Open(const AdapterId& id) ABSL_LOCKS_EXCLUDED(draining_mutex_);

 private:
  absl::Status CheckRoom(const AdapterId& id, const std::string& digest) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mutex_);
  absl::StatusOr<std::vector<AliasMove>> MovesOff(const AdapterName& name, int64_t version,
                                                  absl::string_view actor)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mutex_);
  absl::StatusOr<NameChange> DeleteFromStore(const AdapterName& name, int64_t version, bool force,
                                             absl::string_view actor)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mutex_);
  // Keeps the files of versions that are about to go, for requests that have yet to load them.
  void KeepFiles(const AdapterName& name, int64_t version) ABSL_LOCKS_EXCLUDED(draining_mutex_);
  // Lets go of the files that no request can ask for any more.
  void ReleaseDrained() ABSL_LOCKS_EXCLUDED(draining_mutex_);

  AdapterStore* const store_;
  AdapterRegistry* const registry_;
  const int64_t max_versions_per_tenant_;
  std::function<void(const AdapterInfo&)> on_retired_;

  // Unlike others of Tenon, held across the store's I/O, by workers only.
  absl::Mutex change_mutex_ ABSL_ACQUIRED_BEFORE(draining_mutex_);
  absl::Mutex draining_mutex_;
  // Files of deleted versions that a request may still have to load: mappings outlive the blobs.
  std::map<AdapterId, FileSet> draining_ ABSL_GUARDED_BY(draining_mutex_);
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_STORE_ADAPTER_VERSIONS_H_
