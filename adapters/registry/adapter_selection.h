// AdapterSelection: what one request asked to have applied to the base model.
#ifndef TENON_ADAPTERS_REGISTRY_ADAPTER_SELECTION_H_
#define TENON_ADAPTERS_REGISTRY_ADAPTER_SELECTION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "adapters/registry/adapter_registry.h"

namespace tenon {

/// One adapter of a selection and the factor on its deltas.
struct WeightedAdapter {
  AdapterHandle adapter;
  float weight = 1.0f;
  AdapterRoute route = {};  ///< what led the request to it
};

/// The adapters of one request; none means the bare base. Immutable once a sequence holds it.
class AdapterSelection {
 public:
  AdapterSelection() = default;
  /// Every handle holds an adapter; at most one of them has virtual tokens. Those with weight 0 do
  /// nothing, so that they are named and not selected: with no others this is the base.
  explicit AdapterSelection(std::vector<WeightedAdapter> adapters);

  /// Those with a weight that is not 0.
  const std::vector<WeightedAdapter>& adapters() const { return adapters_; }
  /// All, in the order of the request.
  const std::vector<WeightedAdapter>& named() const { return named_; }
  bool is_base() const { return adapters_.empty(); }

  /// Content key: equal for equal digests and weights in the same order (sums round by order),
  /// whatever the names. "" for the base. Rows with equal keys form one segment of a batch and may
  /// share KV blocks within a tenant.
  const std::string& key() const { return key_; }

  /// Tokens that the adapters put in front of every sequence; at most one of them has any.
  int64_t num_virtual_tokens() const { return num_virtual_tokens_; }

 private:
  std::vector<WeightedAdapter> named_;
  std::vector<WeightedAdapter> adapters_;
  std::string key_;
  int64_t num_virtual_tokens_ = 0;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_REGISTRY_ADAPTER_SELECTION_H_
