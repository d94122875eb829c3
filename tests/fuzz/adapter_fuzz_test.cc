// Mutated adapter folders through the parser: no crash, no hang, an error that can be shown, and
// what passes keeps the promises of AdapterSpec. Needs no torch, so it also runs under sanitizers.

#include <gtest/gtest.h>

#include <iostream>

#include "absl/time/clock.h"
#include "adapters/base/errors.h"
#include "adapters/formats/parse_adapter.h"
#include "tests/fuzz/adapter_mutator.h"

namespace tenon {
namespace {

void ExpectSound(const AdapterSpec& spec) {
  const auto& modules = std::get<LoraSpec>(spec.body).modules;
  ASSERT_FALSE(modules.empty());
  for (const LoraModule& lora : modules) {
    ASSERT_EQ(lora.a.shape.size(), 2u);
    ASSERT_EQ(lora.b.shape.size(), 2u);
    ASSERT_EQ(lora.a.shape[0], lora.b.shape[1]);
    ASSERT_GE(lora.a.shape[0], 1);
    ASSERT_LE(lora.a.shape[0], AdapterLimits().max_rank);
    for (const TensorView& view : {lora.a, lora.b}) {
      ASSERT_EQ(view.shape[0] * view.shape[1], view.num_elements());
      unsigned sum = 0;  // reads every byte: a view outside its file shows under ASan
      for (const std::byte byte : view.bytes) {
        sum += std::to_integer<unsigned>(byte);
      }
      ASSERT_GT(sum + 1, 0u);
    }
  }
}

TEST(AdapterFuzzTest, MutatedFoldersAreParsedOrRefused) {
  const uint64_t seed = testing::FuzzSeed();
  const int64_t mutants = testing::FuzzMutants(10'000);
  std::cout << "seed " << seed << ", " << mutants << " mutants\n";
  testing::AdapterMutator mutator(seed);
  int64_t parsed = 0;
  absl::Duration longest;
  for (int64_t i = 0; i < mutants; ++i) {
    const absl::Time start = absl::Now();
    const auto spec = ParseAdapter(mutator.Next(), AdapterLimits());
    longest = std::max(longest, absl::Now() - start);
    if (spec.ok()) {
      ++parsed;
      ExpectSound(*spec);
    } else {
      ASSERT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << "mutant " << i;
      ASSERT_TRUE(GetErrorDetail(spec.status()).has_value()) << "mutant " << i;
      ASSERT_LT(spec.status().message().size(), 2000u) << "mutant " << i;
    }
    ASSERT_LT(longest, absl::Seconds(1)) << "mutant " << i;
  }
  std::cout << parsed << " parsed, longest " << longest << "\n";
  EXPECT_GT(parsed, mutants / 100);  // the mutator still reaches the deep checks
  EXPECT_LT(parsed, mutants / 2);    // and still breaks things
}

}  // namespace
}  // namespace tenon
