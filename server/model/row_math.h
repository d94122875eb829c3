// Arithmetic over one row of logits, written so that the compiler makes vector code of it.
#ifndef TENON_SERVER_MODEL_ROW_MATH_H_
#define TENON_SERVER_MODEL_ROW_MATH_H_

#include <span>

namespace tenon {

/// Whether no value is NaN or +inf.
bool AllBelowInfinity(std::span<const float> values);

/// The largest value, which is not NaN; `values` is not empty and holds no NaN.
float Largest(std::span<const float> values);

/// out[i] = exp(values[i] - shift), to within 3e-7 of the value. REQUIRES: values[i] <= shift,
/// equal sizes. Below exp(-87) the result stays there, so that -inf gives 1e-38 and not zero.
void ExpShifted(std::span<const float> values, float shift, std::span<float> out);

/// The sum, accumulated in double in an order that depends on the size alone.
double Sum(std::span<const float> values);

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_ROW_MATH_H_
