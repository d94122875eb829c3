#include "server/model/kv_cache.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <sys/mman.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

KvCacheShape MakeShape(const ModelConfig& config, int64_t num_blocks, int64_t block_size) {
  KvCacheShape shape;
  shape.num_blocks = num_blocks;
  shape.block_size = block_size;
  shape.kv_heads = config.num_kv_heads;
  shape.head_dim = config.head_dim;
  return shape;
}

// Zero pages that exist only once they are written.
absl::StatusOr<std::shared_ptr<void>> ReserveZeroed(size_t bytes) {
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot reserve ", bytes, " bytes of KV cache: ", std::strerror(errno)));
  }
  return std::shared_ptr<void>(memory, [bytes](void* mapped) { munmap(mapped, bytes); });
}

absl::StatusOr<at::Tensor> Allocate(const std::array<int64_t, 4>& shape, at::ScalarType dtype,
                                    at::Device device) {
  if (!device.is_cpu()) {
    try {
      return at::zeros(shape, at::TensorOptions(dtype).device(device));
    } catch (const c10::Error& error) {
      return absl::ResourceExhaustedError(
          absl::StrCat("KV cache on ", device.str(), ": ", error.what_without_backtrace()));
    }
  }
  const int64_t elements = shape[0] * shape[1] * shape[2] * shape[3];
  TENON_ASSIGN_OR_RETURN(const std::shared_ptr<void> memory,
                         ReserveZeroed(elements * at::elementSize(dtype)));
  return at::from_blob(memory.get(), shape, [memory](void*) {}, at::TensorOptions(dtype));
}

}  // namespace

int64_t KvCache::BytesPerBlock(const ModelConfig& config, int64_t block_size,
                               at::ScalarType dtype) {
  return MakeShape(config, 1, block_size).elements_per_block() * config.num_layers *
         static_cast<int64_t>(at::elementSize(dtype));
}

int64_t KvCache::NumBlocks(const ModelConfig& config, int64_t block_size, at::ScalarType dtype,
                           int64_t budget_bytes) {
  return budget_bytes / BytesPerBlock(config, block_size, dtype);
}

absl::StatusOr<KvCache> KvCache::Create(const ModelConfig& config, int64_t num_blocks,
                                        int64_t block_size, at::ScalarType dtype,
                                        at::Device device) {
  if (num_blocks <= 0 || block_size <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("a KV cache of ", num_blocks, " blocks of ",
                                                   block_size, " tokens: both must be positive"));
  }
  KvCache cache;
  cache.shape_ = MakeShape(config, num_blocks, block_size);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    TENON_ASSIGN_OR_RETURN(at::Tensor keys, Allocate(cache.shape_.keys(), dtype, device));
    TENON_ASSIGN_OR_RETURN(at::Tensor values, Allocate(cache.shape_.values(), dtype, device));
    cache.keys_.push_back(std::move(keys));
    cache.values_.push_back(std::move(values));
  }
  return cache;
}

void KvCache::Poison(std::span<const int32_t> blocks) {
  for (size_t layer = 0; layer < keys_.size(); ++layer) {
    for (const int32_t block : blocks) {
      keys_[layer].select(0, block).fill_(std::numeric_limits<double>::quiet_NaN());
      values_[layer].select(0, block).fill_(std::numeric_limits<double>::quiet_NaN());
    }
  }
}

void KvCache::PoisonAll() {
  std::vector<int32_t> blocks(num_blocks());
  std::iota(blocks.begin(), blocks.end(), 0);
  Poison(blocks);
}

int64_t KvCache::nbytes() const {
  int64_t total = 0;
  for (size_t layer = 0; layer < keys_.size(); ++layer) {
    total += static_cast<int64_t>(keys_[layer].nbytes() + values_[layer].nbytes());
  }
  return total;
}

}  // namespace tenon
