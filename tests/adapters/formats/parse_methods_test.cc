// Every method's folder to its spec, and what is refused of each.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "adapters/base/errors.h"
#include "adapters/formats/parse_adapter.h"
#include "tests/adapters/formats/method_folders.h"

namespace tenon {
namespace {

using ::tenon::testing::AdapterHubLoraFolder;
using ::tenon::testing::AllMethodFolders;
using ::tenon::testing::BottleneckFolder;
using ::tenon::testing::DoraFolder;
using ::tenon::testing::Ia3Folder;
using ::tenon::testing::kDown;
using ::tenon::testing::kQ;
using ::tenon::testing::LohaFolder;
using ::tenon::testing::LokrFolder;
using ::tenon::testing::MethodFolder;
using ::tenon::testing::ModuleTensor;
using ::tenon::testing::TokensFolder;
using ::tenon::testing::VeraFolder;
using ::tenon::testing::VirtualTokensFolder;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::ordered_json;

AdapterSpec Parse(const MethodFolder& folder) {
  auto spec = ParseAdapter(folder.Build(), AdapterLimits());
  EXPECT_TRUE(spec.ok()) << folder.method << ": " << spec.status();
  return spec.ok() ? *std::move(spec) : AdapterSpec();
}

std::vector<float> Values(const TensorView& view) {
  std::vector<float> values(view.bytes.size() / sizeof(float));
  std::memcpy(values.data(), view.bytes.data(), view.bytes.size());
  return values;
}

void ExpectRefused(const MethodFolder& folder, absl::string_view reason,
                   absl::string_view message) {
  const auto spec = ParseAdapter(folder.Build(), AdapterLimits());
  ASSERT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << message;
  EXPECT_EQ(GetErrorDetail(spec.status())->reason, reason);
  EXPECT_THAT(std::string(spec.status().message()), HasSubstr(std::string(message)));
}

MethodFolder With(MethodFolder folder, const char* field, Json value) {
  Json& config = folder.config.contains("config") ? folder.config["config"] : folder.config;
  config[field] = std::move(value);
  return folder;
}

MethodFolder WithTensor(MethodFolder folder, const std::string& name,
                        const std::vector<int64_t>& shape) {
  folder.weights.AddFilled(name, shape, 1);
  return folder;
}

TEST(ParseMethodsTest, EachFolderIsKnownByItsContent) {
  for (const MethodFolder& folder : AllMethodFolders()) {
    EXPECT_EQ(Parse(folder).method, folder.method);
  }
}

TEST(ParseMethodsTest, EveryMethodRefusesASetFieldThatItDoesNotKnow) {
  for (const MethodFolder& folder : AllMethodFolders()) {
    ExpectRefused(With(folder, "new_feature", 0.5), "UNSUPPORTED_ADAPTER",
                  "\"new_feature\" is 0.5");
  }
}

TEST(ParseMethodsTest, EveryMethodRefusesATensorThatItDoesNotKnow) {
  for (const MethodFolder& folder : AllMethodFolders()) {
    ExpectRefused(WithTensor(folder, "base_model.model.model.layers.0.secret", {2}),
                  "UNKNOWN_TENSOR", "layers.0.secret\"");
  }
}

TEST(ParseDoraTest, MagnitudesBiasesAndOverrides) {
  const AdapterSpec spec = Parse(DoraFolder());
  const auto& modules = std::get<LoraSpec>(spec.body).modules;
  ASSERT_EQ(modules.size(), 2u);
  EXPECT_EQ(modules[0].module, "model.embed_tokens");
  EXPECT_THAT(modules[0].a.shape, ElementsAre(2, 16));
  EXPECT_TRUE(modules[0].magnitude.has_value());
  EXPECT_FALSE(modules[0].b_bias.has_value());
  EXPECT_EQ(modules[1].module, kQ);
  EXPECT_EQ(modules[1].scaling, 4 / std::sqrt(2.0));
  EXPECT_THAT(modules[1].magnitude->shape, ElementsAre(8));
  EXPECT_THAT(modules[1].b_bias->shape, ElementsAre(8));
  ASSERT_EQ(spec.shared.biases.size(), 2u);
  EXPECT_EQ(spec.shared.biases[0].module, kQ);
  EXPECT_EQ(spec.shared.biases[1].module, "model.norm");
  ASSERT_EQ(spec.shared.saved_modules.size(), 1u);
  EXPECT_EQ(spec.shared.saved_modules[0].module, "lm_head");
  ASSERT_EQ(spec.shared.token_rows.size(), 1u);
  EXPECT_THAT(spec.shared.token_rows[0].tokens, ElementsAre(5, 2));
  ASSERT_EQ(spec.shared.base_copies.size(), 1u);
  EXPECT_THAT(spec.warnings, ElementsAre(HasSubstr("is a copy of a base weight")));
}

// save_pretrained(..., save_embedding_layers=True)
TEST(ParseLoraTest, EmbeddingsThatNothingAnnouncesAreCopiesOfTheBase) {
  MethodFolder folder{"LORA", testing::PeftConfig(), testing::PeftWeights()};
  folder = WithTensor(folder, "base_model.model.model.embed_tokens.weight", {16, 8});
  folder = WithTensor(folder, "base_model.model.lm_head.weight", {16, 8});
  const AdapterSpec spec = Parse(folder);
  EXPECT_EQ(spec.shared.base_copies.size(), 2u);
  EXPECT_TRUE(spec.shared.saved_modules.empty());
  EXPECT_EQ(spec.warnings.size(), 2u);
}

TEST(ParseDoraTest, OverridesAreLimited) {
  AdapterLimits limits;
  limits.max_override_bytes = (16 * 8 + 2 * 8) * 4;
  EXPECT_TRUE(ParseAdapter(DoraFolder().Build(), limits).ok());
  limits.max_override_bytes -= 1;
  const auto spec = ParseAdapter(DoraFolder().Build(), limits);
  EXPECT_THAT(std::string(spec.status().message()),
              HasSubstr("576 bytes, which exceeds the limit of 575 (max_override_bytes)"));
}

TEST(ParseDoraTest, BiasOfTargetsOnly) {
  ExpectRefused(With(DoraFolder(), "bias", "lora_only"), "UNEXPECTED_TENSOR", "model.norm.bias");
  ExpectRefused(With(DoraFolder(), "bias", "none"), "UNEXPECTED_TENSOR", "base_layer.bias");
}

TEST(ParseDoraTest, TokenIndicesByModule) {
  const Json both = {{"embed_tokens", {5, 2}}, {"lm_head", {1}}};
  MethodFolder folder = With(DoraFolder(), "trainable_token_indices", both);
  ExpectRefused(folder, "MISSING_TENSOR", "\"lm_head\"");
  const AdapterSpec spec = Parse(
      WithTensor(folder, ModuleTensor("lm_head", "token_adapter.trainable_tokens_delta"), {1, 8}));
  ASSERT_EQ(spec.shared.token_rows.size(), 2u);
  EXPECT_THAT(spec.shared.token_rows[0].tokens, ElementsAre(1));
  ExpectRefused(With(DoraFolder(), "trainable_token_indices", {1, 2, 3}), "INVALID_SHAPE",
                "[2, 8] instead of [3, -1]");
  ExpectRefused(With(DoraFolder(), "trainable_token_indices", {-1, 2}), "INVALID_CONFIG", "is -1");
}

TEST(ParseIa3Test, FeedForwardModulesScaleTheirInput) {
  const AdapterSpec spec = Parse(Ia3Folder());
  const auto& modules = std::get<Ia3Spec>(spec.body).modules;
  ASSERT_EQ(modules.size(), 2u);
  EXPECT_EQ(modules[0].module, kDown);
  EXPECT_TRUE(modules[0].on_input);
  EXPECT_FALSE(modules[1].on_input);
  EXPECT_EQ(modules[1].scaling, 1.0);
}

TEST(ParseIa3Test, ListedFeedForwardNamesMatchAsAnyEnding) {
  EXPECT_TRUE(std::get<Ia3Spec>(Parse(With(Ia3Folder(), "feedforward_modules", {"n_proj"})).body)
                  .modules[0]
                  .on_input);
}

TEST(ParseIa3Test, TheSideMustAgreeWithTheShape) {
  ExpectRefused(With(Ia3Folder(), "feedforward_modules", Json::array()), "INVALID_SHAPE",
                "[1, 12] instead of [-1, 1]");
  ExpectRefused(With(Ia3Folder(), "feedforward_modules", ".*_proj"), "INVALID_SHAPE",
                "[8, 1] instead of [1, -1]");
}

TEST(ParsePromptTest, EmbeddingsAndLimits) {
  const AdapterSpec spec = Parse(VirtualTokensFolder("P_TUNING"));
  EXPECT_THAT(std::get<PromptSpec>(spec.body).embeddings.shape, ElementsAre(3, 8));
  EXPECT_EQ(spec.base_model, "tiny");
  const MethodFolder prompt = VirtualTokensFolder("PROMPT_TUNING");
  ExpectRefused(With(prompt, "num_virtual_tokens", 2000), "VIRTUAL_TOKEN_LIMIT",
                "num_virtual_tokens 2000 exceeds the limit of 1024 (max_virtual_tokens)");
  ExpectRefused(With(prompt, "num_virtual_tokens", 0), "INVALID_CONFIG", "is 0");
  ExpectRefused(With(prompt, "token_dim", 4), "INVALID_SHAPE", "[3, 8] instead of [3, 4]");
  ExpectRefused(With(prompt, "token_dim", -1), "INVALID_CONFIG", "token_dim is -1");
  ExpectRefused(With(prompt, "num_transformer_submodules", 2), "UNSUPPORTED_ADAPTER",
                "num_transformer_submodules");
  ExpectRefused(With(prompt, "modules_to_save", {"lm_head"}), "UNSUPPORTED_ADAPTER",
                "modules_to_save");
}

TEST(ParsePrefixTest, KeysAndValuesOfEachLayer) {
  const auto prefix = std::get<PrefixSpec>(Parse(VirtualTokensFolder("PREFIX_TUNING")).body);
  EXPECT_EQ(prefix.num_layers, 2);
  EXPECT_EQ(prefix.token_dim, 4);
  EXPECT_THAT(prefix.keys_values.shape, ElementsAre(3, 16));
  ExpectRefused(With(VirtualTokensFolder("PREFIX_TUNING"), "num_layers", 1 << 20), "INVALID_SHAPE",
                "[3, 16] instead of [3, 8388608]");
}

TEST(ParseVeraTest, SharedProjectionsAndVectors) {
  const auto vera = std::get<VeraSpec>(Parse(VeraFolder()).body);
  EXPECT_THAT(vera.a.shape, ElementsAre(3, 12));
  EXPECT_THAT(vera.b.shape, ElementsAre(8, 3));
  ASSERT_EQ(vera.modules.size(), 2u);
  EXPECT_THAT(vera.modules[0].lambda_d.shape, ElementsAre(3));
  ExpectRefused(With(VeraFolder(), "save_projection", false), "UNSUPPORTED_ADAPTER",
                "save_projection=True");
  ExpectRefused(With(VeraFolder(), "r", 4), "INVALID_SHAPE", "[3, 12] instead of [4, -1]");
}

TEST(ParseLohaTest, PatternsSetRankAndScaling) {
  const auto loha = std::get<LohaSpec>(Parse(LohaFolder()).body);
  ASSERT_EQ(loha.modules.size(), 2u);
  EXPECT_EQ(loha.modules[0].scaling, 1.5);
  EXPECT_EQ(loha.modules[1].scaling, 5.0);
  EXPECT_THAT(loha.modules[1].w2_b.shape, ElementsAre(1, 8));
  ExpectRefused(With(LohaFolder(), "rank_pattern", Json::object()), "INVALID_SHAPE", "has rank 1");
  ExpectRefused(WithTensor(LohaFolder(), ModuleTensor(kQ, "hada_t1"), {1, 1}), "UNKNOWN_TENSOR",
                "Tucker core");
}

TEST(ParseLokrTest, FactorsWholeOrAsProducts) {
  const auto lokr = std::get<LokrSpec>(Parse(LokrFolder()).body);
  ASSERT_EQ(lokr.modules.size(), 2u);
  EXPECT_TRUE(lokr.modules[0].w1.a.has_value());
  EXPECT_FALSE(lokr.modules[0].w1.whole.has_value());
  EXPECT_THAT(lokr.modules[0].w2.b->shape, ElementsAre(2, 4));
  EXPECT_THAT(lokr.modules[1].w2.whole->shape, ElementsAre(4, 4));
  EXPECT_EQ(lokr.modules[1].scaling, 2.5);
  ExpectRefused(WithTensor(LokrFolder(), ModuleTensor(kQ, "lokr_w1_a"), {2, 2}), "DUPLICATE_TENSOR",
                "both whole and as a product");
}

TEST(ParseTokensTest, RowsOfEmbeddingAndTiedHead) {
  const AdapterSpec spec = Parse(TokensFolder());
  ASSERT_EQ(spec.shared.token_rows.size(), 2u);
  EXPECT_EQ(spec.shared.token_rows[0].module, "lm_head");
  EXPECT_THAT(spec.shared.token_rows[1].tokens, ElementsAre(7, 3));
  ExpectRefused(With(TokensFolder(), "token_indices", Json::array()), "INVALID_CONFIG",
                "token_indices is []");
  ExpectRefused(With(TokensFolder(), "target_modules", {"wte"}), "UNEXPECTED_TENSOR",
                "target_modules does not name");
}

TEST(ParseBottleneckTest, EveryPartOfEveryModule) {
  const auto spec = std::get<BottleneckSpec>(Parse(BottleneckFolder()).body);
  EXPECT_EQ(spec.nonlinearity, Nonlinearity::kSilu);
  EXPECT_TRUE(spec.original_ln_before);
  ASSERT_EQ(spec.modules.size(), 2u);
  EXPECT_EQ(spec.modules[0].module, "model.layers.0");
  EXPECT_EQ(spec.modules[0].sublayer, Sublayer::kAttention);
  EXPECT_EQ(spec.modules[1].sublayer, Sublayer::kFeedForward);
  EXPECT_THAT(spec.modules[1].down.shape, ElementsAre(2, 8));
  EXPECT_TRUE(spec.modules[1].norm_before_weight.has_value());
  EXPECT_TRUE(spec.modules[1].norm_after_bias.has_value());
  EXPECT_THAT(spec.modules[1].learned_scaling->shape, ElementsAre(8));
}

TEST(ParseBottleneckTest, WhatIsNotServedIsNamed) {
  const MethodFolder folder = BottleneckFolder();
  for (const auto& [field, value] : {std::pair<const char*, Json>{"use_gating", true},
                                     {"phm_layer", true},
                                     {"inv_adapter", "nice"},
                                     {"cross_adapter", true},
                                     {"non_linearity", "mish"},
                                     {"architecture", "prefix_tuning"}}) {
    ExpectRefused(With(folder, field, value), "UNSUPPORTED_ADAPTER", field);
  }
}

TEST(ParseBottleneckTest, PlacesAndWidthsMustAgreeWithTheConfiguration) {
  const MethodFolder folder = BottleneckFolder();
  ExpectRefused(With(folder, "mh_adapter", false), "UNEXPECTED_TENSOR", "mh_adapter");
  ExpectRefused(With(folder, "leave_out", {0}), "UNEXPECTED_TENSOR", "leave_out");
  ExpectRefused(With(folder, "reduction_factor", 2), "INVALID_SHAPE", "[2, 8] instead of [4, 8]");
  ExpectRefused(With(folder, "reduction_factor", 0), "INVALID_CONFIG", "reduction_factor is 0");
  ExpectRefused(With(folder, "reduction_factor", 1e-5), "INVALID_CONFIG", "max_bottleneck_width");
  ExpectRefused(With(folder, "scaling", "sometimes"), "INVALID_CONFIG", "scaling is");
  ExpectRefused(With(folder, "scaling", 2.0), "UNKNOWN_TENSOR", "scaling\"");
  ExpectRefused(With(folder, "ln_before", false), "INVALID_SHAPE", "adapter_down.0");
}

TEST(ParseBottleneckTest, ResidualAfterTheSumIsToldApart) {
  const auto spec = std::get<BottleneckSpec>(
      Parse(With(BottleneckFolder(), "residual_before_ln", "post_add")).body);
  EXPECT_FALSE(spec.residual_before_ln);
  EXPECT_TRUE(spec.residual_post_add);
}

TEST(ParseBottleneckTest, OtherPlacesOfTheInterfaceAreRefused) {
  FileSet files = BottleneckFolder().Build();
  const Json interface = {{"interface", {{"layer_self_attn", "attention"}}}};
  const FileSet more = testing::MakeFileSet({{"adapter_interface.json", interface.dump()}});
  files.insert(more.begin(), more.end());
  EXPECT_THAT(std::string(ParseAdapter(files, AdapterLimits()).status().message()),
              HasSubstr("layer_self_attn is \"attention\""));
}

TEST(ParseBottleneckTest, AHeadIsASavedModule) {
  FileSet files = BottleneckFolder().Build();
  const FileSet head = testing::MakeFileSet(
      {{"model_head.safetensors",
        testing::SafetensorsBuilder().AddFilled("lm_head.weight", {16, 8}, 1).Build()}});
  files.insert(head.begin(), head.end());
  AdapterLimits limits;
  const auto spec = ParseAdapter(files, limits);
  ASSERT_TRUE(spec.ok()) << spec.status();
  ASSERT_EQ(spec->shared.saved_modules.size(), 1u);
  limits.max_override_bytes = 100;
  EXPECT_THAT(std::string(ParseAdapter(files, limits).status().message()),
              HasSubstr("with_head=False"));
}

TEST(ParseAdapterHubLoraTest, PartsOfAFusedProjectionBecomeWhole) {
  const AdapterSpec spec = Parse(AdapterHubLoraFolder("add"));
  const auto& modules = std::get<LoraSpec>(spec.body).modules;
  ASSERT_EQ(modules.size(), 2u);
  EXPECT_EQ(modules[0].scaling, 1.5);
  EXPECT_THAT(modules[0].a.shape, ElementsAre(4, 8));
  EXPECT_THAT(modules[0].b.shape, ElementsAre(6, 4));
  // q's rows use the first two columns, k has none, v's use the last two.
  EXPECT_THAT(Values(modules[0].b),
              ElementsAre(1, 2, 0, 0, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 6, 0, 0, 7, 8));
  EXPECT_THAT(modules[1].b.shape, ElementsAre(12, 2));
}

TEST(ParseAdapterHubLoraTest, Ia3HasOnesInTheOtherParts) {
  const AdapterSpec spec = Parse(AdapterHubLoraFolder("scale"));
  const auto& modules = std::get<Ia3Spec>(spec.body).modules;
  ASSERT_EQ(modules.size(), 2u);
  EXPECT_THAT(Values(modules[0].scale), ElementsAre(2, 3, 1, 1, 4, 5));
  EXPECT_EQ(modules[0].scaling, 3.0);
}

TEST(ParseAdapterHubLoraTest, WhatIsNotServedIsNamed) {
  for (const char* field : {"use_dora", "use_gating", "vera_d"}) {
    ExpectRefused(With(AdapterHubLoraFolder("add"), field, true), "UNSUPPORTED_ADAPTER", field);
  }
  ExpectRefused(With(AdapterHubLoraFolder("add"), "composition_mode", "mix"), "UNSUPPORTED_ADAPTER",
                "composition_mode");
  ExpectRefused(With(AdapterHubLoraFolder("add"), "attn_matrices", {"q", "k", "v"}),
                "INVALID_SHAPE", "has rank 4");
}

}  // namespace
}  // namespace tenon
