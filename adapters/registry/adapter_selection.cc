#include "adapters/registry/adapter_selection.h"

#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tenon {
namespace {

// The bits, not a decimal: two weights share a key only when they give the same result.
uint32_t WeightBits(float weight) {
  uint32_t bits;
  std::memcpy(&bits, &weight, sizeof(bits));
  return bits;
}

}  // namespace

AdapterSelection::AdapterSelection(std::vector<WeightedAdapter> adapters)
    : adapters_(std::move(adapters)) {
  for (const WeightedAdapter& weighted : adapters_) {
    absl::StrAppend(&key_, key_.empty() ? "" : "+", weighted.adapter->digest, "*",
                    absl::Hex(WeightBits(weighted.weight), absl::kZeroPad8));
    num_virtual_tokens_ += weighted.adapter->num_virtual_tokens;
  }
}

}  // namespace tenon
