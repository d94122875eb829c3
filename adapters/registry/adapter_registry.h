// AdapterRegistry: which versions are there, and what their names mean now.
#ifndef TENON_ADAPTERS_REGISTRY_ADAPTER_REGISTRY_H_
#define TENON_ADAPTERS_REGISTRY_ADAPTER_REGISTRY_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "adapters/registry/adapter_id.h"
#include "adapters/registry/adapter_name.h"
#include "adapters/registry/snapshot_map.h"

namespace tenon {

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

/// How a request came from a name to a version.
struct AdapterRoute {
  std::string alias;      ///< that led there; empty when the version was named
  bool by_split = false;  ///< the name's split chose the alias
};

enum class AdapterState {
  kLive,
  kDraining,     ///< deleted; requests that began on it are finishing
  kQuarantined,  ///< its stored files are damaged; uploading them once more repairs it
};

struct AdapterStatus {
  AdapterHandle adapter;
  AdapterState state = AdapterState::kLive;
  bool latest = false;               ///< the version that a bare name means, splits aside
  std::vector<std::string> aliases;  ///< that point to it, in order
};

/// One for each version of the name, in order.
std::vector<AdapterStatus> StatusesOf(const AdapterName& name);

/// All names of one tenant at one moment.
struct AdapterSet {
  int64_t generation = 0;
  std::vector<std::shared_ptr<const AdapterName>> names;  ///< in no order
};

/// A ref-counted immutable snapshot of all versions and aliases, replaced and never modified.
///
/// Thread-safe. Readers take a copy of the snapshot's pointer and never wait for a writer's work; a
/// reader that holds a handle for ten hours does not delay a change.
///
///   AdapterRegistry registry;
///   registry.Replace(fr);                                            // fr@1, latest = 1
///   StatusOr<AdapterHandle> fr = registry.Acquire("acme", {"fr"});   // pins fr@1
///   registry.Replace(fr2);                                           // fr@1, fr@2, latest = 2:
///   `fr` is still fr@1, new requests get fr@2
class AdapterRegistry {
 public:
  AdapterRegistry();
  AdapterRegistry(const AdapterRegistry&) = delete;
  AdapterRegistry& operator=(const AdapterRegistry&) = delete;

  /// Puts one name in place of what there was of it, all at once. A version that was there keeps
  /// its handles' identity; one that is not there any more drains until its last handle goes. No
  /// versions removes the name. `name.generation` becomes the tenant's.
  void Replace(AdapterName name) ABSL_LOCKS_EXCLUDED(write_mutex_, mutex_);

  /// Makes a version unservable, for `reason`. No effect when it is not there.
  void Quarantine(const AdapterId& id, std::string reason)
      ABSL_LOCKS_EXCLUDED(write_mutex_, mutex_);

  /// The claim on what `ref` means now; `routing_key` chooses a side of a bare name's split. On
  /// success `route`, unless null, says how.
  /// NOT_FOUND (reason ADAPTER_NOT_FOUND) when the tenant has no such version or alias, DATA_LOSS
  /// (ADAPTER_QUARANTINED) when it cannot be served.
  absl::StatusOr<AdapterHandle> Acquire(absl::string_view tenant, const AdapterRef& ref,
                                        absl::string_view routing_key = "",
                                        AdapterRoute* route = nullptr) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  /// All versions of a tenant, draining ones too, ordered by name and version.
  std::vector<AdapterStatus> List(absl::string_view tenant) const ABSL_LOCKS_EXCLUDED(mutex_);

  /// One name, or null. Do not keep it: it keeps its versions from having drained.
  std::shared_ptr<const AdapterName> Find(absl::string_view tenant, absl::string_view name) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  /// All names of a tenant. Do not keep it, for the same reason.
  AdapterSet Set(absl::string_view tenant) const ABSL_LOCKS_EXCLUDED(mutex_);

  /// Number of live versions of all tenants, and of one.
  int64_t num_live() const ABSL_LOCKS_EXCLUDED(mutex_);
  int64_t num_quarantined() const ABSL_LOCKS_EXCLUDED(mutex_);

  /// Runs `on_change` after each change of the tenant's set, on the thread that made it, for as
  /// long as the returned claim lives; it may run once more while the claim goes. It only passes
  /// the news on.
  std::shared_ptr<void> Subscribe(absl::string_view tenant, std::function<void()> on_change)
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Names = SnapshotMap<std::shared_ptr<const AdapterName>>;
  struct TenantNames {
    int64_t generation = 0;
    std::shared_ptr<const Names> names;  // null: none any more
  };
  // A write copies the path it changes and shares the rest.
  struct Snapshot {
    SnapshotMap<TenantNames> tenants;
    int64_t num_versions = 0;
    int64_t num_quarantined = 0;

    std::shared_ptr<const AdapterName> Find(absl::string_view tenant, absl::string_view name) const;
    void Set(std::shared_ptr<const AdapterName> name);
  };
  struct Subscriber {
    std::string tenant;
    std::function<void()> on_change;
  };

  std::shared_ptr<const Snapshot> snapshot() const ABSL_LOCKS_EXCLUDED(mutex_);
  void ReplaceLocked(AdapterName name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mutex_)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Notify(absl::string_view tenant) const ABSL_LOCKS_EXCLUDED(mutex_);

  // One writer at a time builds the next snapshot; mutex_ is held for pointer copies only.
  absl::Mutex write_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  mutable absl::Mutex mutex_;
  std::shared_ptr<const Snapshot> snapshot_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::weak_ptr<const AdapterInfo>> draining_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::weak_ptr<const Subscriber>> subscribers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_REGISTRY_ADAPTER_REGISTRY_H_
