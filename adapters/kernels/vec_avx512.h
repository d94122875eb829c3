// Vec: 16 fp32 lanes of AVX-512. Include only in a file compiled for AVX-512 F, BW, DQ and VL.
//
// Everything here has internal linkage: the same names mean other instructions in other files, and
// the linker must never choose between them.
#ifndef TENON_ADAPTERS_KERNELS_VEC_AVX512_H_
#define TENON_ADAPTERS_KERNELS_VEC_AVX512_H_

#include <immintrin.h>

#include <cstdint>

namespace tenon {
namespace {

/// fp32 lanes. bf16 memory is uint16_t, widened by Load and rounded to nearest even by Store.
struct Vec {
  static constexpr int kLanes = 16;
  __m512 v;

  static Vec Zero() { return {_mm512_setzero_ps()}; }
  static Vec Set(float x) { return {_mm512_set1_ps(x)}; }
  static Vec Load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec Load(const uint16_t* p) {
    return Widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  /// The first n < kLanes elements, zero in the other lanes; touches no memory behind them.
  static Vec LoadPartial(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(Mask(n), p)}; }
  static Vec LoadPartial(const uint16_t* p, int64_t n) {
    return Widen(_mm256_maskz_loadu_epi16(Mask(n), p));
  }
  /// The first and the second of each of kLanes pairs of bf16.
  static void LoadPairs(const uint16_t* p, Vec& first, Vec& second) {
    SplitPairs(_mm512_loadu_si512(p), first, second);
  }
  /// The same of pairs in a register.
  static void SplitPairs(__m512i pairs, Vec& first, Vec& second) {
    first.v = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    second.v = _mm512_castsi512_ps(
        _mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  void Store(float* p) const { _mm512_storeu_ps(p, v); }
  void Store(uint16_t* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), Narrow()); }
  void StorePartial(float* p, int64_t n) const { _mm512_mask_storeu_ps(p, Mask(n), v); }
  void StorePartial(uint16_t* p, int64_t n) const {
    _mm256_mask_storeu_epi16(p, Mask(n), Narrow());
  }

  /// Rounded to bf16 and widened again.
  Vec RoundToBf16() const { return Widen(Narrow()); }
  /// x * 2^n for whole n.
  Vec Scale2(Vec n) const { return {_mm512_scalef_ps(v, n.v)}; }
  Vec Round() const {
    return {_mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  /// Lanes of `if_less` where x < bound, else lanes of `otherwise`.
  static Vec SelectLess(Vec x, Vec bound, Vec if_less, Vec otherwise) {
    return {
        _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.v, bound.v, _CMP_LT_OQ), otherwise.v, if_less.v)};
  }
  float Sum() const { return _mm512_reduce_add_ps(v); }
  float Max() const { return _mm512_reduce_max_ps(v); }

 private:
  static __mmask16 Mask(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }
  static Vec Widen(__m256i halves) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))};
  }
  __m256i Narrow() const {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i lsb = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), lsb);
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    rounded = _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc00000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
  }
};

inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vec Max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Vec Min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
/// a * b + c
inline Vec Fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }

}  // namespace
}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_VEC_AVX512_H_
