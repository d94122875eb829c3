// Vec: 4 fp32 lanes in the compiler's vector extension: SSE2 or NEON, whatever the baseline has.
//
// Everything here has internal linkage: the same names mean other instructions in other files, and
// the linker must never choose between them.
#ifndef TENON_ADAPTERS_KERNELS_VEC_PORTABLE_H_
#define TENON_ADAPTERS_KERNELS_VEC_PORTABLE_H_

#include <cstdint>
#include <cstring>

namespace tenon {
namespace {

typedef float Float4 __attribute__((vector_size(16)));
typedef int32_t Int4 __attribute__((vector_size(16)));
typedef uint32_t Uint4 __attribute__((vector_size(16)));

/// fp32 lanes. bf16 memory is uint16_t, widened by Load and rounded to nearest even by Store.
struct Vec {
  static constexpr int kLanes = 4;
  Float4 v;

  static Vec Zero() { return Set(0.0f); }
  static Vec Set(float x) { return {Float4{x, x, x, x}}; }
  static Vec Load(const float* p) {
    Vec result;
    std::memcpy(&result.v, p, sizeof(result.v));
    return result;
  }
  static Vec Load(const uint16_t* p) { return FromBits(Uint4{p[0], p[1], p[2], p[3]} << 16); }
  /// The first n < kLanes elements, zero in the other lanes; touches no memory behind them.
  template <typename T>
  static Vec LoadPartial(const T* p, int64_t n) {
    T padded[kLanes] = {};
    for (int64_t i = 0; i < n; ++i) {
      padded[i] = p[i];
    }
    return Load(padded);
  }
  /// The first and the second of each of kLanes pairs of bf16.
  static void LoadPairs(const uint16_t* p, Vec& first, Vec& second) {
    first = FromBits(Uint4{p[0], p[2], p[4], p[6]} << 16);
    second = FromBits(Uint4{p[1], p[3], p[5], p[7]} << 16);
  }
  void Store(float* p) const { std::memcpy(p, &v, sizeof(v)); }
  void Store(uint16_t* p) const {
    const Uint4 bits = Bits();
    const Uint4 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    for (int i = 0; i < kLanes; ++i) {
      p[i] = v[i] == v[i] ? static_cast<uint16_t>(rounded[i]) : uint16_t{0x7fc0};
    }
  }
  template <typename T>
  void StorePartial(T* p, int64_t n) const {
    T padded[kLanes];
    Store(padded);
    for (int64_t i = 0; i < n; ++i) {
      p[i] = padded[i];
    }
  }

  /// Rounded to bf16 and widened again.
  Vec RoundToBf16() const {
    uint16_t halves[kLanes];
    Store(halves);
    return Load(halves);
  }
  /// x * 2^n for whole n in [-126, 127].
  Vec Scale2(Vec n) const {
    const Int4 exponent = (__builtin_convertvector(n.v, Int4) + 127) << 23;
    return {v * FromBits(reinterpret_cast<Uint4>(exponent)).v};
  }
  /// To the nearest whole number, for |x| < 2^22: adding 1.5 * 2^23 leaves no room for a fraction.
  Vec Round() const {
    const Vec magic = Set(12582912.0f);
    Vec sum = {v + magic.v};
    asm("" : "+m"(sum.v));  // the compiler must not cancel the addition
    return {sum.v - magic.v};
  }
  /// Lanes of `if_less` where x < bound, else lanes of `otherwise`.
  static Vec SelectLess(Vec x, Vec bound, Vec if_less, Vec otherwise) {
    return {x.v < bound.v ? if_less.v : otherwise.v};
  }
  float Sum() const { return (v[0] + v[2]) + (v[1] + v[3]); }
  float Max() const {
    const float a = v[0] > v[1] ? v[0] : v[1];
    const float b = v[2] > v[3] ? v[2] : v[3];
    return a > b ? a : b;
  }

 private:
  Uint4 Bits() const { return reinterpret_cast<Uint4>(v); }
  static Vec FromBits(Uint4 bits) { return {reinterpret_cast<Float4>(bits)}; }
};

inline Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
inline Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
inline Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
inline Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
inline Vec Max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
inline Vec Min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
/// a * b + c
inline Vec Fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }

}  // namespace
}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_VEC_PORTABLE_H_
