#include "adapters/methods/compiler.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/formats/parse_adapter.h"
#include "tests/adapters/formats/safetensors_builder.h"

namespace tenon {
namespace {

using ::tenon::testing::MakeFileSet;
using ::tenon::testing::SafetensorsBuilder;
using ::testing::HasSubstr;

// Two layers, hidden 8, with q (8 -> 8), k (8 -> 4) and down (16 -> 8).
BaseShape TinyBase() {
  BaseShape base;
  base.model_type = "llama";
  base.num_layers = 2;
  base.hidden_size = 8;
  for (int64_t layer = 0; layer < 2; ++layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    base.modules[prefix + "self_attn.q_proj"] = {layer, Site::kQ, 8, 8};
    base.modules[prefix + "self_attn.k_proj"] = {layer, Site::kK, 8, 4};
    base.modules[prefix + "mlp.down_proj"] = {layer, Site::kDown, 16, 8};
  }
  return base;
}

// Bytes of one value in each dtype that adapters are stored in.
std::string Filled(int64_t count, absl::string_view two_bytes) {
  std::string bytes;
  for (int64_t i = 0; i < count; ++i) {
    absl::StrAppend(&bytes, two_bytes);
  }
  return bytes;
}

SafetensorsBuilder& AddPair(SafetensorsBuilder& builder, const std::string& module, int64_t rank,
                            int64_t in, int64_t out, float a, float b) {
  const std::string prefix = "base_model.model." + module;
  return builder.AddFilled(prefix + ".lora_A.weight", {rank, in}, a)
      .AddFilled(prefix + ".lora_B.weight", {out, rank}, b);
}

AdapterSpec Parse(const SafetensorsBuilder& weights, const std::string& more_config = "") {
  const std::string config =
      absl::StrCat(R"({"peft_type":"LORA","r":2,"lora_alpha":4,"target_modules":"all-linear")",
                   more_config, "}");
  auto spec = ParseAdapter(MakeFileSet({{"adapter_config.json", config},
                                        {"adapter_model.safetensors", weights.Build()}}),
                           AdapterLimits());
  EXPECT_TRUE(spec.ok()) << spec.status();
  return *std::move(spec);
}

uintptr_t Address(const at::Tensor& tensor) {
  return reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
}

TEST(CompilerTest, MatricesLieInOneBlockInTheOrderOfTheirUse) {
  SafetensorsBuilder weights;
  AddPair(weights, "model.layers.1.mlp.down_proj", 2, 16, 8, 2.0f, 3.0f);
  AddPair(weights, "model.layers.0.self_attn.k_proj", 2, 8, 4, 5.0f, 6.0f);
  AddPair(weights, "model.layers.0.self_attn.q_proj", 2, 8, 8, 1.0f, 0.5f);
  CompileReport report;
  const auto adapter = Compile(Parse(weights), TinyBase(), at::kFloat, &report);
  ASSERT_TRUE(adapter.ok()) << adapter.status();

  const LowRankDelta& q = (*adapter)->delta(0, Site::kQ)->low_rank;
  const LowRankDelta& k = (*adapter)->delta(0, Site::kK)->low_rank;
  const LowRankDelta& down = (*adapter)->delta(1, Site::kDown)->low_rank;
  // [rank, in] of fp32, then panels of [rank, 32], all multiples of a cache line.
  const uintptr_t begin = Address(q.down);
  EXPECT_EQ(Address(k.down), begin + 64);
  EXPECT_EQ(Address(q.packed_up.panels()), begin + 128);
  EXPECT_EQ(Address(k.packed_up.panels()), begin + 128 + 256);
  EXPECT_EQ(Address(down.down), begin + 128 + 512);
  EXPECT_EQ(Address(down.packed_up.panels()), begin + 128 + 512 + 128);
  EXPECT_TRUE(at::allclose(k.UpMatrix(), at::full({4, 2}, 6.0f)));
  EXPECT_EQ((*adapter)->resident_bytes(), 128 + 512 + 128 + 256);
}

TEST(CompilerTest, MakesOneDeltaPerModule) {
  SafetensorsBuilder weights;
  AddPair(weights, "model.layers.0.self_attn.q_proj", 2, 8, 8, 1.0f, 0.5f);
  AddPair(weights, "model.layers.1.mlp.down_proj", 2, 16, 8, 2.0f, 3.0f);
  CompileReport report;
  const auto adapter = Compile(Parse(weights), TinyBase(), at::kFloat, &report);
  ASSERT_TRUE(adapter.ok()) << adapter.status();

  const SiteDelta* site = (*adapter)->delta(0, Site::kQ);
  ASSERT_NE(site, nullptr);
  const LowRankDelta* q = &site->low_rank;
  EXPECT_TRUE(at::allclose(q->DownMatrix(), at::full({2, 8}, 1.0f)));
  EXPECT_TRUE(at::allclose(q->UpMatrix(), at::full({8, 2}, 0.5f)));
  EXPECT_EQ(q->scaling, 2.0f);
  EXPECT_EQ((*adapter)->delta(1, Site::kDown)->low_rank.rank(), 2);
  EXPECT_EQ((*adapter)->delta(1, Site::kQ), nullptr);
  EXPECT_EQ((*adapter)->delta(0, Site::kDown), nullptr);

  EXPECT_EQ(report.method, "LORA");
  EXPECT_EQ(report.num_sites, 2);
  EXPECT_EQ(report.num_parameters, 2 * 8 + 8 * 2 + 2 * 16 + 8 * 2);
  EXPECT_EQ(report.max_rank, 2);
  // Each `up` is kept packed: rank 2 by one panel of 32 columns.
  EXPECT_EQ(report.resident_bytes, (2 * 8 + 2 * 16) * 4 + 2 * (2 * 32 * 4));
  EXPECT_EQ((*adapter)->resident_bytes(), report.resident_bytes);
  const double q_bound = 2 * std::sqrt(16 * 1.0) * std::sqrt(16 * 0.25);
  const double down_bound = 2 * std::sqrt(32 * 4.0) * std::sqrt(16 * 9.0);
  EXPECT_NEAR(report.delta_norm_bound, q_bound + down_bound, 1e-3);
}

TEST(CompilerTest, RsLoraScalesByTheSquareRootOfTheRank) {
  SafetensorsBuilder weights;
  AddPair(weights, "model.layers.0.self_attn.q_proj", 2, 8, 8, 1, 1);
  CompileReport report;
  const auto adapter =
      Compile(Parse(weights, R"(,"use_rslora":true)"), TinyBase(), at::kFloat, &report);
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  EXPECT_FLOAT_EQ((*adapter)->delta(0, Site::kQ)->low_rank.scaling, 4 / std::sqrt(2.0f));
  EXPECT_EQ(report.method, "RSLORA");
}

TEST(CompilerTest, ReadsEveryStoredDTypeIntoTheBaseDType) {
  const struct {
    const char* dtype;
    std::string a, b;  // 1.5 and -2 as little-endian bytes
  } kCases[] = {
      {"F32", Filled(16, absl::string_view("\x00\x00\xc0\x3f", 4)),
       Filled(16, absl::string_view("\x00\x00\x00\xc0", 4))},
      {"F16", Filled(16, absl::string_view("\x00\x3e", 2)),
       Filled(16, absl::string_view("\x00\xc0", 2))},
      {"BF16", Filled(16, absl::string_view("\xc0\x3f", 2)),
       Filled(16, absl::string_view("\x00\xc0", 2))},
  };
  const std::string prefix = "base_model.model.model.layers.0.self_attn.q_proj.lora_";
  for (const auto& test : kCases) {
    SafetensorsBuilder weights;
    weights.Add(prefix + "A.weight", test.dtype, {2, 8}, test.a)
        .Add(prefix + "B.weight", test.dtype, {8, 2}, test.b);
    for (const at::ScalarType base_dtype : {at::kFloat, at::kBFloat16}) {
      const auto adapter = Compile(Parse(weights), TinyBase(), base_dtype, nullptr);
      ASSERT_TRUE(adapter.ok()) << adapter.status();
      const LowRankDelta* q = &(*adapter)->delta(0, Site::kQ)->low_rank;
      EXPECT_EQ(q->DownMatrix().scalar_type(), base_dtype);
      EXPECT_TRUE(q->DownMatrix().is_contiguous());
      EXPECT_TRUE(at::allclose(q->DownMatrix().to(at::kFloat), at::full({2, 8}, 1.5f)))
          << test.dtype;
      EXPECT_TRUE(at::allclose(q->UpMatrix().to(at::kFloat), at::full({8, 2}, -2.0f)))
          << test.dtype;
    }
  }
}

TEST(CompilerTest, ResultOutlivesTheFiles) {
  SafetensorsBuilder weights;
  AddPair(weights, "model.layers.0.self_attn.q_proj", 2, 8, 8, 7, 7);
  std::shared_ptr<const CompiledAdapter> adapter;
  std::weak_ptr<const void> file;
  {
    const AdapterSpec spec = Parse(weights);
    file = spec.files.at("adapter_model.safetensors").owner;
    adapter = *Compile(spec, TinyBase(), at::kFloat, nullptr);
  }
  EXPECT_TRUE(file.expired());
  EXPECT_TRUE(
      at::allclose(adapter->delta(0, Site::kQ)->low_rank.UpMatrix(), at::full({8, 2}, 7.0f)));
}

TEST(CompilerTest, UnknownModuleIsNamedWithTheNearestKnown) {
  SafetensorsBuilder weights;
  AddPair(weights, "model.layers.0.self_attn.q_prj", 2, 8, 8, 1, 1);
  const auto adapter = Compile(Parse(weights), TinyBase(), at::kFloat, nullptr);
  EXPECT_EQ(adapter.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetErrorDetail(adapter.status())->reason, "UNKNOWN_MODULE");
  EXPECT_THAT(std::string(adapter.status().message()), HasSubstr("self_attn.q_prj\""));
  EXPECT_THAT(std::string(adapter.status().message()),
              HasSubstr("nearest that can is \"model.layers.0.self_attn.q_proj\""));
}

TEST(CompilerTest, LayerBeyondTheBaseIsUnknown) {
  SafetensorsBuilder weights;
  AddPair(weights, "model.layers.31.self_attn.q_proj", 2, 8, 8, 1, 1);
  const auto adapter = Compile(Parse(weights), TinyBase(), at::kFloat, nullptr);
  EXPECT_THAT(std::string(adapter.status().message()), HasSubstr("(llama, 2 layers)"));
}

TEST(CompilerTest, ShapeMismatchNamesModuleAndShapes) {
  const struct {
    int64_t in, out;
    const char* message;
  } kCases[] = {{16, 8, "maps 16 to 8 features in the adapter, but 8 to 8 in the base"},
                {8, 4, "maps 8 to 4 features in the adapter, but 8 to 8 in the base"}};
  for (const auto& test : kCases) {
    SafetensorsBuilder weights;
    AddPair(weights, "model.layers.0.self_attn.q_proj", 2, test.in, test.out, 1, 1);
    const auto adapter = Compile(Parse(weights), TinyBase(), at::kFloat, nullptr);
    EXPECT_EQ(adapter.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(GetErrorDetail(adapter.status())->reason, "SHAPE_MISMATCH");
    EXPECT_EQ(GetErrorDetail(adapter.status())->subject, "model.layers.0.self_attn.q_proj");
    EXPECT_THAT(std::string(adapter.status().message()), HasSubstr(test.message));
  }
}

TEST(CompilerTest, ValuesThatOverflowTheBaseDTypeAreRefused) {
  SafetensorsBuilder weights;
  AddPair(weights, "model.layers.0.self_attn.q_proj", 2, 8, 8, 3.4e38f, 1);
  const auto adapter = Compile(Parse(weights), TinyBase(), at::kBFloat16, nullptr);
  EXPECT_EQ(adapter.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetErrorDetail(adapter.status())->reason, "NOT_FINITE");
}

TEST(CompilerTest, WarnsOfAnAdapterThatDoesNothing) {
  SafetensorsBuilder weights;
  AddPair(weights, "model.layers.0.self_attn.q_proj", 2, 8, 8, 1, 0);
  CompileReport report;
  ASSERT_TRUE(Compile(Parse(weights), TinyBase(), at::kFloat, &report).ok());
  EXPECT_EQ(report.delta_norm_bound, 0);
  EXPECT_THAT(report.warnings, ::testing::ElementsAre(HasSubstr("all deltas are zero")));
}

}  // namespace
}  // namespace tenon
