// A golden case as a request, and a result against it.
#ifndef TENON_TESTS_GOLDEN_GOLDEN_RUN_H_
#define TENON_TESTS_GOLDEN_GOLDEN_RUN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tests/golden/golden_files.h"
#include "tests/golden/step_driver.h"

namespace tenon {

/// The case as a greedy request, which asks for the log-probs of all tokens if the case has them.
DriverRequest GreedyRequest(const GoldenCase& golden, int64_t vocab_size);

/// The largest difference of a step's log-probs, which are of all tokens, from the reference's
/// [vocab_size].
float LargestDifference(const SampledToken& step, const std::vector<float>& golden);
/// Of all steps of a result from the case's.
float LargestDifference(const GoldenCase& golden, const DriverResult& result);

/// Where Tenon's composition is not PEFT's. There DoRA takes what earlier adapters added for W x,
/// so that the order matters, and a weight changes the norm but not the magnitude, so that weight 0
/// is not the base.
bool ComputedAnotherWay(const std::string& method);

}  // namespace tenon

#endif  // TENON_TESTS_GOLDEN_GOLDEN_RUN_H_
