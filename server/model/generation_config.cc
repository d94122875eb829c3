#include "server/model/generation_config.h"

#include <limits>

#include "adapters/base/status_macros.h"
#include "server/model/json_fields.h"

namespace tenon {
namespace {

constexpr double kMaxTemperature = 100.0;
constexpr double kMaxPenalty = 100.0;
constexpr double kPositive = std::numeric_limits<float>::min();

// Fields that say nothing about which tokens are chosen.
constexpr absl::string_view kNeutralFields[] = {
    "transformers_version", "_from_model_config",      "use_cache",
    "max_length",           "output_attentions",       "output_hidden_states",
    "output_scores",        "return_dict_in_generate", "cache_implementation"};

std::optional<float> ToFloat(std::optional<double> value) {
  return value.has_value() ? std::optional<float>(static_cast<float>(*value)) : std::nullopt;
}

absl::StatusOr<std::optional<int32_t>> TokenId(JsonFields& fields, absl::string_view name,
                                               int64_t vocab_size) {
  TENON_ASSIGN_OR_RETURN(const std::optional<int64_t> id,
                         fields.OptionalInt(name, -1, vocab_size - 1));
  if (!id.has_value() || *id < 0) {
    return std::nullopt;
  }
  return static_cast<int32_t>(*id);
}

absl::Status ReadSampling(JsonFields& fields, GenerationConfig& config) {
  TENON_ASSIGN_OR_RETURN(const std::optional<double> temperature,
                         fields.OptionalNumber("temperature", 0, kMaxTemperature));
  TENON_ASSIGN_OR_RETURN(const std::optional<double> top_p,
                         fields.OptionalNumber("top_p", kPositive, 1));
  TENON_ASSIGN_OR_RETURN(const std::optional<double> min_p, fields.OptionalNumber("min_p", 0, 1));
  TENON_ASSIGN_OR_RETURN(const std::optional<int64_t> top_k,
                         fields.OptionalInt("top_k", 0, std::numeric_limits<int32_t>::max()));
  TENON_ASSIGN_OR_RETURN(const std::optional<double> penalty,
                         fields.OptionalNumber("repetition_penalty", kPositive, kMaxPenalty));
  config.temperature = ToFloat(temperature);
  config.top_p = ToFloat(top_p);
  config.min_p = ToFloat(min_p);
  config.repetition_penalty = ToFloat(penalty);
  if (top_k.has_value()) {
    config.top_k = static_cast<int32_t>(*top_k);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GenerationConfig> ParseGenerationConfig(absl::string_view json_text,
                                                       int64_t vocab_size) {
  TENON_ASSIGN_OR_RETURN(const nlohmann::json object,
                         ParseJsonObject("generation_config.json", json_text));
  JsonFields fields("generation_config.json", &object);
  GenerationConfig config;
  TENON_ASSIGN_OR_RETURN(config.eos_token_ids,
                         fields.IntOrList("eos_token_id", 0, static_cast<int32_t>(vocab_size - 1)));
  TENON_ASSIGN_OR_RETURN(config.bos_token_id, TokenId(fields, "bos_token_id", vocab_size));
  TENON_ASSIGN_OR_RETURN(config.pad_token_id, TokenId(fields, "pad_token_id", vocab_size));
  if (fields.Find("do_sample") != nullptr) {
    TENON_ASSIGN_OR_RETURN(config.do_sample, fields.Bool("do_sample", false));
  }
  TENON_RETURN_IF_ERROR(ReadSampling(fields, config));
  for (const absl::string_view name : kNeutralFields) {
    fields.Find(name);
  }
  config.ignored_fields = fields.unread();
  return config;
}

}  // namespace tenon
