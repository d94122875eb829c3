#include "client/tenonctl/request_flags.h"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace tenon {
namespace {

// Collects the first error of many conversions, so that each flag is one line.
class Setter {
 public:
  explicit Setter(const Arguments& arguments) : arguments_(arguments) {}

  template <typename Set>
  void Float(absl::string_view name, Set set) {
    Apply(arguments_.GetFloat(name), set);
  }
  template <typename Set>
  void Int(absl::string_view name, Set set) {
    Apply(arguments_.GetInt(name), set);
  }
  template <typename Set>
  void Uint64(absl::string_view name, Set set) {
    Apply(arguments_.GetUint64(name), set);
  }
  void Fail(absl::Status status) { status_.Update(std::move(status)); }
  const absl::Status& status() const { return status_; }

 private:
  template <typename T, typename Set>
  void Apply(const absl::StatusOr<std::optional<T>>& value, Set set) {
    if (!value.ok()) {
      Fail(value.status());
    } else if (value->has_value()) {
      set(**value);
    }
  }

  const Arguments& arguments_;
  absl::Status status_;
};

// One adapter without a weight goes into `adapter`, which every server knows.
void SetAdapters(const Arguments& arguments, Setter& setter, v1::GenerateRequest& request) {
  const std::vector<std::string> adapters = arguments.GetTexts("adapter");
  if (adapters.size() == 1 && !absl::StrContains(adapters[0], '=')) {
    request.set_adapter(adapters[0]);
    return;
  }
  for (const std::string& adapter : adapters) {
    const std::vector<std::string> parts = absl::StrSplit(adapter, absl::MaxSplits('=', 1));
    v1::AdapterWeight& wanted = *request.add_adapters();
    wanted.set_adapter(parts[0]);
    float weight = 0;
    if (parts.size() == 2 && !absl::SimpleAtof(parts[1], &weight)) {
      setter.Fail(absl::InvalidArgumentError(
          absl::StrCat("--adapter: '", parts[1], "' in '", adapter, "' is not a weight")));
    } else if (parts.size() == 2) {
      wanted.set_weight(weight);
    }
  }
}

void SetSampling(const Arguments& arguments, Setter& setter, v1::SamplingOptions& sampling) {
  setter.Float("temperature", [&](float v) { sampling.set_temperature(v); });
  setter.Int("top-k", [&](int32_t v) { sampling.set_top_k(v); });
  setter.Float("top-p", [&](float v) { sampling.set_top_p(v); });
  setter.Float("min-p", [&](float v) { sampling.set_min_p(v); });
  setter.Float("repetition-penalty", [&](float v) { sampling.set_repetition_penalty(v); });
  setter.Float("presence-penalty", [&](float v) { sampling.set_presence_penalty(v); });
  setter.Float("frequency-penalty", [&](float v) { sampling.set_frequency_penalty(v); });
  setter.Uint64("seed", [&](uint64_t v) { sampling.set_seed(v); });
  setter.Int("n", [&](int32_t v) { sampling.set_n(v); });
  for (const std::string& bias : arguments.GetTexts("logit-bias")) {
    const std::vector<std::string> parts = absl::StrSplit(bias, absl::MaxSplits(':', 1));
    int32_t id = 0;
    float value = 0;
    if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &id) ||
        !absl::SimpleAtof(parts[1], &value)) {
      setter.Fail(absl::InvalidArgumentError(
          absl::StrCat("--logit-bias: '", bias, "' is not ID:VALUE, for example 42:-100")));
      continue;
    }
    (*sampling.mutable_logit_bias())[id] = value;
  }
}

void SetStopping(const Arguments& arguments, Setter& setter, v1::StoppingOptions& stopping) {
  setter.Int("max-tokens", [&](int32_t v) { stopping.set_max_tokens(v); });
  setter.Int("min-tokens", [&](int32_t v) { stopping.set_min_tokens(v); });
  for (const std::string& stop : arguments.GetTexts("stop")) {
    stopping.add_stop(stop);
  }
  for (const std::string& token : arguments.GetTexts("stop-token-id")) {
    int32_t id = 0;
    if (!absl::SimpleAtoi(token, &id)) {
      setter.Fail(absl::InvalidArgumentError(
          absl::StrCat("--stop-token-id: '", token, "' is not a whole number")));
    }
    stopping.add_stop_token_ids(id);
  }
  stopping.set_ignore_eos(arguments.GetSwitch("ignore-eos"));
  stopping.set_include_stop(arguments.GetSwitch("include-stop"));
}

}  // namespace

std::span<const FlagSpec> RequestFlags() {
  static const auto& flags = *new std::vector<FlagSpec>{
      {"adapter", "NAME[@VERSION][=WEIGHT]",
       "adapter to use, may be repeated; without it the base model answers"},
      {"max-tokens", "N", "tokens of the answer at most"},
      {"min-tokens", "N", "stop strings and stop tokens count only after this many"},
      {"temperature", "X", "0 is greedy"},
      {"top-k", "N", "keep the N most probable tokens"},
      {"top-p", "X", "keep the smallest set of tokens of this probability"},
      {"min-p", "X", "keep tokens this probable relative to the best"},
      {"repetition-penalty", "X", "over 1 discourages tokens seen before"},
      {"presence-penalty", "X", "subtracted once for a token in the answer"},
      {"frequency-penalty", "X", "subtracted for each time a token is in the answer"},
      {"logit-bias", "ID:X", "added to a token's logit; may be repeated"},
      {"seed", "N", "same seed, same answer"},
      {"stop", "TEXT", "the answer ends before this text; may be repeated"},
      {"stop-token-id", "ID", "the answer ends at this token; may be repeated"},
      {"ignore-eos", "", "the model's own end tokens do not end the answer"},
      {"include-stop", "", "include the stop text in the answer"},
      {"request-id", "ID", "name of the request in the server's log"},
      {"priority", "N", "-2 to 2, among your tenant's requests"},
      {"deterministic", "", "same seed, same bits, whatever else is served"},
  };
  return flags;
}

std::span<const FlagSpec> OutputFlags() {
  static const auto& flags = *new std::vector<FlagSpec>{
      {"n", "N", "samples of one prompt"},
      {"logprobs", "N", "report each token's log-probability and the N best (with --json)"},
      {"prompt-logprobs", "N", "the same for the prompt (with --json)"},
      {"token-ids", "", "report token ids (with --json)"},
  };
  return flags;
}

absl::StatusOr<v1::GenerateRequest> RequestFromFlags(const Arguments& arguments) {
  v1::GenerateRequest request;
  request.set_request_id(arguments.GetText("request-id", ""));
  Setter setter(arguments);
  SetAdapters(arguments, setter, request);
  SetSampling(arguments, setter, *request.mutable_sampling());
  SetStopping(arguments, setter, *request.mutable_stopping());
  v1::OutputOptions& output = *request.mutable_output();
  setter.Int("logprobs", [&](int32_t v) { output.set_logprobs(v); });
  setter.Int("prompt-logprobs", [&](int32_t v) { output.set_prompt_logprobs(v); });
  output.set_token_ids(arguments.GetSwitch("token-ids"));
  setter.Int("priority", [&](int32_t v) { request.set_priority(v); });
  request.set_deterministic(arguments.GetSwitch("deterministic"));
  if (!setter.status().ok()) {
    return setter.status();
  }
  return request;
}

}  // namespace tenon
