// The inner loops of attention and of the elementwise operations, one table per instruction set.
#ifndef TENON_SERVER_KERNELS_VECTOR_KERNELS_H_
#define TENON_SERVER_KERNELS_VECTOR_KERNELS_H_

#include <cstdint>

#include "adapters/kernels/cpu_isa.h"

namespace tenon {

/// Lanes of a key group, to which the key cache is padded: one AVX-512 vector of fp32.
inline constexpr int64_t kGroupKeys = 16;
/// Key groups of a tile, between two corrections of the running maximum.
inline constexpr int64_t kTileGroups = 4;
/// Query rows that an attention kernel takes at once.
inline constexpr int64_t kQueryRows = 12;
/// Largest head_dim of the attention kernels, which keep their accumulators on the stack.
inline constexpr int64_t kMaxHeadDim = 256;

/// One sequence's keys and values of one KV head, and the query rows that look at them.
/// T is float, or uint16_t for bf16.
template <typename T>
struct AttentionTask {
  const T* queries[kQueryRows];    ///< [head_dim] each
  T* outputs[kQueryRows];          ///< [head_dim] each
  int64_t positions[kQueryRows];   ///< the last key each row sees; never decreasing
  int64_t first_keys[kQueryRows];  ///< the first key each row sees; never decreasing
  int64_t rows = 0;                ///< 1 ... kQueryRows
  int64_t head_dim = 0;            ///< 1 ... kMaxHeadDim
  float scale = 1.0f;
  float softcap = 0.0f;             ///< 0 for none
  const int32_t* blocks = nullptr;  ///< the sequence's blocks in order
  int64_t block_size = 0;
  const T* keys = nullptr;  ///< block 0's keys of the KV head: [head_dim, key_stride]
  int64_t key_block_stride = 0, key_stride = 0;
  const T* values = nullptr;  ///< block 0's values: [block_size, value_stride]
  int64_t value_block_stride = 0, value_stride = 0;
};

template <typename T>
struct NormRow {
  const T* x = nullptr;           ///< [width]
  T* residual = nullptr;          ///< [width], x is added to it first; or null
  const float* weight = nullptr;  ///< [width], see Norm
  const float* bias = nullptr;    ///< [width], layer_norm only
  T* y = nullptr;                 ///< [width]
  int64_t width = 0;
  float eps = 0.0f;
};

/// For one element type. Semantics as in attention.h, norm.h, rope.h and activation.h.
template <typename T>
struct VectorKernelsOf {
  void (*attend)(const AttentionTask<T>& task) = nullptr;
  void (*rms_norm)(const NormRow<T>& row) = nullptr;
  void (*rms_norm_from_one)(const NormRow<T>& row) = nullptr;
  void (*layer_norm)(const NormRow<T>& row) = nullptr;
  /// x [heads, 2 * half] in place; cos, sin [half].
  void (*rope)(T* x, int64_t heads, int64_t half, const float* cos, const float* sin) = nullptr;
  /// y[i] = f(gate[i]) * up[i], or f(gate[i]) when up is null
  void (*silu)(const T* gate, const T* up, int64_t width, T* y) = nullptr;
  void (*gelu_tanh)(const T* gate, const T* up, int64_t width, T* y) = nullptr;
  /// x[i] = cap * tanh(x[i] / cap)
  void (*soft_cap)(T* x, int64_t width, float cap) = nullptr;
};

struct VectorKernels {
  VectorKernelsOf<float> f32;
  VectorKernelsOf<uint16_t> bf16;

  template <typename T>
  const VectorKernelsOf<T>& of() const {
    if constexpr (sizeof(T) == sizeof(float)) {
      return f32;
    } else {
      return bf16;
    }
  }
};

/// The table of ActiveIsa().
const VectorKernels& ActiveVectorKernels();

extern const VectorKernels kVectorPortable;
#if defined(__x86_64__)
extern const VectorKernels kVectorAvx2;
extern const VectorKernels kVectorAvx512;
#endif

}  // namespace tenon

#endif  // TENON_SERVER_KERNELS_VECTOR_KERNELS_H_
