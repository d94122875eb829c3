#include "server/model/model.h"

#include <ATen/core/Tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/server/model/config_text.h"
#include "tests/server/model/model_folder.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<Model> Load(const std::string& config, const FloatTensors& tensors,
                           const ModelOptions& options = {}) {
  const ModelFolder folder;
  folder.Write("config.json", config);
  folder.WriteSafetensors("model.safetensors", tensors);
  return LoadModel(folder.path(), options);
}

void ExpectFails(const absl::StatusOr<Model>& model, absl::StatusCode code,
                 const std::string& text) {
  EXPECT_EQ(model.status().code(), code) << model.status();
  EXPECT_THAT(std::string(model.status().message()), HasSubstr(text));
}

TEST(LoadModelTest, LoadsAFolder) {
  const absl::StatusOr<Model> model = Load(SmallConfig().dump(), SmallWeights());
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->dtype, at::kFloat);
  EXPECT_EQ(model->base.digest.size(), 64u);
  EXPECT_THAT(model->eos_token_ids(), ElementsAre(2));
  EXPECT_GT(model->decoder->nbytes(), 0);
}

int64_t NumElements(const FloatTensors& tensors) {
  int64_t total = 0;
  for (const auto& [name, tensor] : tensors) {
    total += static_cast<int64_t>(tensor.values.size());
  }
  return total;
}

TEST(LoadModelTest, CountsEveryParameterOnce) {
  FloatTensors tensors = SmallWeights();
  absl::StatusOr<Model> model = Load(SmallConfig().dump(), tensors);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->decoder->num_parameters(), NumElements(tensors));
  const int64_t head = static_cast<int64_t>(tensors["lm_head.weight"].values.size());
  tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"];
  model = Load(ConfigWith("tie_word_embeddings", true), tensors);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->decoder->num_parameters(), NumElements(tensors) - head);
}

TEST(LoadModelTest, EndTokensOfTheGenerationConfigWin) {
  const ModelFolder folder;
  folder.Write("config.json", SmallConfig().dump());
  folder.Write("generation_config.json", R"({"eos_token_id": [3, 4]})");
  folder.WriteSafetensors("model.safetensors", SmallWeights());
  const absl::StatusOr<Model> model = LoadModel(folder.path(), {});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(model->eos_token_ids(), ElementsAre(3, 4));
}

TEST(LoadModelTest, DTypeIsTheCheckpointsUnlessGiven) {
  EXPECT_EQ(Load(ConfigWith("torch_dtype", "bfloat16"), SmallWeights())->dtype, at::kBFloat16);
  EXPECT_EQ(Load(ConfigWith("torch_dtype", "float16"), SmallWeights())->dtype, at::kFloat);
  ModelOptions options;
  options.dtype = at::kBFloat16;
  EXPECT_EQ(Load(SmallConfig().dump(), SmallWeights(), options)->dtype, at::kBFloat16);
  options.dtype = at::kHalf;
  ExpectFails(Load(SmallConfig().dump(), SmallWeights(), options),
              absl::StatusCode::kInvalidArgument, "dtype");
}

TEST(LoadModelTest, DigestFollowsTheWeights) {
  const absl::StatusOr<Model> model = Load(SmallConfig().dump(), SmallWeights());
  FloatTensors changed = SmallWeights();
  changed["model.norm.weight"].values[0] = 2.0f;
  EXPECT_NE(Load(SmallConfig().dump(), changed)->base.digest, model->base.digest);
}

TEST(LoadModelTest, EveryMissingTensorIsNamed) {
  for (const auto& [name, tensor] : SmallWeights()) {
    FloatTensors tensors = SmallWeights();
    tensors.erase(name);
    ExpectFails(Load(SmallConfig().dump(), tensors), absl::StatusCode::kNotFound, name);
  }
}

TEST(LoadModelTest, BiasesMustMatchTheConfig) {
  ExpectFails(Load(ConfigWith("attention_bias", true), SmallWeights()), absl::StatusCode::kNotFound,
              "model.layers.0.self_attn.q_proj.bias");
  FloatTensors tensors = SmallWeights();
  tensors["model.layers.0.mlp.up_proj.bias"] = {{24}, std::vector<float>(24)};
  ExpectFails(Load(SmallConfig().dump(), tensors), absl::StatusCode::kInvalidArgument,
              "model.layers.0.mlp.up_proj.bias");
}

TEST(LoadModelTest, TiedHeadMayBeRepeatedButNotDiffer) {
  const std::string tied = ConfigWith("tie_word_embeddings", true);
  FloatTensors tensors = SmallWeights();
  ExpectFails(Load(tied, tensors), absl::StatusCode::kInvalidArgument, "lm_head.weight");
  tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"];
  EXPECT_TRUE(Load(tied, tensors).ok());
  tensors.erase("lm_head.weight");
  EXPECT_TRUE(Load(tied, tensors).ok());
}

TEST(LoadModelTest, ErrorsNameTheFolderAndTheFile) {
  const ModelFolder folder;
  const absl::Status status = LoadModel(folder.path(), {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr(folder.path() + "/config.json"));
  ExpectFails(Load(ConfigWith("attention_sinks", 1), SmallWeights()),
              absl::StatusCode::kFailedPrecondition, "attention_sinks");
}

TEST(BaseShapeTest, NamesEveryModule) {
  ModelConfig config = *ParseModelConfig(ConfigWith("head_dim", 6));
  config.num_layers = 2;
  const BaseShape base = MakeBaseShape(config, "digest");
  EXPECT_EQ(base.digest, "digest");
  EXPECT_EQ(base.modules.size(), 3 + 2 * 9u);
  const SiteShape& o = base.modules.at("model.layers.1.self_attn.o_proj");
  EXPECT_EQ(o.layer, 1);
  EXPECT_EQ(o.site, Site::kO);
  EXPECT_EQ(o.in_features, 24);
  EXPECT_EQ(o.out_features, 16);
  const SiteShape& k = base.modules.at("model.layers.0.self_attn.k_proj");
  EXPECT_EQ(k.out_features, 12);
  EXPECT_EQ(base.modules.at("model.layers.0.mlp.down_proj").in_features, 24);
  EXPECT_EQ(base.modules.at("lm_head").out_features, config.vocab_size);
  EXPECT_EQ(base.modules.at("model.embed_tokens").in_features, config.vocab_size);
  EXPECT_EQ(base.modules.at("model.layers.1.input_layernorm").site, Site::kAttentionNorm);
  EXPECT_EQ(base.layers.at("model.layers.1"), 1);
  EXPECT_EQ(base.num_kv_heads * base.head_dim, 12);
}

TEST(LoadModelTest, BaseParametersCanBeReadAfterwards) {
  const FloatTensors tensors = SmallWeights();
  const ModelFolder folder;
  folder.Write("config.json", SmallConfig().dump());
  folder.WriteSafetensors("model.safetensors", tensors);
  const absl::StatusOr<Model> model = LoadModel(folder.path(), {});
  ASSERT_TRUE(model.ok()) << model.status();
  const FloatTensor& norm = tensors.at("model.norm.weight");
  const absl::StatusOr<at::Tensor> read = model->base.read_parameter("model.norm.weight");
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->numel(), static_cast<int64_t>(norm.values.size()));
  EXPECT_EQ(read->const_data_ptr<float>()[3], norm.values[3]);
  EXPECT_EQ(model->base.read_parameter("model.norm.bias").status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace tenon
