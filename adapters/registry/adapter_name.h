// AdapterName: everything there is of one adapter name: its versions, and what aliases mean.
#ifndef TENON_ADAPTERS_REGISTRY_ADAPTER_NAME_H_
#define TENON_ADAPTERS_REGISTRY_ADAPTER_NAME_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "adapters/registry/adapter_id.h"

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
  /// What its acceptance found before it went live, as JSON (engine/acceptance.h); "" for versions
  /// of older servers.
  std::string acceptance;
};

/// A share of a name's requests that goes to another alias than `latest`.
struct SplitArm {
  std::string alias;
  int32_t basis_points = 0;  ///< of kSplitWhole; at least 1

  friend bool operator==(const SplitArm&, const SplitArm&) = default;
};

/// 100 %.
inline constexpr int32_t kSplitWhole = 10'000;
/// Arms of one split at most.
inline constexpr size_t kMaxSplitArms = 8;

/// What the names of versions mean.
struct AdapterPointers {
  absl::btree_map<std::string, int64_t> aliases;  ///< alias -> version, which is there
  /// In the order of the operator. Shares that they leave go to `latest`.
  std::vector<SplitArm> split;

  friend bool operator==(const AdapterPointers&, const AdapterPointers&) = default;
};

/// One name of one tenant, whole. Immutable once the registry has it.
struct AdapterName {
  std::string tenant;
  std::string name;
  /// Of the tenant's set when this name changed last. Grows with every change of the tenant's
  /// adapters and survives restarts.
  int64_t generation = 0;
  absl::btree_map<int64_t, std::shared_ptr<const AdapterInfo>> versions;
  /// Versions that cannot be served, with the reason: their stored files are damaged.
  absl::btree_map<int64_t, std::string> quarantined;
  AdapterPointers pointers;
};

/// OK for 1 to 8 arms of distinct valid aliases other than `latest` with at most 100 % in all; and
/// for none, which ends a split. INVALID_ARGUMENT, naming `field`, otherwise.
absl::Status ValidateSplit(absl::string_view field, const std::vector<SplitArm>& split);

/// Where a routing key falls in a split of this name, in [0, kSplitWhole): uniform over keys,
/// independent between names, and the same on every server and in every release, so that a caller
/// keeps his side.
int32_t RoutingPoint(absl::string_view tenant, absl::string_view name,
                     absl::string_view routing_key);

/// The alias that a bare name means for a routing point: that of the arm it falls into, counted
/// from 0 in the order of the arms, else `latest`. Raising the first arm's share moves callers to
/// it and none away. An arm whose alias points nowhere counts as `latest`.
absl::string_view AliasAt(const AdapterPointers& pointers, int32_t point);

}  // namespace tenon

#endif  // TENON_ADAPTERS_REGISTRY_ADAPTER_NAME_H_
