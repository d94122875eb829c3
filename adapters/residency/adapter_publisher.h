// AdapterPublisher: the way of an upload from bytes to a version, and of a stored version back to
// tensors.
#ifndef TENON_ADAPTERS_RESIDENCY_ADAPTER_PUBLISHER_H_
#define TENON_ADAPTERS_RESIDENCY_ADAPTER_PUBLISHER_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "adapters/formats/adapter_limits.h"
#include "adapters/formats/adapter_spec.h"
#include "adapters/methods/base_shape.h"
#include "adapters/methods/compiled_adapter.h"
#include "adapters/registry/adapter_registry.h"
#include "adapters/residency/adapter_cache.h"
#include "adapters/residency/host_tier.h"
#include "adapters/store/adapter_versions.h"

namespace tenon {

/// An upload that parses, fits the base and is compiled; nobody sees it yet. While it lives its
/// tensors are in the cache, under their digest, so that acceptance can run requests on them.
class AdapterCandidate {
 public:
  /// What a selection holds to run it: the id has version 0, which no request can name.
  const AdapterHandle& handle() const { return handle_; }

 private:
  friend class AdapterPublisher;

  std::unique_ptr<StagedUpload> upload_;
  std::shared_ptr<const CompiledAdapter> compiled_;  // a pin
  AdapterHandle handle_;
};

/// Joins formats, methods and cache with AdapterVersions. Thread-safe; methods do I/O and compile,
/// so they are called from a worker, never from the engine thread or a gRPC poller. Uploads are
/// validated and compiled in parallel.
///
///   AdapterVersions versions(&store, &registry, max_adapters);
///   AdapterPublisher publisher(options, &versions);
///   AdapterCache cache(budget, [&](const AdapterInfo& info) { return publisher.Compile(info); });
///   publisher.set_cache(&cache);
///   TENON_RETURN_IF_ERROR(versions.Restore());
class AdapterPublisher {
 public:
  struct Options {
    AdapterLimits limits;
    BaseShape base;
    bool bf16 = false;  ///< what adapters are compiled to, the base model's dtype: bf16 or fp32
  };
  /// `versions` is borrowed and outlives the publisher, whose cache hears of retired versions.
  AdapterPublisher(Options options, AdapterVersions* versions);

  /// The cache loads through Compile and is filled by Prepare; set before the first of either.
  void set_cache(AdapterCache* cache) { cache_ = cache; }
  /// Where Compile looks before it reads and parses, and leaves what it has parsed. May be null.
  void set_host_tier(HostTier* host) { host_ = host; }

  absl::StatusOr<std::unique_ptr<StagedUpload>> BeginUpload();

  /// Seals, validates and compiles. `expected_digest` (the client's, hex) must match or be empty:
  /// DATA_LOSS otherwise. FAILED_PRECONDITION when the adapter does not fit the base or, compiled,
  /// the whole adapter cache.
  absl::StatusOr<AdapterCandidate> Prepare(absl::string_view tenant, absl::string_view name,
                                           std::unique_ptr<StagedUpload> upload,
                                           absl::string_view expected_digest);

  /// Stores the candidate (the acknowledgement) and makes it what `order` says. `acceptance` is
  /// kept with a new version. Nothing is visible when it fails. Errors of AdapterVersions::Commit.
  absl::StatusOr<CommittedVersion> Commit(AdapterCandidate candidate, const CommitOrder& order,
                                          std::string acceptance);

  /// Takes a candidate that was not accepted out of the cache. A version that has the same bytes
  /// loads again when it is asked for.
  void Reject(AdapterCandidate candidate);

  /// Reads a stored version, or one that is deleted and still claimed, and compiles it: the cache's
  /// Load.
  absl::StatusOr<std::shared_ptr<const CompiledAdapter>> Compile(const AdapterInfo& info);

 private:
  // A compiled upload and what its catalogue row will say.
  struct Compilation {
    std::shared_ptr<const CompiledAdapter> compiled;
    AdapterInfo facts;
  };

  absl::StatusOr<Compilation> Validate(const AdapterSpec& spec) const;
  // From the host tier, or from the store.
  absl::StatusOr<std::shared_ptr<const AdapterSpec>> Parse(const AdapterInfo& info);

  const Options options_;
  AdapterVersions* const versions_;
  AdapterCache* cache_ = nullptr;
  HostTier* host_ = nullptr;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_RESIDENCY_ADAPTER_PUBLISHER_H_
