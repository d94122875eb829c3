// Vec: 8 fp32 lanes of AVX2 with FMA. Include only in a file compiled for both.
//
// Everything here has internal linkage: the same names mean other instructions in other files, and
// the linker must never choose between them.
#ifndef TENON_ADAPTERS_KERNELS_VEC_AVX2_H_
#define TENON_ADAPTERS_KERNELS_VEC_AVX2_H_

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace tenon {
namespace {

/// fp32 lanes. bf16 memory is uint16_t, widened by Load and rounded to nearest even by Store.
struct Vec {
  static constexpr int kLanes = 8;
  __m256 v;

  static Vec Zero() { return {_mm256_setzero_ps()}; }
  static Vec Set(float x) { return {_mm256_set1_ps(x)}; }
  static Vec Load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vec Load(const uint16_t* p) {
    return Widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  /// The first n < kLanes elements, zero in the other lanes; touches no memory behind them.
  template <typename T>
  static Vec LoadPartial(const T* p, int64_t n) {
    T padded[kLanes] = {};
    std::memcpy(padded, p, static_cast<size_t>(n) * sizeof(T));
    return Load(padded);
  }
  /// The first and the second of each of kLanes pairs of bf16.
  static void LoadPairs(const uint16_t* p, Vec& first, Vec& second) {
    const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    first.v = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    second.v = _mm256_castsi256_ps(
        _mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  void Store(float* p) const { _mm256_storeu_ps(p, v); }
  void Store(uint16_t* p) const { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), Narrow()); }
  template <typename T>
  void StorePartial(T* p, int64_t n) const {
    T padded[kLanes];
    Store(padded);
    std::memcpy(p, padded, static_cast<size_t>(n) * sizeof(T));
  }

  /// Rounded to bf16 and widened again.
  Vec RoundToBf16() const { return Widen(Narrow()); }
  /// x * 2^n for whole n in [-126, 127].
  Vec Scale2(Vec n) const {
    const __m256i exponent =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127)), 23);
    return {_mm256_mul_ps(v, _mm256_castsi256_ps(exponent))};
  }
  Vec Round() const { return {_mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
  /// Lanes of `if_less` where x < bound, else lanes of `otherwise`.
  static Vec SelectLess(Vec x, Vec bound, Vec if_less, Vec otherwise) {
    return {_mm256_blendv_ps(otherwise.v, if_less.v, _mm256_cmp_ps(x.v, bound.v, _CMP_LT_OQ))};
  }
  float Sum() const {
    float lanes[kLanes];
    Store(lanes);
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
           ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
  }
  float Max() const {
    float lanes[kLanes];
    Store(lanes);
    float max = lanes[0];
    for (int i = 1; i < kLanes; ++i) {
      max = lanes[i] > max ? lanes[i] : max;
    }
    return max;
  }

 private:
  static Vec Widen(__m128i halves) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16))};
  }
  __m128i Narrow() const {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i lsb = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), lsb);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    rounded = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc00000), nan);
    rounded = _mm256_srli_epi32(rounded, 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
  }
};

inline Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Vec Max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Vec Min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
/// a * b + c
inline Vec Fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }

}  // namespace
}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_VEC_AVX2_H_
