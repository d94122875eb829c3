// What the parser lets through of mutated folders, through the compiler.

#include <gtest/gtest.h>

#include <iostream>

#include "absl/strings/str_cat.h"
#include "adapters/formats/parse_adapter.h"
#include "adapters/methods/compiler.h"
#include "tests/fuzz/adapter_mutator.h"

namespace tenon {
namespace {

BaseShape FuzzBase() {
  BaseShape base;
  base.num_layers = 2;
  for (int64_t layer = 0; layer < 2; ++layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".self_attn.");
    base.modules[prefix + "q_proj"] = {layer, Site::kQ, 8, 8};
    base.modules[prefix + "v_proj"] = {layer, Site::kV, 8, 8};
  }
  return base;
}

int64_t BytesOfDeltas(const CompiledAdapter& adapter, const BaseShape& base) {
  int64_t bytes = 0;
  for (const auto& [name, site] : base.modules) {
    const SiteDelta* delta = adapter.delta(site.layer, site.site);
    bytes += delta == nullptr ? 0 : delta->nbytes();
  }
  return bytes;
}

TEST(CompileFuzzTest, WhatParsesCompilesOrIsRefused) {
  const uint64_t seed = testing::FuzzSeed();
  const int64_t mutants = testing::FuzzMutants(3'000);
  std::cout << "seed " << seed << ", " << mutants << " mutants\n";
  const BaseShape base = FuzzBase();
  testing::AdapterMutator mutator = testing::AdapterMutator::OfLora(seed);
  int64_t compiled = 0;
  for (int64_t i = 0; i < mutants; ++i) {
    const auto spec = ParseAdapter(mutator.Next(), AdapterLimits());
    if (!spec.ok()) {
      continue;
    }
    CompileReport report;
    const auto adapter = Compile(*spec, base, at::kBFloat16, &report);
    if (adapter.ok()) {
      ++compiled;
      ASSERT_GE((*adapter)->resident_bytes(), 2 * report.num_parameters) << "mutant " << i;
      ASSERT_EQ((*adapter)->resident_bytes(), BytesOfDeltas(**adapter, base)) << "mutant " << i;
    } else {
      const absl::StatusCode code = adapter.status().code();
      ASSERT_TRUE(code == absl::StatusCode::kFailedPrecondition ||
                  code == absl::StatusCode::kInvalidArgument)
          << "mutant " << i << ": " << adapter.status();
    }
  }
  std::cout << compiled << " compiled\n";
  EXPECT_GT(compiled, 0);
}

}  // namespace
}  // namespace tenon
