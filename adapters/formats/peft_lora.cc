#include "adapters/formats/peft_lora.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/finite.h"

namespace tenon {
namespace {

constexpr absl::string_view kPrefix = "base_model.model.";
constexpr size_t kMaxModuleBytes = 256;
constexpr size_t kMaxWarnings = 20;
// Instructions of all patterns times bytes of all module names: about a second at the very worst.
constexpr int64_t kMaxMatchingCost = 1'000'000'000;

absl::Status Refuse(absl::string_view reason, absl::string_view tensor, absl::string_view message) {
  return InvalidAdapterError(reason, tensor, absl::StrCat("tensor ", Quoted(tensor), " ", message));
}

struct Pair {
  std::string a_name, b_name;  // full tensor names
  const TensorView* a = nullptr;
  const TensorView* b = nullptr;
};
using Pairs = std::map<std::string, Pair, std::less<>>;  // by module

// Why a tensor that is no A or B of a linear layer is refused.
absl::string_view WhyNotServed(absl::string_view name) {
  if (absl::StrContains(name, "lora_magnitude_vector")) {
    return "is a DoRA magnitude, and DoRA is not served yet";
  }
  if (absl::StrContains(name, "lora_embedding_")) {
    return "is LoRA on an embedding, which is not served";
  }
  if (absl::EndsWith(name, "lora_B.bias") || absl::EndsWith(name, "lora_B.default.bias")) {
    return "is a LoRA bias (lora_bias), which is not served";
  }
  if (absl::StrContains(name, ".base_layer.")) {
    return "is a copy of a base weight; the base is frozen, so remove it";
  }
  if (absl::EndsWith(name, ".bias")) {
    return "is a bias of the base model, which is frozen";
  }
  if (!absl::StartsWith(name, kPrefix)) {
    return "does not begin with \"base_model.model.\" as PEFT's do";
  }
  return "is not a LoRA tensor (<module>.lora_A.weight or <module>.lora_B.weight)";
}

// The module of "<prefix><module>.lora_A.weight"; empty when the name has another form. PEFT's
// adapter name "default" may stand before ".weight": PEFT itself loads such files.
absl::string_view ModuleOf(absl::string_view name, absl::string_view matrix) {
  if (!absl::ConsumePrefix(&name, kPrefix) || !absl::ConsumeSuffix(&name, ".weight")) {
    return "";
  }
  absl::ConsumeSuffix(&name, ".default");
  if (!absl::ConsumeSuffix(&name, matrix) || !absl::ConsumeSuffix(&name, ".")) {
    return "";
  }
  return name;
}

bool IsModuleName(absl::string_view module) {
  return !module.empty() && module.size() <= kMaxModuleBytes &&
         std::all_of(module.begin(), module.end(), [](char c) {
           return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

absl::StatusOr<Pairs> PairTensors(const SafetensorsFile& file) {
  Pairs pairs;
  for (const auto& [name, view] : file.tensors) {
    absl::string_view module = ModuleOf(name, "lora_A");
    const bool is_a = !module.empty();
    if (!is_a) {
      module = ModuleOf(name, "lora_B");
    }
    if (module.empty()) {
      return Refuse("UNKNOWN_TENSOR", name, WhyNotServed(name));
    }
    if (!IsModuleName(module)) {
      return Refuse("UNKNOWN_TENSOR", name,
                    absl::StrCat("names a module that is not 1 to ", kMaxModuleBytes,
                                 " letters, digits, '.', '_' and '-'"));
    }
    Pair& pair = pairs[std::string(module)];
    if ((is_a ? pair.a : pair.b) != nullptr) {
      return Refuse("DUPLICATE_TENSOR", name, "appears twice, with and without \".default\"");
    }
    (is_a ? pair.a : pair.b) = &view;
    (is_a ? pair.a_name : pair.b_name) = name;
  }
  return pairs;
}

absl::Status CheckTensor(absl::string_view name, const TensorView& view) {
  if (view.dtype != DType::kF32 && view.dtype != DType::kF16 && view.dtype != DType::kBF16) {
    return Refuse(
        "UNSUPPORTED_DTYPE", name,
        absl::StrCat("has dtype ", DTypeName(view.dtype), "; F32, F16 and BF16 are supported"));
  }
  if (view.shape.size() != 2 || view.bytes.empty()) {
    return Refuse("INVALID_SHAPE", name,
                  absl::StrCat("has shape [", absl::StrJoin(view.shape, ", "),
                               "] instead of two dimensions from 1 on"));
  }
  return absl::OkStatus();
}

absl::Status CheckRank(absl::string_view name, int64_t rank, int64_t config_rank,
                       int64_t max_rank) {
  if (rank > max_rank) {
    return Refuse(
        "RANK_LIMIT", name,
        absl::StrCat("has rank ", rank, ", which exceeds the limit of ", max_rank, " (max_rank)"));
  }
  if (rank != config_rank) {
    return Refuse("INVALID_SHAPE", name,
                  absl::StrCat("has rank ", rank, ", but r and rank_pattern say ", config_rank));
  }
  return absl::OkStatus();
}

absl::Status CheckFinite(absl::string_view name, const TensorView& view) {
  const std::optional<int64_t> index = FindNonFinite(view);
  if (!index.has_value()) {
    return absl::OkStatus();
  }
  return Refuse("NOT_FINITE", name, absl::StrCat("holds NaN or Inf at element ", *index));
}

absl::StatusOr<LoraModule> BuildModule(const PeftLoraConfig& config, const std::string& module,
                                       const Pair& pair, const AdapterLimits& limits) {
  if (pair.a == nullptr || pair.b == nullptr) {
    return Refuse("UNPAIRED_TENSOR", pair.a == nullptr ? pair.b_name : pair.a_name,
                  absl::StrCat("has no matching ", pair.a == nullptr ? "lora_A" : "lora_B"));
  }
  if (!config.targets.Matches(module)) {
    return Refuse("UNEXPECTED_TENSOR", pair.a_name,
                  absl::StrCat("belongs to module ", Quoted(module),
                               ", which target_modules, exclude_modules and layers_to_transform "
                               "do not select"));
  }
  TENON_RETURN_IF_ERROR(CheckTensor(pair.a_name, *pair.a));
  TENON_RETURN_IF_ERROR(CheckTensor(pair.b_name, *pair.b));
  const int64_t rank = config.RankOf(module);
  TENON_RETURN_IF_ERROR(CheckRank(pair.a_name, pair.a->shape[0], rank, limits.max_rank));
  TENON_RETURN_IF_ERROR(CheckRank(pair.b_name, pair.b->shape[1], rank, limits.max_rank));
  TENON_RETURN_IF_ERROR(CheckFinite(pair.a_name, *pair.a));
  TENON_RETURN_IF_ERROR(CheckFinite(pair.b_name, *pair.b));
  LoraModule lora;
  lora.module = module;
  lora.a = *pair.a;
  lora.b = *pair.b;
  lora.scaling = config.ScalingOf(module);
  return lora;
}

absl::Status CheckMatchingCost(const PeftLoraConfig& config, const Pairs& pairs) {
  int64_t name_bytes = 0;
  for (const auto& [module, pair] : pairs) {
    name_bytes += static_cast<int64_t>(module.size());
  }
  const int64_t cost = config.targets.cost() + 2 * config.ranks.cost() + config.alphas.cost();
  if (cost * name_bytes > kMaxMatchingCost) {
    return InvalidAdapterError(
        "UNSUPPORTED_PATTERN", "target_modules",
        absl::StrCat("adapter_config.json: its patterns (", cost,
                     " instructions) are too costly to match against ", pairs.size(), " modules"));
  }
  return absl::OkStatus();
}

void WarnOfUnusedTargets(const PeftLoraConfig& config, const LoraSpec& spec,
                         std::vector<std::string>* warnings) {
  absl::flat_hash_set<absl::string_view> endings;  // every module path, and what follows each dot
  for (const LoraModule& lora : spec.modules) {
    absl::string_view rest = lora.module;
    endings.insert(rest);
    for (size_t dot = rest.find('.'); dot != absl::string_view::npos; dot = rest.find('.')) {
      rest.remove_prefix(dot + 1);
      endings.insert(rest);
    }
  }
  for (const std::string& target : config.targets.names.suffixes()) {
    if (!endings.contains(target) && warnings->size() < kMaxWarnings) {
      warnings->push_back(
          absl::StrCat("target_modules entry ", Quoted(target), " has no tensors in the file"));
    }
  }
}

}  // namespace

absl::StatusOr<LoraSpec> BuildLoraSpec(const PeftLoraConfig& config, const SafetensorsFile& file,
                                       const AdapterLimits& limits,
                                       std::vector<std::string>* warnings) {
  TENON_ASSIGN_OR_RETURN(const Pairs pairs, PairTensors(file));
  if (pairs.empty()) {
    return InvalidAdapterError("NO_TENSORS", "adapter_model.safetensors",
                               "adapter_model.safetensors: holds no tensors");
  }
  TENON_RETURN_IF_ERROR(CheckMatchingCost(config, pairs));
  LoraSpec spec;
  spec.modules.reserve(pairs.size());
  for (const auto& [module, pair] : pairs) {
    TENON_ASSIGN_OR_RETURN(LoraModule lora, BuildModule(config, module, pair, limits));
    spec.modules.push_back(std::move(lora));
  }
  WarnOfUnusedTargets(config, spec, warnings);
  return spec;
}

}  // namespace tenon
