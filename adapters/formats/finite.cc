#include "adapters/formats/finite.h"

#include <algorithm>
#include <cstring>

namespace tenon {
namespace {

// An IEEE number is finite unless all bits of its exponent are set. Blocks are tested without a
// branch per element, so that the compiler can vectorise, and only a bad block is searched.
template <typename Word>
std::optional<int64_t> Find(std::span<const std::byte> bytes, Word exponent_mask) {
  constexpr size_t kBlock = 1024;
  Word block[kBlock];
  const size_t count = bytes.size() / sizeof(Word);
  for (size_t begin = 0; begin < count; begin += kBlock) {
    const size_t size = std::min(kBlock, count - begin);
    // The file may leave the tensor unaligned.
    std::memcpy(block, bytes.data() + begin * sizeof(Word), size * sizeof(Word));
    Word bad = 0;
    for (size_t i = 0; i < size; ++i) {
      bad |= static_cast<Word>((block[i] & exponent_mask) == exponent_mask);
    }
    if (bad != 0) {
      const Word* found = std::find_if(
          block, block + size, [&](Word word) { return (word & exponent_mask) == exponent_mask; });
      return static_cast<int64_t>(begin) + (found - block);
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<int64_t> FindNonFinite(const TensorView& tensor) {
  switch (tensor.dtype) {
    case DType::kF32:
      return Find<uint32_t>(tensor.bytes, 0x7F800000);
    case DType::kF16:
      return Find<uint16_t>(tensor.bytes, 0x7C00);
    case DType::kBF16:
      return Find<uint16_t>(tensor.bytes, 0x7F80);
    default:
      return std::nullopt;
  }
}

}  // namespace tenon
