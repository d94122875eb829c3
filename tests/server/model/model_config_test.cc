#include "server/model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "tests/server/model/config_text.h"

namespace tenon {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::Status StatusWith(const std::string& field, const json& value) {
  return ParseModelConfig(ConfigWith(field, value)).status();
}

// That the status has the code and that its message names the field.
void ExpectRefused(const absl::Status& status, absl::StatusCode code, const std::string& field) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("config.json"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("'" + field + "'"));
}

TEST(ModelConfigTest, ReadsEverySize) {
  json fields = SmallConfig();
  fields["head_dim"] = 6;
  fields["tie_word_embeddings"] = true;
  fields["attention_bias"] = true;
  fields["mlp_bias"] = true;
  const absl::StatusOr<ModelConfig> config = ParseModelConfig(fields.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->vocab_size, 32);
  EXPECT_EQ(config->hidden_size, 16);
  EXPECT_EQ(config->intermediate_size, 24);
  EXPECT_EQ(config->num_layers, 1);
  EXPECT_EQ(config->num_heads, 4);
  EXPECT_EQ(config->num_kv_heads, 2);
  EXPECT_EQ(config->head_dim, 6);
  EXPECT_EQ(config->q_size(), 24);
  EXPECT_EQ(config->kv_size(), 12);
  EXPECT_EQ(config->max_position_embeddings, 64);
  EXPECT_DOUBLE_EQ(config->norm_eps, 1e-5);
  EXPECT_TRUE(config->tie_word_embeddings);
  EXPECT_TRUE(config->qkv_bias);
  EXPECT_TRUE(config->mlp_bias);
  EXPECT_EQ(config->dtype, ModelDType::kFloat32);
  EXPECT_EQ(config->bos_token_id, 1);
  EXPECT_EQ(config->pad_token_id, std::nullopt);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(2));
}

TEST(ModelConfigTest, FillsInWhatTransformersFillsIn) {
  json fields = SmallConfig();
  for (const char* name : {"num_key_value_heads", "rms_norm_eps", "torch_dtype", "eos_token_id"}) {
    fields.erase(name);
  }
  const absl::StatusOr<ModelConfig> config = ParseModelConfig(fields.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->num_kv_heads, 4);
  EXPECT_EQ(config->head_dim, 4);
  EXPECT_DOUBLE_EQ(config->norm_eps, 1e-6);
  EXPECT_FALSE(config->tie_word_embeddings);
  EXPECT_EQ(config->dtype, std::nullopt);
  EXPECT_TRUE(config->eos_token_ids.empty());
  EXPECT_EQ(config->ropes.at(0).type, RopeType::kDefault);
  EXPECT_DOUBLE_EQ(config->ropes.at(0).theta, 10000.0);
}

TEST(ModelConfigTest, DTypeIsReadInBothSpellings) {
  json fields = SmallConfig();
  fields["dtype"] = "bfloat16";  // transformers 5; it wins
  EXPECT_EQ(ParseModelConfig(fields.dump())->dtype, ModelDType::kBFloat16);
  EXPECT_EQ(ParseModelConfig(ConfigWith("torch_dtype", "float16"))->dtype, ModelDType::kFloat16);
  ExpectRefused(StatusWith("torch_dtype", "float8_e4m3fn"), absl::StatusCode::kFailedPrecondition,
                "torch_dtype");
}

TEST(ModelConfigTest, EndTokensMayBeAList) {
  const absl::StatusOr<ModelConfig> config =
      ParseModelConfig(ConfigWith("eos_token_id", {2, 7, 31}));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->eos_token_ids, ElementsAre(2, 7, 31));
  ExpectRefused(StatusWith("eos_token_id", {2, 32}), absl::StatusCode::kInvalidArgument,
                "eos_token_id");
}

TEST(ModelConfigTest, UnknownFieldIsRefusedByName) {
  ExpectRefused(StatusWith("attention_sinks", 4), absl::StatusCode::kFailedPrecondition,
                "attention_sinks");
  EXPECT_TRUE(StatusWith("attention_sinks", nullptr).ok());
}

TEST(ModelConfigTest, ValuesThatWouldChangeTheAnswerAreRefused) {
  const std::pair<const char*, json> refused[] = {
      {"model_type", "phi3"},
      {"architectures", {"LlamaForSequenceClassification"}},
      {"hidden_act", "gelu"},
      {"pretraining_tp", 2},
      {"sliding_window", 4096},
      {"quantization_config", {{"quant_method", "gptq"}}},
      {"layer_types", {"sliding_attention"}},
      {"partial_rotary_factor", 0.5},
      {"rope_interleaved", true},
      {"auto_map", {{"AutoModel", "custom.Model"}}},
      {"num_beams", 4},
  };
  for (const auto& [field, value] : refused) {
    ExpectRefused(StatusWith(field, value), absl::StatusCode::kFailedPrecondition, field);
  }
}

TEST(ModelConfigTest, FieldsThatDoNotMatterAreAccepted) {
  const std::pair<const char*, json> accepted[] = {
      {"attention_dropout", 0.1},
      {"initializer_range", 0.02},
      {"use_cache", false},
      {"pretraining_tp", 1},
      {"_name_or_path", "x"},
      {"transformers_version", "5"},
      {"layer_types", {"full_attention"}},
      {"is_llama_config", true},
      {"rope_interleaved", false},
      {"hidden_act", "silu"},
  };
  for (const auto& [field, value] : accepted) {
    EXPECT_TRUE(StatusWith(field, value).ok()) << StatusWith(field, value);
  }
}

TEST(ModelConfigTest, SizesOutOfRangeAreInvalid) {
  const std::pair<const char*, json> invalid[] = {
      {"hidden_size", 0},
      {"hidden_size", -16},
      {"hidden_size", 16.5},
      {"hidden_size", "16"},
      {"hidden_size", 18446744073709551615ULL},
      {"hidden_size", 18},  // not a multiple of the heads
      {"num_hidden_layers", 100000},
      {"vocab_size", int64_t{1} << 40},
      {"num_key_value_heads", 3},
      {"head_dim", 5},
      {"head_dim", 0},
      {"rms_norm_eps", -1.0},
      {"tie_word_embeddings", 1},
      {"bos_token_id", 32},
  };
  for (const auto& [field, value] : invalid) {
    ExpectRefused(StatusWith(field, value), absl::StatusCode::kInvalidArgument, field);
  }
}

TEST(ModelConfigTest, MissingSizesAreInvalid) {
  for (const char* name : {"model_type", "vocab_size", "hidden_size", "intermediate_size",
                           "num_hidden_layers", "num_attention_heads", "max_position_embeddings"}) {
    json fields = SmallConfig();
    fields.erase(name);
    ExpectRefused(ParseModelConfig(fields.dump()).status(), absl::StatusCode::kInvalidArgument,
                  name);
  }
}

TEST(ModelConfigTest, TextThatIsNoObjectIsInvalid) {
  for (const char* text : {"", "{", "[]", "3", "{\"a\": 1}}", "\xff"}) {
    EXPECT_EQ(ParseModelConfig(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(RopeConfigTest, ThetaInTheObjectWins) {
  json fields = SmallConfig();
  fields["rope_theta"] = 5000.0;
  EXPECT_DOUBLE_EQ(ParseModelConfig(fields.dump())->ropes.at(0).theta, 5000.0);
  fields["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 7000.0}};
  EXPECT_DOUBLE_EQ(ParseModelConfig(fields.dump())->ropes.at(0).theta, 7000.0);
}

TEST(RopeConfigTest, OriginalContextDefaultsToTheModels) {
  const json yarn = {{"rope_type", "yarn"}, {"factor", 2.0}};
  EXPECT_EQ(ParseModelConfig(ConfigWith("rope_scaling", yarn))
                ->ropes.at(0)
                .original_max_position_embeddings,
            64);
  json fields = SmallConfig();
  fields["rope_scaling"] = yarn;
  fields["original_max_position_embeddings"] = 32;
  EXPECT_EQ(ParseModelConfig(fields.dump())->ropes.at(0).original_max_position_embeddings, 32);
}

TEST(RopeConfigTest, TypesAndKeysThatAreNotImplementedAreRefused) {
  const std::pair<const char*, json> refused[] = {
      {"rope_type", {{"rope_type", "longrope"}, {"factor", 2.0}}},
      {"type", {{"type", "su"}, {"factor", 2.0}}},
      {"beta_fast", {{"rope_type", "linear"}, {"factor", 2.0}, {"beta_fast", 8}}},
      {"factor", {{"rope_type", "default"}, {"factor", 2.0}}},
      {"partial_rotary_factor", {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}},
      {"mrope_section", {{"rope_type", "default"}, {"mrope_section", {1, 1}}}},
  };
  for (const auto& [field, value] : refused) {
    ExpectRefused(StatusWith("rope_scaling", value), absl::StatusCode::kFailedPrecondition, field);
    ExpectRefused(StatusWith("rope_parameters", value), absl::StatusCode::kFailedPrecondition,
                  field);
  }
}

TEST(RopeConfigTest, ValuesOutOfRangeAreInvalid) {
  const std::pair<const char*, json> invalid[] = {
      {"factor", {{"rope_type", "linear"}}},
      {"factor", {{"rope_type", "linear"}, {"factor", 0.5}}},
      {"factor", {{"rope_type", "dynamic"}, {"factor", "2"}}},
      {"rope_theta", {{"rope_type", "default"}, {"rope_theta", 0.0}}},
      {"low_freq_factor", {{"rope_type", "llama3"}, {"factor", 2.0}}},
      {"high_freq_factor",
       {{"rope_type", "llama3"}, {"factor", 2.0}, {"low_freq_factor", 4}, {"high_freq_factor", 1}}},
      {"beta_fast", {{"rope_type", "yarn"}, {"factor", 2.0}, {"beta_fast", 0.5}}},
  };
  for (const auto& [field, value] : invalid) {
    ExpectRefused(StatusWith("rope_scaling", value), absl::StatusCode::kInvalidArgument, field);
  }
}

TEST(RopeConfigTest, ContradictingObjectsAreInvalid) {
  json fields = SmallConfig();
  fields["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 2.0}};
  fields["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 2.0}};
  EXPECT_TRUE(ParseModelConfig(fields.dump()).ok());
  fields["rope_parameters"]["factor"] = 4.0;
  ExpectRefused(ParseModelConfig(fields.dump()).status(), absl::StatusCode::kInvalidArgument,
                "rope_scaling");
}

ModelConfig SharedConfig() {
  ModelConfig config;
  config.num_heads = 12;
  config.num_kv_heads = 4;
  config.intermediate_size = 70;
  config.vocab_size = 101;
  return config;
}

TEST(ConfigOfRankTest, RanksShareHeadsAndIntermediateFeatures) {
  int64_t intermediate = 0;
  for (int64_t rank = 0; rank < 4; ++rank) {
    const absl::StatusOr<ModelConfig> part = ConfigOfRank(SharedConfig(), rank, 4);
    ASSERT_TRUE(part.ok()) << part.status();
    EXPECT_EQ(part->num_heads, 3);
    EXPECT_EQ(part->num_kv_heads, 1);
    EXPECT_EQ(part->vocab_size, 101);
    EXPECT_GE(part->intermediate_size, 17);
    intermediate += part->intermediate_size;
  }
  EXPECT_EQ(intermediate, 70);
}

TEST(ConfigOfRankTest, MoreRanksThanKvHeadsShareThem) {
  const absl::StatusOr<ModelConfig> part = ConfigOfRank(SharedConfig(), 11, 12);
  ASSERT_TRUE(part.ok()) << part.status();
  EXPECT_EQ(part->num_heads, 1);
  EXPECT_EQ(part->num_kv_heads, 1);
}

TEST(ConfigOfRankTest, ErrorsNameTheFieldAndItsValue) {
  const auto error = [](int64_t num_ranks, const ModelConfig& config) {
    return std::string(ConfigOfRank(config, 0, num_ranks).status().message());
  };
  EXPECT_EQ(error(5, SharedConfig()),
            "tensor_parallel_size 5 does not divide the model's num_attention_heads, 12");
  EXPECT_EQ(error(6, SharedConfig()),
            "tensor_parallel_size 6 neither divides nor is a multiple of the model's "
            "num_key_value_heads, 4");
  EXPECT_EQ(error(0, SharedConfig()), "tensor_parallel_size is 0, must be positive");
  ModelConfig narrow = SharedConfig();
  narrow.intermediate_size = 3;
  EXPECT_EQ(error(4, narrow), "tensor_parallel_size 4 exceeds the model's intermediate_size, 3");
  ModelConfig few = SharedConfig();
  few.vocab_size = 2;
  EXPECT_EQ(error(4, few), "tensor_parallel_size 4 exceeds the model's vocab_size, 2");
}

}  // namespace
}  // namespace tenon
