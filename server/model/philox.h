// Philox: random numbers as a function of a key and a counter, with no state between them.
#ifndef TENON_SERVER_MODEL_PHILOX_H_
#define TENON_SERVER_MODEL_PHILOX_H_

#include <array>
#include <cstdint>

namespace tenon {

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11).
std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

/// A number in [0, 1) with 53 random bits: the `index`-th of the stream that (seed, stream) names.
double PhiloxUniform(uint64_t seed, uint32_t stream, uint64_t index);

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_PHILOX_H_
