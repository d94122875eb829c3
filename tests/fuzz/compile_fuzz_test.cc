// What the parser lets through of mutated folders, through the compiler.

#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "adapters/formats/parse_adapter.h"
#include "adapters/methods/compiler.h"
#include "tests/fuzz/adapter_mutator.h"

namespace tenon {
namespace {

// A base that every unchanged folder of the mutator fits. All its parameters are ones.
BaseShape FuzzBase() {
  BaseShape base;
  base.num_layers = 2;
  base.hidden_size = 8;
  base.vocab_size = 16;
  base.num_kv_heads = 2;
  base.head_dim = 2;
  base.max_context_tokens = 32;
  for (int64_t layer = 0; layer < 2; ++layer) {
    const std::string path = absl::StrCat("model.layers.", layer);
    base.layers[path] = layer;
    base.modules[path + ".self_attn.q_proj"] = {layer, Site::kQ, 8, 8};
    base.modules[path + ".self_attn.v_proj"] = {layer, Site::kV, 8, 8};
    base.modules[path + ".mlp.down_proj"] = {layer, Site::kDown, 12, 8};
    base.modules[absl::StrCat("transformer.h.", layer, ".attn.c_attn")] = {layer, Site::kQkv, 8, 6};
    base.modules[absl::StrCat("transformer.h.", layer, ".mlp.c_fc")] = {layer, Site::kUp, 8, 12};
  }
  base.modules["model.norm"] = {0, Site::kFinalNorm, 8, 8};
  base.modules["model.embed_tokens"] = {0, Site::kEmbedding, 16, 8};
  base.modules["lm_head"] = {0, Site::kHead, 8, 16};
  base.read_parameter = [modules =
                             base.modules](absl::string_view name) -> absl::StatusOr<at::Tensor> {
    for (const auto& [module, site] : modules) {
      if (site.site != Site::kEmbedding && name == absl::StrCat(module, ".bias")) {
        return at::ones({site.out_features});
      }
      if (name == absl::StrCat(module, ".weight")) {
        return site.site == Site::kEmbedding ? at::ones({site.in_features, site.out_features})
                                             : at::ones({site.out_features, site.in_features});
      }
    }
    return absl::NotFoundError(name);
  };
  return base;
}

TEST(CompileFuzzTest, UnchangedFoldersOfEveryMethodCompile) {
  const BaseShape base = FuzzBase();
  for (const testing::MethodFolder& folder : testing::AllMethodFolders()) {
    const auto spec = ParseAdapter(folder.Build(), AdapterLimits());
    ASSERT_TRUE(spec.ok()) << folder.method << ": " << spec.status();
    const auto adapter = Compile(*spec, base, at::kBFloat16, nullptr);
    EXPECT_TRUE(adapter.ok()) << folder.method << ": " << adapter.status();
  }
}

TEST(CompileFuzzTest, WhatParsesCompilesOrIsRefused) {
  const uint64_t seed = testing::FuzzSeed();
  const int64_t mutants = testing::FuzzMutants(5'000);
  std::cout << "seed " << seed << ", " << mutants << " mutants\n";
  const BaseShape base = FuzzBase();
  testing::AdapterMutator mutator(seed);
  std::map<std::string, int64_t> compiled;
  for (int64_t i = 0; i < mutants; ++i) {
    const auto spec = ParseAdapter(mutator.Next(), AdapterLimits());
    if (!spec.ok()) {
      continue;
    }
    CompileReport report;
    const auto adapter = Compile(*spec, base, at::kBFloat16, &report);
    if (adapter.ok()) {
      ++compiled[spec->method];
      ASSERT_GT((*adapter)->resident_bytes(), 0) << "mutant " << i;
      ASSERT_EQ((*adapter)->resident_bytes(), report.resident_bytes) << "mutant " << i;
      ASSERT_TRUE(std::isfinite(report.delta_norm_bound)) << "mutant " << i;
      ASSERT_GT(report.num_sites + report.num_virtual_tokens, 0) << "mutant " << i;
    } else {
      const absl::StatusCode code = adapter.status().code();
      ASSERT_TRUE(code == absl::StatusCode::kFailedPrecondition ||
                  code == absl::StatusCode::kInvalidArgument)
          << "mutant " << i << ": " << adapter.status();
    }
  }
  for (const auto& [method, count] : compiled) {
    std::cout << method << ": " << count << " compiled\n";
  }
  EXPECT_GE(compiled.size(), 8u);
}

}  // namespace
}  // namespace tenon
