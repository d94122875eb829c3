// Uploads that must be refused: what an attacker or a broken script sends. Each is refused with
// INVALID_ARGUMENT and a message that names the thing, the value or the limit.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "absl/time/clock.h"
#include "adapters/base/errors.h"
#include "adapters/formats/parse_adapter.h"
#include "tests/adapters/formats/adapter_fixture.h"

namespace tenon {
namespace {

using ::tenon::testing::AddLora;
using ::tenon::testing::Floats;
using ::tenon::testing::LittleEndian64;
using ::tenon::testing::LoraName;
using ::tenon::testing::MakeFileSet;
using ::tenon::testing::PeftConfig;
using ::tenon::testing::PeftFolder;
using ::tenon::testing::PeftWeights;
using ::tenon::testing::RawSafetensors;
using ::tenon::testing::SafetensorsBuilder;
using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

struct Hostile {
  const char* what;
  FileSet files;
  const char* message;
};

constexpr char kModule[] = "model.layers.0.self_attn.q_proj";

Hostile WithWeights(const char* what, const std::string& weights, const char* message) {
  return {what, PeftFolder(PeftConfig().dump(), weights), message};
}

Hostile WithConfigText(const char* what, const std::string& config, const char* message) {
  return {what, PeftFolder(config, PeftWeights().Build()), message};
}

Hostile WithField(const char* what, const char* field, const Json& value, const char* message) {
  Json config = PeftConfig();
  config[field] = value;
  return WithConfigText(what, config.dump(), message);
}

// One tensor beside the valid ones.
Hostile WithTensor(const char* what, const std::string& name, std::vector<int64_t> shape,
                   const char* message) {
  return WithWeights(what, PeftWeights().AddFilled(name, shape, 1).Build(), message);
}

// A and B of kModule alone, in any dtype and shape.
Hostile WithPair(const char* what, const char* dtype, const std::vector<int64_t>& a,
                 const std::string& a_data, const std::vector<int64_t>& b,
                 const std::string& b_data, const char* message) {
  return WithWeights(what,
                     SafetensorsBuilder()
                         .Add(LoraName(kModule, "A"), dtype, a, a_data)
                         .Add(LoraName(kModule, "B"), dtype, b, b_data)
                         .Build(),
                     message);
}

std::vector<Hostile> HostileFiles() {
  const std::string config = PeftConfig().dump(), weights = PeftWeights().Build();
  const auto with_file = [&](const std::string& name) {
    return MakeFileSet(
        {{"adapter_config.json", config}, {"adapter_model.safetensors", weights}, {name, "x"}});
  };
  return {
      {"nothing", {}, "\"adapter_config.json\" is missing"},
      {"no weights", MakeFileSet({{"adapter_config.json", config}}),
       "\"adapter_model.safetensors\" is missing"},
      {"no config", MakeFileSet({{"adapter_model.safetensors", weights}}),
       "\"adapter_config.json\" is missing"},
      {"pickle by name", with_file("adapter_model.bin"), "safe_serialization=True"},
      {"parent path", with_file("../adapter_model.safetensors"), "\"../adapter_model"},
      {"absolute path", with_file("/etc/passwd"), "\"/etc/passwd\" is not part"},
      {"NUL in name", with_file(std::string("README.md\0.sh", 13)), "README.md\\x00"},
      {"300-byte name", with_file(std::string(300, 'n')), "(300 bytes)"},
      {"unicode name", with_file("README\xe2\x80\xae.md"), "README\\xe2"},
      {"archive", with_file("adapter.tar.gz"), "\"adapter.tar.gz\" is not part"},
  };
}

std::vector<Hostile> HostileWeights() {
  const std::string valid = PeftWeights().Build();
  SafetensorsBuilder many;
  for (int i = 0; i < 20'001; ++i) {
    many.Add(absl::StrCat("t", i), "F32", {0}, "");
  }
  const std::string big_header = "{" + std::string((8 << 20) + 1, ' ') + "}";
  const std::string half(32, 'x');
  return {
      WithWeights("empty", "", "0 bytes is too short"),
      WithWeights("text", "<html>404</html>", "passes the end of the file"),
      WithWeights("zip inside", "PK\x03\x04" + std::string(64, 'x'), "is a zip archive"),
      WithWeights("pickle inside", "\x80\x04\x95" + std::string(64, 'x'), "is a pickle"),
      WithWeights("header of 100 MB declared", LittleEndian64(100 << 20) + "{}", "104857600"),
      WithWeights("header over the limit", RawSafetensors(big_header), "limit of 8388608"),
      WithWeights("too many tensors", many.Build(), "more than 20000 tensors"),
      WithWeights("cut in the data", valid.substr(0, valid.size() - 1), "outside the"),
      WithWeights("trailing bytes", valid + "x", "1 bytes after the last tensor"),
      WithWeights("no tensors", RawSafetensors("{}"), "holds no tensors of the adapter's method"),
      WithWeights("petabyte declared",
                  RawSafetensors(R"({"x":{"dtype":"F32","shape":[1000000000,1000000],)"
                                 R"("data_offsets":[0,4000000000000000]}})"),
                  "outside the 0 bytes"),
      WithPair("F64", "F64", {2, 8}, std::string(128, '\0'), {8, 2}, std::string(128, '\0'), "F64"),
      WithPair("I32", "I32", {2, 8}, std::string(64, '\0'), {8, 2}, std::string(64, '\0'), "I32"),
      WithPair("F8", "F8_E5M2", {2, 8}, std::string(16, '\0'), {8, 2}, std::string(16, '\0'),
               "dtype \"F8_E5M2\""),
      WithPair("1-d", "F32", {16}, Floats(std::vector<float>(16)), {8, 2},
               Floats(std::vector<float>(16)), "shape [16] instead of two"),
      WithPair("empty dimension", "F32", {2, 0}, "", {8, 2}, Floats(std::vector<float>(16)),
               "shape [2, 0]"),
      WithPair("rank 0 in shapes", "F32", {0, 8}, "", {8, 0}, "", "shape [0, 8]"),
      WithPair("ranks differ", "F32", {2, 8}, Floats(std::vector<float>(16)), {4, 4},
               Floats(std::vector<float>(16)), "has rank 4, but r and rank_pattern say 2"),
      WithPair("rank over limit", "F32", {300, 8}, Floats(std::vector<float>(2400)), {8, 300},
               Floats(std::vector<float>(2400)), "rank 300, which exceeds the limit of 256"),
      WithPair("NaN", "F32", {2, 8}, Floats(std::vector<float>(16, 1)), {8, 2},
               Floats(std::vector<float>(16, std::numeric_limits<float>::quiet_NaN())),
               "lora_B.weight\" holds NaN or Inf at element 0"),
      WithPair("-Inf in fp16", "F16", {2, 8}, half, {8, 2},
               half.substr(0, 30) + std::string("\x00\xfc", 2), "NaN or Inf at element 15"),
      WithPair("Inf in bf16", "BF16", {2, 8}, std::string("\x80\x7f", 2) + half.substr(0, 30),
               {8, 2}, half, "lora_A.weight\" holds NaN or Inf at element 0"),
      WithTensor("A alone", LoraName("model.layers.9.q_proj", "A"), {2, 8}, "no matching lora_B"),
      WithTensor("B alone", LoraName("model.layers.9.q_proj", "B"), {8, 2}, "no matching lora_A"),
      WithTensor("twice", "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
                 {2, 8}, "appears twice, with and without"),
      WithTensor("DoRA", "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
                 {8}, "although use_dora is not set"),
      WithTensor("embedding", "base_model.model.model.embed_tokens.lora_embedding_A", {2, 8},
                 "do not select"),
      WithTensor("LoRA bias", "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias", {8},
                 "lora_bias"),
      WithTensor("bias", "base_model.model.q_proj.bias", {8}, "bias of the base model"),
      WithTensor("base copy", "base_model.model.model.embed_tokens.base_layer.weight", {8, 8},
                 "copy of a base weight"),
      WithTensor("saved head", "base_model.model.lm_head.weight", {8, 8},
                 "modules_to_save does not name"),
      WithTensor("no prefix", "model.layers.0.self_attn.q_proj.lora_A.weight", {2, 8},
                 "does not begin with \"base_model.model.\""),
      WithTensor("odd characters", LoraName("model.q proj", "A"), {2, 8}, "letters, digits"),
      WithTensor("long module", LoraName(std::string(300, 'm') + ".q_proj", "A"), {2, 8},
                 "not 1 to 256"),
      WithWeights(
          "not a target",
          [] {
            SafetensorsBuilder builder = PeftWeights();
            return AddLora(builder, "model.layers.0.mlp.up_proj", 2).Build();
          }(),
          "\"model.layers.0.mlp.up_proj\", which target_modules"),
  };
}

std::vector<Hostile> HostileConfigs() {
  const Json big = Json::array({1.0, 2.0});
  return {
      WithConfigText("empty", "", "adapter_config.json: not valid JSON at byte"),
      WithConfigText("array", "[]", "not a JSON object"),
      WithConfigText("cut", "{\"r\":", "not valid JSON"),
      WithConfigText("NUL and more", std::string("{}\0{}", 5), "NUL byte at byte 2"),
      WithConfigText("bad UTF-8", "{\"r\":\"\xff\"}", "not valid JSON"),
      WithConfigText("key twice", R"({"r":1,"r":2})", "key \"r\" appears twice"),
      WithConfigText("deep", R"({"x":)" + std::string(100'000, '['), "nested deeper than 16"),
      WithConfigText("2 MiB", "{\"x\":\"" + std::string(2 << 20, 'x') + "\"}", "limit of 1048576"),
      WithConfigText("huge number", R"({"r":1e999})", "not valid JSON"),
      WithConfigText("no peft_type", R"({"r":1})", "has no peft_type and no config"),
      WithConfigText("AdapterHub", R"({"config":{},"version":"adapters.1.3.0"})",
                     "adapter.safetensors"),
      WithField("other method", "peft_type", "BOFT", "\"BOFT\" is not served"),
      WithField("peft_type list", "peft_type", Json::array(), "peft_type [] is not served"),
      WithField("long base name", "base_model_name_or_path", std::string(2000, 'b'),
                "at most 1024 bytes"),
      WithField("r zero", "r", 0, "r is 0, which is not a whole number from 1 on"),
      WithField("r negative", "r", -4, "r is -4"),
      WithField("r huge", "r", 1'000'000, "r 1000000 exceeds the limit of 256"),
      WithField("r 2^64-1", "r", ~uint64_t{0}, "r 18446744073709551615 exceeds"),
      WithField("r fraction", "r", 2.5, "r is 2.5"),
      WithField("r true", "r", true, "r is true"),
      WithField("r string", "r", "2", "r is \"2\""),
      WithField("r null", "r", nullptr, "r is null"),
      WithField("r differs from shapes", "r", 4, "has rank 2, but r and rank_pattern say 4"),
      WithField("alpha string", "lora_alpha", "4", "lora_alpha is \"4\""),
      WithField("alpha huge", "lora_alpha", 1e300, "lora_alpha is 1e+300"),
      WithField("rank_pattern list", "rank_pattern", big, "rank_pattern is [1.0,2.0]"),
      WithField("rank_pattern 0", "rank_pattern", {{"q_proj", 0}}, "rank_pattern[\"q_proj\"] is 0"),
      WithField("alpha_pattern", "alpha_pattern", {{"q_proj", "x"}}, "alpha_pattern[\"q_proj\"]"),
      WithField("no targets", "target_modules", nullptr, "target_modules is null"),
      WithField("empty targets", "target_modules", Json::array(), "target_modules is []"),
      WithField("number target", "target_modules", Json::array({1}), "target_modules is 1"),
      WithField("other targets", "target_modules", Json::array({"gate_proj"}), "do not select"),
      WithField("look-ahead", "target_modules", ".*(?!k)_proj", "look-around and back-references"),
      WithField("bad regex", "target_modules", "(((", "target_modules: pattern \"(((\""),
      WithField("regex bomb", "target_modules", "((a{999}){999})", "target_modules: pattern"),
      WithField("excluded", "exclude_modules", Json::array({"q_proj"}), "exclude_modules"),
      WithField("other layers", "layers_to_transform", Json::array({1}), "layers_to_transform"),
      WithField("layer string", "layers_to_transform", "1", "layers_to_transform is \"1\""),
      WithField("pattern alone", "layers_pattern", "layers", "without layers_to_transform"),
      WithField("bias", "bias", "ia3_only", "\"bias\" is \"ia3_only\", which is not supported"),
      WithField("DoRA", "use_dora", true, "no matching lora_magnitude_vector"),
      WithField("saved modules", "modules_to_save", Json::array({"lm_head"}), "\"lm_head\""),
      WithField("saved layer", "modules_to_save", Json::array({"q_proj"}), "[\"q_proj\"]"),
      WithField("LoRA bias", "lora_bias", true, "no matching lora_B.bias"),
      WithField("aLoRA", "alora_invocation_tokens", Json::array({1}), "alora_invocation_tokens"),
      WithField("replication", "layer_replication", big, "layer_replication"),
      WithField("parameters", "target_parameters", Json::array({"w"}), "target_parameters"),
      WithField("tokens", "trainable_token_indices", Json::array({1}), "trainable_tokens_delta"),
      WithField("megatron", "megatron_config", {{"a", 1}}, "megatron_config"),
      WithField("QALoRA", "use_qalora", true, "use_qalora"),
      WithField("PiSSA", "init_lora_weights", "pissa_niter_4", "changes the base weights"),
      WithField("OLoRA", "init_lora_weights", "OLoRA", "changes the base weights"),
      WithField("unknown init", "init_lora_weights", "x", "\"init_lora_weights\" is \"x\""),
      WithField("unknown field", "new_feature", 0.5, "\"new_feature\" is 0.5"),
      WithField("rslora string", "use_rslora", "yes", "use_rslora is \"yes\""),
  };
}

void ExpectRefused(const std::vector<Hostile>& corpus) {
  for (const Hostile& hostile : corpus) {
    const absl::Time start = absl::Now();
    const auto spec = ParseAdapter(hostile.files, AdapterLimits());
    EXPECT_LT(absl::Now() - start, absl::Milliseconds(500)) << hostile.what;
    EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << hostile.what;
    const std::string message(spec.status().message());
    EXPECT_THAT(message, HasSubstr(hostile.message)) << hostile.what;
    EXPECT_LT(message.size(), 1000u) << hostile.what;
    for (const char c : message) {
      ASSERT_TRUE(c >= ' ' && c <= '~') << hostile.what;
    }
    EXPECT_TRUE(GetErrorDetail(spec.status()).has_value()) << hostile.what;
  }
}

TEST(HostileAdaptersTest, TheUnchangedFolderParses) {
  const auto spec =
      ParseAdapter(PeftFolder(PeftConfig().dump(), PeftWeights().Build()), AdapterLimits());
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(std::get<LoraSpec>(spec->body).modules.size(), 4u);
  EXPECT_THAT(spec->warnings, ::testing::IsEmpty());
}

TEST(HostileAdaptersTest, FilesAreRefused) { ExpectRefused(HostileFiles()); }
TEST(HostileAdaptersTest, WeightsAreRefused) { ExpectRefused(HostileWeights()); }
TEST(HostileAdaptersTest, ConfigsAreRefused) { ExpectRefused(HostileConfigs()); }

TEST(HostileAdaptersTest, UploadLimitCountsAllFiles) {
  const FileSet files = PeftFolder(PeftConfig().dump(), PeftWeights().Build());
  AdapterLimits limits;
  limits.max_upload_bytes = 0;
  for (const auto& [name, file] : files) {
    limits.max_upload_bytes += static_cast<int64_t>(file.bytes.size());
  }
  EXPECT_TRUE(ParseAdapter(files, limits).ok());
  limits.max_upload_bytes -= 1;
  EXPECT_THAT(std::string(ParseAdapter(files, limits).status().message()),
              HasSubstr("(max_upload_bytes)"));
}

TEST(HostileAdaptersTest, CostlyPatternsAreRefusedBeforeTheyAreMatched) {
  Json config = PeftConfig();
  config["target_modules"] = "all-linear";
  for (int i = 0; i < 300; ++i) {
    config["alpha_pattern"][absl::StrCat("(.*a){50}", i)] = 1;
  }
  SafetensorsBuilder weights;
  for (int i = 0; i < 2000; ++i) {
    AddLora(weights, absl::StrCat(std::string(200, 'a'), i), 2);
  }
  const absl::Time start = absl::Now();
  const auto spec = ParseAdapter(PeftFolder(config.dump(), weights.Build()), AdapterLimits());
  EXPECT_THAT(std::string(spec.status().message()), HasSubstr("too costly to match"));
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
}

}  // namespace
}  // namespace tenon
