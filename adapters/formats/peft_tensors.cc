#include "adapters/formats/peft_tensors.h"

#include <algorithm>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

constexpr absl::string_view kPrefix = "base_model.model.";
constexpr absl::string_view kAdapterName = ".default";
constexpr size_t kMaxWarnings = 20;
// Instructions of all patterns times bytes of all module names: about a second at the very worst.
constexpr int64_t kMaxMatchingCost = 1'000'000'000;

// `path` without the component "default" at its end or before its last component.
std::string WithoutAdapterName(absl::string_view path) {
  if (absl::ConsumeSuffix(&path, kAdapterName)) {
    return std::string(path);
  }
  const size_t dot = path.rfind('.');
  if (dot != absl::string_view::npos && absl::EndsWith(path.substr(0, dot), kAdapterName)) {
    return absl::StrCat(path.substr(0, dot - kAdapterName.size()), path.substr(dot));
  }
  return std::string(path);
}

// The leaf that `path` ends in after a dot; empty when there is none.
absl::string_view LeafOf(absl::string_view path, std::span<const absl::string_view> leaves) {
  for (absl::string_view leaf : leaves) {
    if (path.size() > leaf.size() && absl::EndsWith(path, leaf) &&
        path[path.size() - leaf.size() - 1] == '.') {
      return leaf;
    }
  }
  return "";
}

absl::Status AddTensor(const NamedTensor& tensor, const std::string& path,
                       std::span<const absl::string_view> leaves, PeftTensors* tensors) {
  bool inserted = false;
  if (const absl::string_view leaf = LeafOf(path, leaves); leaf.empty()) {
    inserted = tensors->rest.emplace(path, tensor).second;
  } else {
    const absl::string_view module =
        absl::string_view(path).substr(0, path.size() - leaf.size() - 1);
    if (!IsModuleName(module)) {
      return RefuseTensor("UNKNOWN_TENSOR", tensor.name,
                          "names a module that is not 1 to 256 letters, digits, '.', '_' and '-'");
    }
    inserted = tensors->modules[std::string(module)].emplace(leaf, tensor).second;
  }
  return inserted ? absl::OkStatus()
                  : RefuseTensor("DUPLICATE_TENSOR", tensor.name,
                                 "appears twice, with and without \".default\"");
}

void WarnOfUnusedTargets(const PeftTensors& tensors, PeftConfig* config) {
  absl::flat_hash_set<absl::string_view> endings;  // every module path, and what follows each dot
  for (const auto& [module, group] : tensors.modules) {
    absl::string_view rest = module;
    endings.insert(rest);
    for (size_t dot = rest.find('.'); dot != absl::string_view::npos; dot = rest.find('.')) {
      rest.remove_prefix(dot + 1);
      endings.insert(rest);
    }
  }
  for (const std::string& target : config->targets.names.suffixes()) {
    if (!endings.contains(target) && config->warnings.size() < kMaxWarnings) {
      config->warnings.push_back(
          absl::StrCat("target_modules entry ", Quoted(target), " has no tensors in the file"));
    }
  }
}

// With ensure_weight_tying PEFT gives the head a copy of the embedding's adapter.
bool IsTiedHead(const PeftConfig& config, absl::string_view module) {
  return config.ensure_weight_tying && IsHeadModule(module);
}

}  // namespace

absl::StatusOr<PeftTensors> GroupPeftTensors(const SafetensorsFile& file,
                                             std::span<const absl::string_view> leaves,
                                             std::span<const absl::string_view> skipped) {
  PeftTensors tensors;
  for (const auto& [name, view] : file.tensors) {
    if (std::find(skipped.begin(), skipped.end(), name) != skipped.end()) {
      continue;
    }
    absl::string_view path = name;
    if (!absl::ConsumePrefix(&path, kPrefix)) {
      return RefuseTensor("UNKNOWN_TENSOR", name,
                          "does not begin with \"base_model.model.\" as PEFT's do");
    }
    TENON_RETURN_IF_ERROR(AddTensor({name, view}, WithoutAdapterName(path), leaves, &tensors));
  }
  return tensors;
}

absl::StatusOr<NamedTensor> GetTensor(const TensorGroup& group, absl::string_view leaf) {
  if (const auto found = group.find(leaf); found != group.end()) {
    return found->second;
  }
  return RefuseTensor("UNPAIRED_TENSOR", group.begin()->second.name,
                      absl::StrCat("has no matching ", leaf));
}

absl::Status CheckTargets(const PeftTensors& tensors, int64_t cost, PeftConfig* config) {
  if (tensors.modules.empty()) {
    return InvalidAdapterError(
        "NO_TENSORS", "adapter_model.safetensors",
        "adapter_model.safetensors: holds no tensors of the adapter's method");
  }
  int64_t name_bytes = 0;
  for (const auto& [module, group] : tensors.modules) {
    name_bytes += static_cast<int64_t>(module.size());
  }
  cost += config->targets.cost();
  if (cost * name_bytes > kMaxMatchingCost) {
    return InvalidAdapterError("UNSUPPORTED_PATTERN", "target_modules",
                               absl::StrCat("adapter_config.json: its patterns (", cost,
                                            " instructions) are too costly to match against ",
                                            tensors.modules.size(), " modules"));
  }
  for (const auto& [module, group] : tensors.modules) {
    if (!config->targets.Matches(module) && !IsTiedHead(*config, module)) {
      return RefuseTensor(
          "UNEXPECTED_TENSOR", group.begin()->second.name,
          absl::StrCat("belongs to module ", Quoted(module),
                       ", which target_modules, exclude_modules and layers_to_transform do not "
                       "select"));
    }
  }
  WarnOfUnusedTargets(tensors, config);
  return absl::OkStatus();
}

}  // namespace tenon
