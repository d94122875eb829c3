// AdapterRegistry: which version of which adapter is live.
#ifndef TENON_ADAPTERS_REGISTRY_ADAPTER_REGISTRY_H_
#define TENON_ADAPTERS_REGISTRY_ADAPTER_REGISTRY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "adapters/registry/adapter_id.h"
#include "adapters/registry/snapshot_map.h"

namespace tenon {

/// What is known of a version without its tensors: the catalogue's row, immutable once published.
struct AdapterInfo {
  AdapterId id;
  std::string digest;  ///< sha256 of the upload, lower-case hex; equal digest = equal bytes
  std::string method;  ///< "LORA", "RSLORA", ...
  int64_t num_parameters = 0;
  int64_t max_rank = 0;             ///< largest rank of any site; 0 for methods without one
  int64_t num_sites = 0;            ///< adapted (layer, site) pairs
  int64_t num_untouched_sites = 0;  ///< sites of the base that it leaves alone
  double delta_norm_bound = 0;      ///< CompileReport::delta_norm_bound
  bool has_weight = true;           ///< whether weights other than 0 and 1 make sense for it
  /// Tokens that the adapter puts in front of every sequence (prompt, prefix tuning).
  int64_t num_virtual_tokens = 0;
  int64_t stored_bytes = 0;    ///< bytes of the uploaded files
  int64_t resident_bytes = 0;  ///< bytes of the compiled tensors in host memory
  absl::Time created = absl::InfinitePast();
  std::vector<std::string> warnings;  ///< from validation, shown to the uploader
};

/// A claim on one version: while it lives, the version's tensors may be used, even after it was
/// retired. Cheap to copy; thread-safe as shared_ptr is.
class AdapterHandle {
 public:
  AdapterHandle() = default;
  explicit AdapterHandle(std::shared_ptr<const AdapterInfo> info) : info_(std::move(info)) {}

  explicit operator bool() const { return info_ != nullptr; }
  const AdapterInfo& operator*() const { return *info_; }
  const AdapterInfo* operator->() const { return info_.get(); }
  const AdapterId& id() const { return info_->id; }

 private:
  std::shared_ptr<const AdapterInfo> info_;
};

enum class AdapterState { kLive, kDraining };

struct AdapterStatus {
  AdapterHandle adapter;
  AdapterState state = AdapterState::kLive;
  bool latest = false;  ///< the version that a bare name means
};

/// A ref-counted immutable snapshot of all live versions, replaced and never modified.
///
/// Thread-safe. Readers take a copy of the snapshot's pointer and never wait for a writer's work; a
/// reader that holds a handle for ten hours does not delay a Publish or Retire.
///
///   AdapterRegistry registry;
///   registry.Publish(info);                                          // fr@1 is live
///   StatusOr<AdapterHandle> fr = registry.Acquire("acme", {"fr"});   // pins fr@1
///   registry.Publish(info2);                                         // fr@2: new requests get it,
///   `fr` is still fr@1
class AdapterRegistry {
 public:
  AdapterRegistry();
  AdapterRegistry(const AdapterRegistry&) = delete;
  AdapterRegistry& operator=(const AdapterRegistry&) = delete;

  /// Makes a version live, and the one that its bare name means when its version is the highest.
  /// ALREADY_EXISTS when that version is live or still draining, INVALID_ARGUMENT when the id is
  /// not a valid one.
  absl::Status Publish(AdapterInfo info) ABSL_LOCKS_EXCLUDED(write_mutex_, mutex_);

  /// Withdraws one version; requests that hold it finish on it (state kDraining until the last
  /// handle goes). The bare name falls back to the highest version left. NOT_FOUND when it is not
  /// live.
  absl::Status Retire(const AdapterId& id) ABSL_LOCKS_EXCLUDED(write_mutex_, mutex_);

  /// The claim on what `ref` means now. NOT_FOUND (reason ADAPTER_NOT_FOUND) when the tenant has no
  /// such live version.
  absl::StatusOr<AdapterHandle> Acquire(absl::string_view tenant, const AdapterRef& ref) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  /// All versions of a tenant, live and draining, ordered by name and version.
  std::vector<AdapterStatus> List(absl::string_view tenant) const ABSL_LOCKS_EXCLUDED(mutex_);

  /// Number of live versions of all tenants.
  int64_t num_live() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // A write copies the path it changes and shares the rest. Neither map holds an empty map.
  using Versions = absl::btree_map<int64_t, std::shared_ptr<const AdapterInfo>>;
  using Names = SnapshotMap<std::shared_ptr<const Versions>>;
  struct Snapshot {
    SnapshotMap<std::shared_ptr<const Names>> tenants;
    int64_t num_live = 0;

    const Versions* FindVersions(absl::string_view tenant, absl::string_view name) const;
    // Sets one name's versions; no versions removes the name.
    void SetVersions(const AdapterId& id, Versions versions);
  };

  std::shared_ptr<const Snapshot> snapshot() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Replaces the snapshot, remembers `retired` (may be null) as draining, forgets what has drained.
  void Replace(std::shared_ptr<const Snapshot> next,
               const std::shared_ptr<const AdapterInfo>& retired) ABSL_LOCKS_EXCLUDED(mutex_);
  bool IsDraining(const AdapterId& id) const ABSL_LOCKS_EXCLUDED(mutex_);

  // One writer at a time builds the next snapshot; mutex_ is held for pointer copies only.
  absl::Mutex write_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  mutable absl::Mutex mutex_;
  std::shared_ptr<const Snapshot> snapshot_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::weak_ptr<const AdapterInfo>> draining_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_REGISTRY_ADAPTER_REGISTRY_H_
