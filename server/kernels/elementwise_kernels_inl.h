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

// Four sums in turn: one alone would wait for itself.
struct RunningSum {
  Vec sums[4] = {Vec::Zero(), Vec::Zero(), Vec::Zero(), Vec::Zero()};

  // sum += a * b
  inline __attribute__((always_inline)) void Add(Vec a, Vec b) {
    const Vec next = Fma(a, b, sums[0]);
    sums[0] = sums[1];
    sums[1] = sums[2];
    sums[2] = sums[3];
    sums[3] = next;
  }
  float Total() const { return ((sums[0] + sums[1]) + (sums[2] + sums[3])).Sum(); }
};

// Adds x to the residual when there is one. Returns the row to be normed.
template <typename T>
const T* AddResidual(const NormRow<T>& row) {
  if (row.residual == nullptr) {
    return row.x;
  }
  ForEachVec(row.width, [&](auto load, auto store) __attribute__((always_inline)) {
    store(load(row.residual) + load(row.x), row.residual);
  });
  return row.residual;
}

template <typename T, bool kRoundsTwice>
void RmsNormRow(const NormRow<T>& row) {
  const T* x = row.residual != nullptr ? row.residual : row.x;
  RunningSum squares;
  ForEachVec(row.width, [&](auto load, auto store) __attribute__((always_inline)) {
    Vec value = load(x);
    if (row.residual != nullptr) {
      value = RoundTo(value + load(row.x), row.x);
      store(value, row.residual);
    }
    squares.Add(value, value);
  });
  const float mean = squares.Total() / static_cast<float>(row.width);
  const Vec inverse = Vec::Set(1.0f / __builtin_sqrtf(mean + row.eps));
  ForEachVec(row.width, [&](auto load, auto store) __attribute__((always_inline)) {
    const Vec normed = load(x) * inverse;
    store(load(row.weight) * (kRoundsTwice ? RoundTo(normed, x) : normed), row.y);
  });
}

template <typename T>
void LayerNormRow(const NormRow<T>& row) {
  const T* x = AddResidual(row);
  const float width = static_cast<float>(row.width);
  const Vec one = Vec::Set(1.0f);
  RunningSum sum;
  ForEachVec(row.width,
             [&](auto load, auto) __attribute__((always_inline)) { sum.Add(load(x), one); });
  const float mean = sum.Total() / width;
  // A part of a vector has zeros in its other lanes; less the mean they would count.
  RunningSum squares;
  int64_t i = 0;
  for (; i + Vec::kLanes <= row.width; i += Vec::kLanes) {
    const Vec centred = Vec::Load(x + i) - Vec::Set(mean);
    squares.Add(centred, centred);
  }
  if (const int64_t rest = row.width - i; rest > 0) {
    const Vec inside = Vec::SelectLess(Iota(0.0f), Vec::Set(static_cast<float>(rest)),
                                       Vec::LoadPartial(x + i, rest) - Vec::Set(mean), Vec::Zero());
    squares.Add(inside, inside);
  }
  const Vec inverse = Vec::Set(1.0f / __builtin_sqrtf(squares.Total() / width + row.eps));
  ForEachVec(row.width, [&](auto load, auto store) __attribute__((always_inline)) {
    const Vec normed = (load(x) - Vec::Set(mean)) * inverse;
    store(Fma(normed, load(row.weight), load(row.bias)), row.y);
  });
}

template <typename T>
void RotateRow(T* x, int64_t heads, int64_t half, const float* cos, const float* sin) {
  for (int64_t h = 0; h < heads; ++h, x += 2 * half) {
    ForEachVec(half, [&](auto load, auto store) __attribute__((always_inline)) {
      const Vec first = load(x), second = load(x + half);
      const Vec c = load(cos), s = load(sin);
      store(Fma(first, c, Vec::Zero() - second * s), x);
      store(Fma(second, c, first * s), x + half);
    });
  }
}

inline Vec Silu(Vec x) { return x / (Vec::Set(1.0f) + Exp(Vec::Zero() - x)); }

// 0.5 (1 + tanh(u)) = 1 / (1 + e^(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3)
inline Vec GeluTanh(Vec x) {
  const Vec inner = Fma(x * x * x, Vec::Set(0.044715f), x);
  return x / (Vec::Set(1.0f) + Exp(inner * Vec::Set(-1.5957691216f)));
}

template <typename T, Vec (*kFunction)(Vec)>
void GateRow(const T* gate, const T* up, int64_t width, T* y) {
  ForEachVec(width, [&](auto load, auto store) __attribute__((always_inline)) {
    const Vec activated = kFunction(load(gate));
    store(up != nullptr ? activated * load(up) : activated, y);
  });
}

template <typename T>
void SoftCapRow(T* x, int64_t width, float cap) {
  const Vec limit = Vec::Set(cap);
  ForEachVec(width, [&](auto load, auto store) __attribute__((always_inline)) {
    store(limit * Tanh(load(x) / limit), x);
  });
}

}  // namespace
}  // namespace tenon

#endif  // TENON_SERVER_KERNELS_ELEMENTWISE_KERNELS_INL_H_
