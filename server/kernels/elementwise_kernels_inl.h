// Norm, rotary embedding and activation of one row, written once over Vec. Include after one of
// adapters/kernels/vec_*.h, in a file compiled for its instruction set; internal linkage, as there.
#ifndef TENON_SERVER_KERNELS_ELEMENTWISE_KERNELS_INL_H_
#define TENON_SERVER_KERNELS_ELEMENTWISE_KERNELS_INL_H_

#include <cstdint>

#include "server/kernels/vec_math_inl.h"
#include "server/kernels/vector_kernels.h"

namespace tenon {
namespace {

// Calls step(load, store, i) for every vector of a row, the last one partial:
// load(p) and store(vec, p) reach the vector's part of a row p.
template <typename Step>
inline __attribute__((always_inline)) void ForEachVec(int64_t width, Step step) {
  int64_t i = 0;
  for (; i + Vec::kLanes <= width; i += Vec::kLanes) {
    step([i](const auto* p) { return Vec::Load(p + i); }, [i](Vec v, auto* p) { v.Store(p + i); });
  }
  if (const int64_t rest = width - i; rest > 0) {
    step([i, rest](const auto* p) { return Vec::LoadPartial(p + i, rest); },
         [i, rest](Vec v, auto* p) { v.StorePartial(p + i, rest); });
  }
}

inline Vec RoundTo(Vec v, const float*) { return v; }
inline Vec RoundTo(Vec v, const uint16_t*) { return v.RoundToBf16(); }

template <typename T>
void NormalizeRow(const NormRow<T>& row) {
  const T* x = row.residual != nullptr ? row.residual : row.x;
  // Four sums in turn: one alone would wait for itself.
  Vec squares[4] = {Vec::Zero(), Vec::Zero(), Vec::Zero(), Vec::Zero()};
  ForEachVec(
      row.width, [&](auto load, auto store) __attribute__((always_inline)) {
        Vec value = load(x);
        if (row.residual != nullptr) {
          value = RoundTo(value + load(row.x), row.x);
          store(value, row.residual);
        }
        const Vec next = Fma(value, value, squares[0]);
        squares[0] = squares[1];
        squares[1] = squares[2];
        squares[2] = squares[3];
        squares[3] = next;
      });
  const float sum = ((squares[0] + squares[1]) + (squares[2] + squares[3])).Sum();
  const Vec inverse =
      Vec::Set(1.0f / __builtin_sqrtf(sum / static_cast<float>(row.width) + row.eps));
  ForEachVec(
      row.width, [&](auto load, auto store) __attribute__((always_inline)) {
        store(load(row.weight) * RoundTo(load(x) * inverse, x), row.y);
      });
}

template <typename T>
void RotateRow(T* x, int64_t heads, int64_t half, const float* cos, const float* sin) {
  for (int64_t h = 0; h < heads; ++h, x += 2 * half) {
    ForEachVec(
        half, [&](auto load, auto store) __attribute__((always_inline)) {
          const Vec first = load(x), second = load(x + half);
          const Vec c = load(cos), s = load(sin);
          store(Fma(first, c, Vec::Zero() - second * s), x);
          store(Fma(second, c, first * s), x + half);
        });
  }
}

template <typename T>
void SiluMulRow(const T* gate, const T* up, int64_t width, T* y) {
  const Vec one = Vec::Set(1.0f);
  ForEachVec(
      width, [&](auto load, auto store) __attribute__((always_inline)) {
        const Vec g = load(gate);
        store(g / (one + Exp(Vec::Zero() - g)) * load(up), y);
      });
}

}  // namespace
}  // namespace tenon

#endif  // TENON_SERVER_KERNELS_ELEMENTWISE_KERNELS_INL_H_
