#include "adapters/formats/parse_adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "adapters/formats/finite.h"
#include "tests/adapters/formats/adapter_fixture.h"

namespace tenon {
namespace {

using ::tenon::testing::AddLora;
using ::tenon::testing::PeftConfig;
using ::tenon::testing::PeftFolder;
using ::tenon::testing::PeftWeights;
using ::tenon::testing::SafetensorsBuilder;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::ordered_json;

AdapterSpec Parse(const Json& config, const SafetensorsBuilder& weights = PeftWeights()) {
  auto spec = ParseAdapter(PeftFolder(config.dump(), weights.Build()), AdapterLimits());
  EXPECT_TRUE(spec.ok()) << spec.status();
  return spec.ok() ? *std::move(spec) : AdapterSpec();
}

std::map<std::string, double> Scalings(const AdapterSpec& spec) {
  std::map<std::string, double> scalings;
  for (const LoraModule& lora : std::get<LoraSpec>(spec.body).modules) {
    scalings[lora.module] = lora.scaling;
  }
  return scalings;
}

TEST(ParseAdapterTest, ReadsModulesSortedWithTheirTensors) {
  const AdapterSpec spec = Parse(PeftConfig());
  EXPECT_EQ(spec.method, "LORA");
  EXPECT_EQ(spec.base_model, "tiny");
  const auto& modules = std::get<LoraSpec>(spec.body).modules;
  ASSERT_EQ(modules.size(), 4u);
  EXPECT_EQ(modules[0].module, "model.layers.0.self_attn.q_proj");
  EXPECT_EQ(modules[3].module, "model.layers.1.self_attn.v_proj");
  EXPECT_THAT(modules[0].a.shape, ElementsAre(2, 8));
  EXPECT_THAT(modules[0].b.shape, ElementsAre(8, 2));
  EXPECT_EQ(modules[0].scaling, 2.0);
}

TEST(ParseAdapterTest, SpecKeepsTheFilesAlive) {
  std::weak_ptr<const void> file;
  {
    const AdapterSpec spec = Parse(PeftConfig());
    file = spec.files.at("adapter_model.safetensors").owner;
    EXPECT_FALSE(file.expired());
  }
  EXPECT_TRUE(file.expired());
}

TEST(ParseAdapterTest, PatternsSetRankAndScalingPerModule) {
  Json config = PeftConfig();
  config["use_rslora"] = true;
  config["rank_pattern"] = {{R"(.*\.0\..*q_proj)", 3}};
  config["alpha_pattern"] = {{"layers.1.self_attn.v_proj", 1.5}};
  SafetensorsBuilder weights;
  AddLora(weights, "model.layers.0.self_attn.q_proj", 3);
  AddLora(weights, "model.layers.1.self_attn.q_proj", 2);
  AddLora(weights, "model.layers.1.self_attn.v_proj", 2);
  const AdapterSpec spec = Parse(config, weights);
  EXPECT_EQ(spec.method, "RSLORA");
  EXPECT_EQ(Scalings(spec), (std::map<std::string, double>{
                                {"model.layers.0.self_attn.q_proj", 4 / std::sqrt(3.0)},
                                {"model.layers.1.self_attn.q_proj", 4 / std::sqrt(2.0)},
                                {"model.layers.1.self_attn.v_proj", 1.5 / std::sqrt(2.0)}}));
}

TEST(ParseAdapterTest, TargetsInAllTheirForms) {
  for (const Json& targets :
       {Json::array({"v_proj", "q_proj"}), Json("all-linear"), Json("ALL-LINEAR"),
        Json(R"(.*\.[qv]_proj)"),
        Json::array({"model.layers.0.self_attn.q_proj", "1.self_attn.q_proj", "v_proj"})}) {
    Json config = PeftConfig();
    config["target_modules"] = targets;
    const AdapterSpec spec = Parse(config);
    EXPECT_EQ(Scalings(spec).size(), 4u) << targets;
    EXPECT_THAT(spec.warnings, IsEmpty()) << targets;
  }
}

TEST(ParseAdapterTest, LayersToTransformInAllTheirForms) {
  SafetensorsBuilder weights;
  AddLora(weights, "model.layers.1.self_attn.q_proj", 2);
  for (const Json& layers : {Json(1), Json::array({1, 3})}) {
    for (const Json& pattern : {Json(nullptr), Json("layers"), Json::array({"h", "layers"})}) {
      Json config = PeftConfig();
      config["target_modules"] = Json::array({"q_proj"});
      config["layers_to_transform"] = layers;
      config["layers_pattern"] = pattern;
      EXPECT_EQ(Scalings(Parse(config, weights)).size(), 1u) << layers << pattern;
    }
  }
}

TEST(ParseAdapterTest, AdapterNameInKeysIsToleratedAsPeftDoes) {
  SafetensorsBuilder weights;
  weights.AddFilled("base_model.model.m.q_proj.lora_A.default.weight", {2, 8}, 1)
      .AddFilled("base_model.model.m.q_proj.lora_B.default.weight", {8, 2}, 1);
  EXPECT_EQ(Scalings(Parse(PeftConfig(), weights)).count("m.q_proj"), 1u);
}

TEST(ParseAdapterTest, FieldsOfNewerVersionsPassWhenUnset) {
  Json config = PeftConfig();
  config["future_a"] = nullptr;
  config["future_b"] = false;
  config["future_c"] = Json::object();
  config["future_d"] = "";
  EXPECT_THAT(Parse(config).warnings, IsEmpty());
}

TEST(ParseAdapterTest, MinimalConfigOfOldVersionsIsEnough) {
  const Json config = {
      {"peft_type", "LORA"}, {"r", 2}, {"lora_alpha", 4}, {"target_modules", {"q_proj", "v_proj"}}};
  EXPECT_EQ(Scalings(Parse(config)).size(), 4u);
}

TEST(ParseAdapterTest, HarmlessOdditiesWarn) {
  Json config = PeftConfig();
  config["target_modules"] = Json::array({"q_proj", "v_proj", "o_proj"});
  config["fan_in_fan_out"] = true;
  EXPECT_THAT(Parse(config).warnings, ElementsAre(HasSubstr("\"o_proj\" has no tensors")));
}

TEST(ParseAdapterTest, InitialisationsThatKeepTheBaseAreAccepted) {
  for (const Json& init : {Json(false), Json("gaussian"), Json("eva"), Json("orthogonal")}) {
    Json config = PeftConfig();
    config["init_lora_weights"] = init;
    EXPECT_EQ(Scalings(Parse(config)).size(), 4u) << init;
  }
}

TEST(FindNonFiniteTest, FindsTheFirstAtAnyPlaceOfAnUnalignedTensor) {
  for (const int64_t bad : {0, 1, 1023, 1024, 1025, 2499}) {
    std::vector<float> values(2500, -std::numeric_limits<float>::max());
    values[bad] = -std::numeric_limits<float>::infinity();
    const std::string bytes = "x" + testing::Floats(values);
    TensorView view;
    view.shape = {2500};
    view.bytes = std::as_bytes(std::span(bytes)).subspan(1);
    EXPECT_EQ(FindNonFinite(view), bad);
  }
}

TEST(FindNonFiniteTest, LargestAndSubnormalValuesAreFinite) {
  const std::string bytes = testing::Floats(
      {std::numeric_limits<float>::max(), 0.0f, -0.0f, std::numeric_limits<float>::denorm_min()});
  TensorView view;
  view.shape = {4};
  view.bytes = std::as_bytes(std::span(bytes));
  EXPECT_EQ(FindNonFinite(view), std::nullopt);
}

}  // namespace
}  // namespace tenon
