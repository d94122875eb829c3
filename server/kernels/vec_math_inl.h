// Functions of Vec. Include after one of adapters/kernels/vec_*.h; internal linkage, as there.
#ifndef TENON_SERVER_KERNELS_VEC_MATH_INL_H_
#define TENON_SERVER_KERNELS_VEC_MATH_INL_H_

#include <cstdint>

namespace tenon {
namespace {

/// e^x, relative error below 2e-7 in [-87.3, 88]; 0 below, e^88 above, NaN stays.
/// Cephes' expf: x = n ln 2 + r, |r| <= ln 2 / 2, a polynomial of degree 7 in r, times 2^n.
inline Vec Exp(Vec x) {
  constexpr float kLowest = -87.33f;
  const Vec lowest = Vec::Set(kLowest);
  // Operands in this order let a NaN through (maxps returns its second operand then).
  const Vec clamped = Min(Vec::Set(88.0f), Max(lowest, x));
  const Vec n = (clamped * Vec::Set(1.44269504f)).Round();
  Vec r = Fma(n, Vec::Set(-0.693359375f), clamped);
  r = Fma(n, Vec::Set(2.12194440e-4f), r);
  Vec p = Vec::Set(1.9875691500e-4f);
  p = Fma(p, r, Vec::Set(1.3981999507e-3f));
  p = Fma(p, r, Vec::Set(8.3334519073e-3f));
  p = Fma(p, r, Vec::Set(4.1665795894e-2f));
  p = Fma(p, r, Vec::Set(1.6666665459e-1f));
  p = Fma(p, r, Vec::Set(5.0000001201e-1f));
  p = Fma(p, r * r, r) + Vec::Set(1.0f);
  return Vec::SelectLess(x, lowest, Vec::Zero(), p.Scale2(n));
}

/// tanh(x), relative error below 3e-7; NaN stays.
/// Cephes' tanhf: an odd polynomial for |x| < 0.625, 1 - 2 / (e^(2 |x|) + 1) beyond.
inline Vec Tanh(Vec x) {
  const Vec one = Vec::Set(1.0f);
  const Vec z = x * x;
  Vec p = Vec::Set(-5.70498872745e-3f);
  p = Fma(p, z, Vec::Set(2.06390887954e-2f));
  p = Fma(p, z, Vec::Set(-5.37397155531e-2f));
  p = Fma(p, z, Vec::Set(1.33314422036e-1f));
  p = Fma(p, z, Vec::Set(-3.33332819422e-1f));
  const Vec near = Fma(p * z, x, x);
  const Vec magnitude = Max(x, Vec::Zero() - x);
  const Vec far = one - Vec::Set(2.0f) / (Exp(magnitude + magnitude) + one);
  const Vec signed_far = Vec::SelectLess(x, Vec::Zero(), Vec::Zero() - far, far);
  return Vec::SelectLess(magnitude, Vec::Set(0.625f), near, signed_far);
}

/// 0, 1, 2 ... plus `first`.
inline Vec Iota(float first) {
  alignas(64) constexpr float kSteps[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return Vec::Load(kSteps) + Vec::Set(first);
}

}  // namespace
}  // namespace tenon

#endif  // TENON_SERVER_KERNELS_VEC_MATH_INL_H_
