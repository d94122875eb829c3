#include "tests/adapters/formats/hostile_corpus.h"

#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/adapters/formats/adapter_fixture.h"
#include "tests/adapters/formats/method_folders.h"

namespace tenon::testing {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kModule[] = "model.layers.0.self_attn.q_proj";

HostileFolder WithWeights(const char* what, const std::string& weights, const char* message) {
  return {what, PeftFolder(PeftConfig().dump(), weights), message};
}

HostileFolder WithConfigText(const char* what, const std::string& config, const char* message) {
  return {what, PeftFolder(config, PeftWeights().Build()), message};
}

HostileFolder WithField(const char* what, const char* field, const Json& value,
                        const char* message) {
  Json config = PeftConfig();
  config[field] = value;
  return WithConfigText(what, config.dump(), message);
}

// One tensor beside the valid ones.
HostileFolder WithTensor(const char* what, const std::string& name, std::vector<int64_t> shape,
                         const char* message) {
  return WithWeights(what, PeftWeights().AddFilled(name, shape, 1).Build(), message);
}

// A and B of kModule alone, in any dtype and shape.
HostileFolder WithPair(const char* what, const char* dtype, const std::vector<int64_t>& a,
                       const std::string& a_data, const std::vector<int64_t>& b,
                       const std::string& b_data, const char* message) {
  return WithWeights(what,
                     SafetensorsBuilder()
                         .Add(LoraName(kModule, "A"), dtype, a, a_data)
                         .Add(LoraName(kModule, "B"), dtype, b, b_data)
                         .Build(),
                     message);
}

// A valid folder of another method with one field of its configuration changed; of AdapterHub's in
// the inner object, unless `field` begins with a slash.
HostileFolder WithSetting(const char* what, MethodFolder folder, absl::string_view field,
                          const Json& value, const char* message) {
  const bool is_inner = folder.config.contains("config") && field[0] != '/';
  Json& config = is_inner ? folder.config["config"] : folder.config;
  config[std::string(field.substr(field[0] == '/' ? 1 : 0))] = value;
  return {what, folder.Build(), message};
}

// A valid folder of another method with one tensor more.
HostileFolder WithExtra(const char* what, MethodFolder folder, const std::string& name,
                        const std::vector<int64_t>& shape, const char* message) {
  folder.weights.AddFilled(name, shape, 1);
  return {what, folder.Build(), message};
}

// A valid folder of another method whose tensors are these instead.
HostileFolder WithTensors(const char* what, MethodFolder folder, const SafetensorsBuilder& weights,
                          const char* message) {
  folder.weights = weights;
  return {what, folder.Build(), message};
}

}  // namespace

std::vector<HostileFolder> HostileFiles() {
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

std::vector<HostileFolder> HostilePeftWeights() {
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
      WithTensor("saved head, flat", "base_model.model.lm_head.weight", {64}, "shape [64]"),
      WithTensor("saved layer", "base_model.model.model.layers.0.self_attn.q_proj.weight", {8, 8},
                 "is not known for this method"),
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

std::vector<HostileFolder> HostileLoraConfigs() {
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

std::vector<HostileFolder> HostilePeftMethods() {
  const auto virtual_tokens = [](const char* peft_type) { return VirtualTokensFolder(peft_type); };
  const auto prompt = [](const std::vector<int64_t>& shape) {
    return SafetensorsBuilder().AddFilled("prompt_embeddings", shape, 1);
  };
  SafetensorsBuilder not_finite;
  not_finite.Add("prompt_embeddings", "F32", {3, 8},
                 Floats(std::vector<float>(24, std::numeric_limits<float>::infinity())));
  return {
      WithSetting("no virtual tokens", virtual_tokens("PROMPT_TUNING"), "num_virtual_tokens", 0,
                  "num_virtual_tokens is 0"),
      WithSetting("many virtual tokens", virtual_tokens("PROMPT_TUNING"), "num_virtual_tokens",
                  1'000'000, "exceeds the limit of 1024 (max_virtual_tokens)"),
      WithSetting("virtual tokens not in the file", virtual_tokens("P_TUNING"),
                  "num_virtual_tokens", 4, "shape [3, 8]"),
      WithSetting("encoder-decoder", virtual_tokens("PROMPT_TUNING"), "num_transformer_submodules",
                  2, "num_transformer_submodules"),
      WithSetting("token_dim 2^63", virtual_tokens("PREFIX_TUNING"), "token_dim", uint64_t{1} << 63,
                  "token_dim 9223372036854775808 exceeds"),
      WithSetting("prefix layers", virtual_tokens("PREFIX_TUNING"), "num_layers", 3,
                  "shape [3, 16]"),
      WithTensors("flat prompt", virtual_tokens("PROMPT_TUNING"), prompt({24}), "shape [24]"),
      WithTensors("prompt of Inf", virtual_tokens("PROMPT_TUNING"), not_finite, "NaN or Inf"),
      WithTensors("no prompt", virtual_tokens("PREFIX_TUNING"), SafetensorsBuilder(),
                  "prompt_embeddings\" is missing"),
      WithExtra("prompt and more", virtual_tokens("P_TUNING"), "prompt_encoder.weight", {8, 8},
                "is not prompt_embeddings"),
      WithExtra("prompt and LoRA", virtual_tokens("PROMPT_TUNING"), LoraName(kModule, "A"), {2, 8},
                "is not prompt_embeddings"),
      WithSetting("IA3 feed-forward elsewhere", Ia3Folder(), "feedforward_modules",
                  Json::array({"q_proj"}), "shape [1, 12]"),
      WithExtra("IA3 flat", Ia3Folder(), ModuleTensor("model.layers.1.self_attn.q_proj", "ia3_l"),
                {8}, "shape [8]"),
      WithSetting("VeRA without projections", VeraFolder(), "save_projection", false,
                  "save_projection=True"),
      WithSetting("VeRA rank", VeraFolder(), "r", 4, "shape"),
      WithSetting("VeRA rank over the limit", VeraFolder(), "r", 257, "exceeds the limit of 256"),
      WithSetting("LoHa rank", LohaFolder(), "r", 3, "rank"),
      WithSetting("LoHa Tucker", LohaFolder(), "use_tucker", true, "use_tucker"),
      WithExtra("LoHa core", LohaFolder(), ModuleTensor(kQ, "hada_t1"), {1, 1, 1, 1}, "hada_t1"),
      WithSetting("LoKr rank", LokrFolder(), "r", 3, "rank"),
      WithExtra("LoKr both", LokrFolder(), ModuleTensor(kQ, "lokr_w1_a"), {2, 2}, "lokr_w1"),
      WithSetting("no token rows", TokensFolder(), "token_indices", Json::array(),
                  "token_indices is []"),
      WithSetting("negative token", TokensFolder(), "token_indices", Json::array({-1, 3}),
                  "token_indices"),
      WithSetting("token 2^31", TokensFolder(), "token_indices", Json::array({3, int64_t{1} << 31}),
                  "token_indices"),
      WithSetting("token rows missing", TokensFolder(), "token_indices", Json::array({1, 2, 3}),
                  "3"),
      WithSetting("DoRA of another size", DoraFolder(), "r", 3, "rank"),
      WithSetting("RandLoRA", Ia3Folder(), "peft_type", "RANDLORA", "\"RANDLORA\" is not served"),
  };
}

std::vector<HostileFolder> HostileAdapterHub() {
  const MethodFolder valid = BottleneckFolder();
  const std::string config = valid.config.dump();
  const std::string in_layer = "model.layers.0.output_adapters.adapters.";
  const auto pickle = [&](const char* name) {
    return MakeFileSet({{"adapter_config.json", config}, {name, "\x80\x04\x95"}});
  };
  const auto with_file = [&](const char* name, const std::string& content) {
    return MakeFileSet({{"adapter_config.json", config},
                        {"adapter.safetensors", valid.weights.Build()},
                        {name, content}});
  };
  const std::string other_head =
      SafetensorsBuilder().AddFilled("classifier.weight", {2, 8}, 1).Build();
  const std::string other_places = R"({"interface":{"layer_self_attn":"attn"}})";
  return {
      {"pickle", pickle("pytorch_adapter.bin"), "is a pickle"},
      {"pickled head", with_file("pytorch_model_head.bin", "x"), "is a pickle"},
      {"weights under PEFT's name",
       MakeFileSet(
           {{"adapter_config.json", config}, {"adapter_model.safetensors", valid.weights.Build()}}),
       "\"adapter.safetensors\" is missing"},
      {"another head", with_file("model_head.safetensors", other_head), "lm_head.weight"},
      {"cut head", with_file("model_head.safetensors", other_head.substr(0, 40)), "end of the"},
      {"other places", with_file("adapter_interface.json", other_places), "layer_self_attn"},
      {"interface of no object", with_file("adapter_interface.json", "[]"), "JSON object"},
      WithSetting("another library", valid, "/version", "adapters-2.0", "version"),
      WithSetting("no version", valid, "/version", nullptr, "\"version\" is null"),
      WithSetting("unknown field", valid, "/prefix", 1, "\"prefix\" is 1"),
      WithSetting("no hidden size", valid, "/hidden_size", nullptr, "hidden_size is null"),
      WithSetting("hidden size 2^40", valid, "/hidden_size", int64_t{1} << 40, "hidden_size"),
      WithSetting("long base name", valid, "/model_name", std::string(2000, 'b'),
                  "at most 1024 bytes"),
      WithSetting("prefix tuning", valid, "architecture", "prefix_tuning", "as pickle only"),
      WithSetting("union", valid, "architecture", "union", "architecture"),
      WithSetting("gating", valid, "use_gating", true, "use_gating"),
      WithSetting("invertible", valid, "inv_adapter", "nice", "inv_adapter"),
      WithSetting("cross attention", valid, "cross_adapter", true, "cross_adapter"),
      WithSetting("Compacter", valid, "phm_layer", true, "phm_layer"),
      WithSetting("nonlinearity", valid, "non_linearity", "mish", "non_linearity"),
      WithSetting("nonlinearity list", valid, "non_linearity", Json::array({"relu"}),
                  "non_linearity"),
      WithSetting("factor 0", valid, "reduction_factor", 0, "reduction_factor"),
      WithSetting("factor negative", valid, "reduction_factor", -16, "reduction_factor"),
      WithSetting("factor tiny", valid, "reduction_factor", 1e-5, "max_bottleneck_width"),
      WithSetting("factor of shapes", valid, "reduction_factor", 8, "shape"),
      WithSetting("factor text", valid, "reduction_factor", "16", "reduction_factor"),
      WithSetting("factor missing", valid, "reduction_factor", Json::object(), "reduction_factor"),
      WithSetting("scaling text", valid, "scaling", "big", "scaling"),
      WithSetting("scaling huge", valid, "scaling", 1e300, "scaling"),
      WithSetting("scaling not in the file", valid, "scaling", "learned", "shape [8]"),
      WithSetting("layer left out", valid, "leave_out", Json::array({0}), "leave_out"),
      WithSetting("leave_out text", valid, "leave_out", "0", "leave_out"),
      WithSetting("not after attention", valid, "mh_adapter", false, "mh_adapter"),
      WithSetting("flag text", valid, "is_parallel", "yes", "is_parallel"),
      WithSetting("norm missing", valid, "ln_before", false, "adapter_down"),
      WithExtra("second adapter", valid, in_layer + "u.adapter_up.bias", {8}, "a second adapter"),
      WithExtra("gate", valid, in_layer + "t.gate.weight", {1, 8}, "no part of a bottleneck"),
      WithExtra("path", valid, "../layers.0.output_adapters.adapters.t.scaling", {8},
                "is not <layer>"),
      WithExtra("no layer number", valid, "model.layers.output_adapters.adapters.t.scaling", {8},
                "is not <layer>"),
      WithExtra("LoRA beside", valid, "model.layers.0.q_proj.loras.t.lora_A", {2, 8},
                "is not <layer>"),
      WithTensors("no tensors", valid, SafetensorsBuilder(), "holds no tensors"),
      WithTensors("half a module", valid,
                  SafetensorsBuilder().AddFilled(in_layer + "t.adapter_up.weight", {8, 2}, 1),
                  "is missing in a bottleneck module"),
      WithSetting("LoRA gating", AdapterHubLoraFolder("add"), "use_gating", true, "use_gating"),
      WithSetting("LoRA DoRA", AdapterHubLoraFolder("add"), "use_dora", true, "use_dora"),
      WithSetting("LoRA VeRA", AdapterHubLoraFolder("add"), "vera_d", 0.1, "vera_d"),
      WithSetting("LoRA rank 0", AdapterHubLoraFolder("add"), "r", 0, "r is 0"),
      WithSetting("LoRA rank huge", AdapterHubLoraFolder("add"), "r", 1'000'000,
                  "exceeds the limit of 256"),
      WithSetting("LoRA rank of shapes", AdapterHubLoraFolder("add"), "r", 4, "rank"),
      WithSetting("LoRA parts", AdapterHubLoraFolder("add"), "attn_matrices", Json::array(),
                  "has rank 4"),
      WithSetting("LoRA composition", AdapterHubLoraFolder("add"), "composition_mode", "concat",
                  "composition_mode"),
      WithSetting("IA3 with A", AdapterHubLoraFolder("add"), "composition_mode", "scale", "lora_A"),
  };
}

std::vector<HostileFolder> HostileFolders() {
  std::vector<HostileFolder> all;
  for (auto* list : {HostileFiles, HostilePeftWeights, HostileLoraConfigs, HostilePeftMethods,
                     HostileAdapterHub}) {
    for (HostileFolder& folder : list()) {
      all.push_back(std::move(folder));
    }
  }
  return all;
}

}  // namespace tenon::testing
