// KvCache: the memory that block ids name.
#ifndef TENON_SERVER_MODEL_KV_CACHE_H_
#define TENON_SERVER_MODEL_KV_CACHE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/kernels/attention.h"
#include "server/model/model_config.h"

namespace tenon {

/// Keys and values of every layer, by block. Not thread-safe (engine thread).
///
/// The memory is reserved as a whole and zero; the system gives pages to it as blocks are first
/// written, so resident memory follows use. BlockPool knows which blocks are in use; nothing is
/// cleared when one is used again, unless somebody calls Poison. On another device than the CPU all
/// of it is allocated at once.
class KvCache {
 public:
  KvCache() = default;  ///< of no use but to be assigned to

  /// Bytes that one block of `block_size` tokens takes, over all layers, keys and values.
  static int64_t BytesPerBlock(const ModelConfig& config, int64_t block_size, at::ScalarType dtype);

  /// How many blocks `budget_bytes` pays for; 0 when it does not pay for one.
  static int64_t NumBlocks(const ModelConfig& config, int64_t block_size, at::ScalarType dtype,
                           int64_t budget_bytes);

  /// RESOURCE_EXHAUSTED when the device's memory or the address space does not hold it;
  /// INVALID_ARGUMENT when a size is not positive.
  static absl::StatusOr<KvCache> Create(const ModelConfig& config, int64_t num_blocks,
                                        int64_t block_size, at::ScalarType dtype,
                                        at::Device device = at::kCPU);

  const at::Tensor& keys(int64_t layer) const { return keys_[layer]; }      ///< KvCacheShape::keys
  const at::Tensor& values(int64_t layer) const { return values_[layer]; }  ///< ...::values
  /// Overwrites blocks with NaN, which then is in every result that a read of them reaches.
  void Poison(std::span<const int32_t> blocks);
  /// The same with all of them; takes their memory.
  void PoisonAll();

  int64_t num_blocks() const { return shape_.num_blocks; }
  int64_t block_size() const { return shape_.block_size; }
  int64_t nbytes() const;

 private:
  KvCacheShape shape_;
  std::vector<at::Tensor> keys_;
  std::vector<at::Tensor> values_;
};

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_KV_CACHE_H_
