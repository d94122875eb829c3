// AdapterPublisher: the way of an upload from bytes to live, and of a stored version back to
// tensors.
#ifndef TENON_ADAPTERS_RESIDENCY_ADAPTER_PUBLISHER_H_
#define TENON_ADAPTERS_RESIDENCY_ADAPTER_PUBLISHER_H_

#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "adapters/formats/adapter_limits.h"
#include "adapters/formats/adapter_spec.h"
#include "adapters/methods/base_shape.h"
#include "adapters/methods/compiled_adapter.h"
#include "adapters/registry/adapter_registry.h"
#include "adapters/residency/adapter_cache.h"
#include "adapters/residency/host_tier.h"
#include "adapters/store/adapter_store.h"

namespace tenon {

/// Joins store, formats, methods, cache and registry. Thread-safe; methods do I/O and compile, so
/// they are called from a worker, never from the engine thread or a gRPC poller.
///
/// Uploads are validated and compiled in parallel. What changes the set of versions (the store's
/// commit with the registry's publish, a deletion) happens one at a time, so that the registry
/// never serves a version that the store has not, and a tenant's limit is exact.
///
///   AdapterPublisher publisher(options, &store, &registry);
///   AdapterCache cache(budget, [&](const AdapterInfo& info) { return publisher.Compile(info); });
///   publisher.set_cache(&cache);
///   TENON_RETURN_IF_ERROR(publisher.Restore());
class AdapterPublisher {
 public:
  struct Options {
    AdapterLimits limits;
    BaseShape base;
    bool bf16 = false;  ///< what adapters are compiled to, the base model's dtype: bf16 or fp32
  };
  /// All pointers are borrowed and outlive the publisher.
  AdapterPublisher(Options options, AdapterStore* store, AdapterRegistry* registry);

  /// The cache loads through Compile and is filled by Publish; set before the first Publish.
  void set_cache(AdapterCache* cache) { cache_ = cache; }
  /// Where Compile looks before it reads and parses, and leaves what it has parsed. May be null.
  void set_host_tier(HostTier* host) { host_ = host; }

  /// Publishes every stored version, without loading tensors. Called once, at start. Versions whose
  /// files are missing or cut are logged and left out; Damaged says which.
  absl::Status Restore() ABSL_LOCKS_EXCLUDED(change_mutex_);

  /// The stored versions that cannot be served, each with the reason.
  absl::StatusOr<std::map<AdapterId, absl::Status>> Damaged() { return store_->Damaged(); }

  absl::StatusOr<std::unique_ptr<StagedUpload>> BeginUpload();

  /// Validates, compiles, stores (the acknowledgement), then makes live. Nothing is visible when it
  /// fails. `expected_digest` (the client's, hex) must match or be empty: DATA_LOSS otherwise. The
  /// same bytes as the newest version give that version.
  /// RESOURCE_EXHAUSTED over max_adapters_per_tenant; FAILED_PRECONDITION when the adapter does not
  /// fit the base or, compiled, the whole adapter cache.
  absl::StatusOr<AdapterInfo> Publish(absl::string_view tenant, absl::string_view name,
                                      std::unique_ptr<StagedUpload> upload,
                                      absl::string_view expected_digest)
      ABSL_LOCKS_EXCLUDED(change_mutex_);

  /// Retires and deletes one version, or all versions of the name, oldest first, when ref.version
  /// is 0. NOT_FOUND when there is none. Requests that hold a version finish on it, loaded or not.
  absl::Status Delete(absl::string_view tenant, const AdapterRef& ref)
      ABSL_LOCKS_EXCLUDED(change_mutex_);

  /// Reads a stored version, or one that is deleted and still claimed, and compiles it: the cache's
  /// Load.
  absl::StatusOr<std::shared_ptr<const CompiledAdapter>> Compile(const AdapterInfo& info)
      ABSL_LOCKS_EXCLUDED(draining_mutex_);

 private:
  // A compiled upload and what its catalogue row will say.
  struct Candidate {
    std::shared_ptr<const CompiledAdapter> compiled;
    AdapterInfo facts;
  };

  absl::StatusOr<Candidate> Validate(const AdapterSpec& spec) const;
  // From the host tier, or from the store.
  absl::StatusOr<std::shared_ptr<const AdapterSpec>> Parse(const AdapterInfo& info)
      ABSL_LOCKS_EXCLUDED(draining_mutex_);
  absl::Status CheckRoom(const AdapterId& id, const std::string& digest)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mutex_);
  absl::StatusOr<AdapterInfo> MakeLive(std::unique_ptr<StagedUpload> upload, AdapterInfo facts)
      ABSL_LOCKS_EXCLUDED(change_mutex_);
  absl::Status DeleteVersion(const AdapterInfo& info) ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mutex_);
  absl::StatusOr<FileSet> OpenFiles(const AdapterId& id) ABSL_LOCKS_EXCLUDED(draining_mutex_);
  // Lets go of the files that no request can ask for any more.
  void ReleaseDrained() ABSL_LOCKS_EXCLUDED(draining_mutex_);

  const Options options_;
  AdapterStore* const store_;
  AdapterRegistry* const registry_;
  AdapterCache* cache_ = nullptr;
  HostTier* host_ = nullptr;

  // Unlike others of Tenon, held across the store's I/O, by workers only.
  absl::Mutex change_mutex_ ABSL_ACQUIRED_BEFORE(draining_mutex_);
  absl::Mutex draining_mutex_;
  // Files of deleted versions that a request may still have to load: mappings outlive the blobs.
  std::map<AdapterId, FileSet> draining_ ABSL_GUARDED_BY(draining_mutex_);
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_RESIDENCY_ADAPTER_PUBLISHER_H_
