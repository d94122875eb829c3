#include "server/model/row_math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace tenon {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(RowMathTest, ExponentialIsCloseEverywhere) {
  std::vector<float> values;
  for (float value = 0.0f; value > -87.0f; value -= 0.0137f) {
    values.push_back(value + 5.0f);
  }
  std::vector<float> weights(values.size());
  ExpShifted(values, 5.0f, weights);
  for (size_t i = 0; i < values.size(); ++i) {
    const double expected = std::exp(static_cast<double>(values[i] - 5.0f));
    EXPECT_NEAR(weights[i], expected, 3e-7 * expected) << values[i];
  }
}

TEST(RowMathTest, ExponentialOfTheMaskIsNegligible) {
  const std::vector<float> values = {0.0f, -kInfinity, -1000.0f};
  std::vector<float> weights(3);
  ExpShifted(values, 0.0f, weights);
  EXPECT_EQ(weights[0], 1.0f);
  EXPECT_LT(weights[1], 2e-38f);
  EXPECT_LT(weights[2], 2e-38f);
}

TEST(RowMathTest, LargestIsFoundAtEveryPlaceAndSize) {
  for (size_t size = 1; size < 40; ++size) {
    for (size_t place = 0; place < size; ++place) {
      std::vector<float> values(size, -3.0f);
      values[place] = -1.0f;
      EXPECT_EQ(Largest(values), -1.0f) << place << " of " << size;
    }
  }
  EXPECT_EQ(Largest(std::vector<float>(17, -kInfinity)), -kInfinity);
}

TEST(RowMathTest, SumTakesEveryValueOnce) {
  for (size_t size = 0; size < 40; ++size) {
    std::vector<float> values(size);
    std::iota(values.begin(), values.end(), 1.0f);
    EXPECT_EQ(Sum(values), static_cast<double>(size * (size + 1) / 2));
  }
}

TEST(RowMathTest, DamageIsSeenAtEveryPlace) {
  for (size_t place = 0; place < 19; ++place) {
    std::vector<float> values(19, -kInfinity);
    EXPECT_TRUE(AllBelowInfinity(values));
    values[place] = std::nanf("");
    EXPECT_FALSE(AllBelowInfinity(values)) << place;
    values[place] = kInfinity;
    EXPECT_FALSE(AllBelowInfinity(values)) << place;
  }
}

}  // namespace
}  // namespace tenon
