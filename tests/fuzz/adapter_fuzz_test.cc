// Mutated adapter folders through the parser: no crash, no hang, an error that can be shown, and
// what passes keeps the promises of AdapterSpec. Needs no torch, so it also runs under sanitizers.

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <iostream>
#include <optional>
#include <variant>

#include "absl/time/time.h"
#include "adapters/base/errors.h"
#include "adapters/formats/parse_adapter.h"
#include "tests/adapters/formats/cpu_time.h"
#include "tests/fuzz/adapter_mutator.h"

// Freed blocks that AddressSanitizer keeps would hide how much memory the parser takes.
extern "C" const char* __asan_default_options() { return "quarantine_size_mb=4"; }

namespace tenon {
namespace {

// A view must lie within its file (reading every byte shows it under ASan) and have its shape.
void ExpectSound(const TensorView& view) {
  ASSERT_GE(view.num_elements(), 1);
  ASSERT_EQ(view.num_elements() * ElementSize(view.dtype), static_cast<int64_t>(view.bytes.size()));
  unsigned sum = 0;
  for (const std::byte byte : view.bytes) {
    sum += std::to_integer<unsigned>(byte);
  }
  ASSERT_GT(sum + 1, 0u);
}
void ExpectSound(const std::optional<TensorView>& view) {
  if (view.has_value()) {
    ExpectSound(*view);
  }
}

struct BodyChecker {
  void operator()(const LoraSpec& spec) {
    for (const LoraModule& lora : spec.modules) {
      ASSERT_EQ(lora.a.shape[0], lora.b.shape[1]);
      ASSERT_LE(lora.a.shape[0], AdapterLimits().max_rank);
      Check(lora.a, lora.b, lora.b_bias, lora.magnitude);
    }
  }
  void operator()(const VeraSpec& spec) {
    Check(spec.a, spec.b);
    for (const VeraModule& vera : spec.modules) {
      Check(vera.lambda_b, vera.lambda_d);
    }
  }
  void operator()(const LohaSpec& spec) {
    for (const LohaModule& loha : spec.modules) {
      Check(loha.w1_a, loha.w1_b, loha.w2_a, loha.w2_b);
    }
  }
  void operator()(const LokrSpec& spec) {
    for (const LokrModule& lokr : spec.modules) {
      for (const KroneckerFactor& factor : {lokr.w1, lokr.w2}) {
        ASSERT_NE(factor.whole.has_value(), factor.a.has_value() && factor.b.has_value());
        Check(factor.whole, factor.a, factor.b);
      }
    }
  }
  void operator()(const Ia3Spec& spec) {
    for (const Ia3Module& ia3 : spec.modules) {
      Check(ia3.scale);
    }
  }
  void operator()(const PromptSpec& spec) { Check(spec.embeddings); }
  void operator()(const PrefixSpec& spec) {
    ASSERT_EQ(spec.keys_values.shape[1], spec.num_layers * 2 * spec.token_dim);
    Check(spec.keys_values);
  }
  void operator()(const BottleneckSpec& spec) {
    for (const BottleneckModule& module : spec.modules) {
      ASSERT_EQ(module.down.shape[0], module.up.shape[1]);
      Check(module.down, module.down_bias, module.up, module.up_bias, module.norm_before_weight,
            module.norm_before_bias, module.norm_after_weight, module.norm_after_bias,
            module.learned_scaling);
    }
  }
  void operator()(const TokenRowsSpec&) {}

  template <typename... Views>
  static void Check(const Views&... views) {
    (ExpectSound(views), ...);
  }
};

void ExpectSound(const AdapterSpec& spec) {
  std::visit(BodyChecker(), spec.body);
  for (const BiasOverride& bias : spec.shared.biases) {
    ExpectSound(bias.bias);
  }
  for (const TokenRows& rows : spec.shared.token_rows) {
    ASSERT_EQ(rows.rows.shape[0], static_cast<int64_t>(rows.tokens.size()));
    ExpectSound(rows.rows);
  }
  for (const SavedModule& saved : spec.shared.saved_modules) {
    ExpectSound(saved.weight);
  }
}

int64_t PeakResidentBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

TEST(AdapterFuzzTest, MutatedFoldersAreParsedOrRefused) {
  const uint64_t seed = testing::FuzzSeed();
  const int64_t mutants = testing::FuzzMutants(10'000);
  std::cout << "seed " << seed << ", " << mutants << " mutants\n";
  testing::AdapterMutator mutator(seed);
  int64_t parsed = 0;
  absl::Duration longest;
  int64_t warm_bytes = 0;
  for (int64_t i = 0; i < mutants; ++i) {
    if (i == mutants / 10) {
      warm_bytes = PeakResidentBytes();
    }
    const absl::Duration start = testing::ThreadCpuTime();
    const auto spec = ParseAdapter(mutator.Next(), AdapterLimits());
    longest = std::max(longest, testing::ThreadCpuTime() - start);
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
  const int64_t grown = PeakResidentBytes() - warm_bytes;
  std::cout << parsed << " parsed, longest " << longest << ", memory grew by " << (grown >> 10)
            << " KiB\n";
  EXPECT_LT(grown, int64_t{64} << 20);
  EXPECT_GT(parsed, mutants / 100);  // the mutator still reaches the deep checks
  EXPECT_LT(parsed, mutants / 2);    // and still breaks things
}

}  // namespace
}  // namespace tenon
