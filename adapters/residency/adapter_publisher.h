// AdapterPublisher: the way of an upload from bytes to live, and of a stored version back to
// tensors.
#ifndef TENON_ADAPTERS_RESIDENCY_ADAPTER_PUBLISHER_H_
#define TENON_ADAPTERS_RESIDENCY_ADAPTER_PUBLISHER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "adapters/formats/adapter_limits.h"
#include "adapters/methods/base_shape.h"
#include "adapters/methods/compiled_adapter.h"
#include "adapters/registry/adapter_registry.h"
#include "adapters/residency/adapter_cache.h"
#include "adapters/store/adapter_store.h"

namespace tenon {

/// Joins store, formats, methods, cache and registry. Thread-safe; methods do I/O and compile, so
/// they are called from a worker, never from the engine thread or a gRPC poller.
class AdapterPublisher {
 public:
  /// All pointers are borrowed and outlive the publisher. `dtype` is what adapters are compiled to:
  /// the base model's.
  struct Options {
    AdapterLimits limits;
    BaseShape base;
    bool bf16 = false;
  };
  AdapterPublisher(Options options, AdapterStore* store, AdapterRegistry* registry);

  /// The cache loads through Compile and is filled by Publish; set before the first Publish.
  void set_cache(AdapterCache* cache);

  /// Publishes every stored version, without loading tensors. Called once, at start.
  absl::Status Restore();

  absl::StatusOr<std::unique_ptr<StagedUpload>> BeginUpload();

  /// Validates, compiles, stores (the acknowledgement), then makes live. Nothing is visible when it
  /// fails. `expected_digest` (the client's) must match or be empty: DATA_LOSS otherwise.
  absl::StatusOr<AdapterInfo> Publish(absl::string_view tenant, absl::string_view name,
                                      std::unique_ptr<StagedUpload> upload,
                                      absl::string_view expected_digest);

  /// Retires and deletes one version, or all versions of the name when ref.version is 0. Streams
  /// that use it finish.
  absl::Status Delete(absl::string_view tenant, const AdapterRef& ref);

  /// Reads a stored version and compiles it: the cache's Load.
  absl::StatusOr<std::shared_ptr<const CompiledAdapter>> Compile(const AdapterInfo& info);
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_RESIDENCY_ADAPTER_PUBLISHER_H_
