// Bottleneck adapters: Houlsby (arXiv:1902.00751), Pfeiffer (arXiv:2005.00247) and parallel ones
// (arXiv:2110.04366), as the `adapters` library's BnConfig describes them.

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/adapter_hub.h"
#include "adapters/formats/config_fields.h"
#include "adapters/formats/tensor_checks.h"

namespace tenon {
namespace {

using Json = nlohmann::ordered_json;

constexpr absl::string_view kFields[] = {
    "architecture", "mh_adapter", "output_adapter", "reduction_factor", "non_linearity",
    "original_ln_before", "original_ln_after", "ln_before", "ln_after", "is_parallel", "scaling",
    "residual_before_ln", "adapter_residual_before_ln", "leave_out",
    // Of training or of initialisation.
    "init_weights", "init_weights_seed", "dropout", "stochastic_depth",
    // They matter with inv_adapter or phm_layer only, which are refused when set.
    "inv_adapter_reduction_factor", "phm_dim", "factorized_phm_W", "shared_W_phm",
    "shared_phm_rule", "factorized_phm_rule", "phm_c_init", "phm_init_range", "learn_phm",
    "hypercomplex_nonlinearity", "phm_rank", "phm_bias"};

enum class Scaling { kConstant, kLearned, kChannel };

struct BottleneckConfig {
  BottleneckSpec spec;  // without modules
  bool on_attention = false, on_feed_forward = false;
  bool norm_before = false, norm_after = false;
  Scaling scaling = Scaling::kConstant;
  std::vector<int32_t> leave_out;
};

absl::StatusOr<Nonlinearity> ReadNonlinearity(const Json& settings) {
  static constexpr std::pair<absl::string_view, Nonlinearity> kNames[] = {
      {"relu", Nonlinearity::kRelu},          {"gelu", Nonlinearity::kGelu},
      {"gelu_new", Nonlinearity::kGeluTanh},  {"gelu_pytorch_tanh", Nonlinearity::kGeluTanh},
      {"gelu_fast", Nonlinearity::kGeluTanh}, {"silu", Nonlinearity::kSilu},
      {"swish", Nonlinearity::kSilu},         {"tanh", Nonlinearity::kTanh},
      {"linear", Nonlinearity::kIdentity},    {"leakyrelu", Nonlinearity::kLeakyRelu}};
  const Json& value = Field(settings, "non_linearity");
  if (value.is_string()) {
    const std::string wanted = absl::AsciiStrToLower(value.get<std::string>());
    for (const auto& [name, nonlinearity] : kNames) {
      if (name == wanted) {
        return nonlinearity;
      }
    }
  }
  return UnsupportedConfig(
      "non_linearity", value,
      "relu, gelu, gelu_new, gelu_fast, silu, swish, tanh, linear and leakyrelu are");
}

absl::Status ReadScaling(const Json& settings, BottleneckConfig* config) {
  const Json& value = Field(settings, "scaling");
  if (value == Json("learned")) {
    config->scaling = Scaling::kLearned;
  } else if (value == Json("channel")) {
    config->scaling = Scaling::kChannel;
  } else if (value.is_number()) {
    TENON_ASSIGN_OR_RETURN(config->spec.scaling, CheckFactor("scaling", value));
  } else if (!value.is_null()) {
    return InvalidConfig("scaling", value, "a number, \"learned\" or \"channel\"");
  }
  return absl::OkStatus();
}

absl::Status ReadResidual(const Json& settings, BottleneckSpec* spec) {
  if (Field(settings, "residual_before_ln") == Json("post_add")) {
    spec->residual_before_ln = false;
    spec->residual_post_add = true;
    return absl::OkStatus();
  }
  TENON_ASSIGN_OR_RETURN(spec->residual_before_ln, ReadBool(settings, "residual_before_ln", true));
  return absl::OkStatus();
}

absl::StatusOr<BottleneckConfig> ReadConfig(const Json& settings) {
  TENON_RETURN_IF_ERROR(CheckNoOtherFields(settings, {kFields}));
  BottleneckConfig config;
  BottleneckSpec& spec = config.spec;
  TENON_ASSIGN_OR_RETURN(spec.nonlinearity, ReadNonlinearity(settings));
  TENON_ASSIGN_OR_RETURN(config.on_attention, ReadBool(settings, "mh_adapter"));
  TENON_ASSIGN_OR_RETURN(config.on_feed_forward, ReadBool(settings, "output_adapter"));
  TENON_ASSIGN_OR_RETURN(spec.original_ln_before, ReadBool(settings, "original_ln_before"));
  TENON_ASSIGN_OR_RETURN(spec.original_ln_after, ReadBool(settings, "original_ln_after", true));
  TENON_ASSIGN_OR_RETURN(config.norm_before, ReadBool(settings, "ln_before"));
  TENON_ASSIGN_OR_RETURN(config.norm_after, ReadBool(settings, "ln_after"));
  TENON_ASSIGN_OR_RETURN(spec.is_parallel, ReadBool(settings, "is_parallel"));
  TENON_ASSIGN_OR_RETURN(spec.adapter_residual_before_ln,
                         ReadBool(settings, "adapter_residual_before_ln"));
  TENON_RETURN_IF_ERROR(ReadResidual(settings, &spec));
  TENON_RETURN_IF_ERROR(ReadScaling(settings, &config));
  if (const Json& layers = Field(settings, "leave_out"); !IsUnset(layers)) {
    TENON_ASSIGN_OR_RETURN(config.leave_out, CheckIndices("leave_out", layers, 4096));
  }
  return config;
}

// max(1, floor(hidden / factor)) (adapters' BottleneckLayer.add_adapter).
absl::StatusOr<int64_t> WidthOf(const AdapterHubContext& context, int64_t layer) {
  Json factor = Field(context.settings, "reduction_factor");
  if (factor.is_object()) {
    const Json& own = Field(factor, absl::StrCat(layer));
    factor = own.is_null() ? Field(factor, "default") : own;
  }
  TENON_ASSIGN_OR_RETURN(const double value, CheckFactor("reduction_factor", factor));
  const double width = std::floor(static_cast<double>(context.hidden_size) / value);
  if (!(value > 0) || width > static_cast<double>(context.limits.max_bottleneck_width)) {
    return InvalidConfig(
        "reduction_factor", factor,
        absl::StrCat("a number above 0 that makes the bottleneck of ", context.hidden_size,
                     " features at most ", context.limits.max_bottleneck_width,
                     " wide (max_bottleneck_width)"));
  }
  return std::max<int64_t>(1, static_cast<int64_t>(width));
}

// The tensors of one module by what follows the adapter's name ("adapter_up.weight").
using Leaves = std::map<std::string, NamedTensor, std::less<>>;
using Modules = std::map<std::pair<std::string, Sublayer>, Leaves>;

// "<layer>.<attention|output>_adapters.adapters.<name>.<leaf>".
absl::Status AddTensor(const NamedTensor& tensor, std::string* adapter_name, Modules* modules) {
  for (const Sublayer sublayer : {Sublayer::kAttention, Sublayer::kFeedForward}) {
    const absl::string_view marker = sublayer == Sublayer::kAttention
                                         ? ".attention_adapters.adapters."
                                         : ".output_adapters.adapters.";
    const absl::string_view name = tensor.name;
    const size_t place = name.find(marker);
    if (place == absl::string_view::npos) {
      continue;
    }
    const absl::string_view layer = name.substr(0, place);
    const absl::string_view rest = name.substr(place + marker.size());
    const size_t dot = rest.find('.');
    if (!IsModuleName(layer) || LayerNumber(layer) < 0 || dot == absl::string_view::npos) {
      break;
    }
    const absl::string_view adapter = rest.substr(0, dot);
    if (adapter_name->empty()) {
      *adapter_name = std::string(adapter);
    }
    if (adapter != *adapter_name) {
      return RefuseTensor("UNEXPECTED_TENSOR", tensor.name,
                          "belongs to a second adapter; a folder holds one");
    }
    (*modules)[{std::string(layer), sublayer}][std::string(rest.substr(dot + 1))] = tensor;
    return absl::OkStatus();
  }
  return RefuseTensor("UNKNOWN_TENSOR", tensor.name,
                      "is not <layer>.attention_adapters.adapters.<name>.* or "
                      "<layer>.output_adapters.adapters.<name>.*");
}

// Takes one tensor out of `leaves`, checked.
absl::StatusOr<TensorView> Take(const std::string& leaf, const std::vector<int64_t>& shape,
                                Leaves* leaves) {
  const auto found = leaves->find(leaf);
  if (found == leaves->end()) {
    return RefuseTensor("UNPAIRED_TENSOR", leaf, "is missing in a bottleneck module");
  }
  TENON_RETURN_IF_ERROR(CheckShape(found->second, shape));
  TensorView view = found->second.view;
  leaves->erase(found);
  return view;
}

bool SameBytes(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype &&
         std::equal(a.bytes.begin(), a.bytes.end(), b.bytes.begin(), b.bytes.end());
}

// With ln_before the norm is also the first member of the Sequential adapter_down: the library's
// files may hold it under either name or both.
absl::Status TakeNormBefore(int64_t hidden, Leaves* leaves, BottleneckModule* module) {
  for (const bool is_weight : {true, false}) {
    const std::string end = is_weight ? ".weight" : ".bias";
    std::optional<TensorView>& norm =
        is_weight ? module->norm_before_weight : module->norm_before_bias;
    for (const std::string& leaf : {"adapter_norm_before" + end, "adapter_down.0" + end}) {
      if (!leaves->contains(leaf) && (norm.has_value() || leaf[8] == 'n')) {
        continue;
      }
      TENON_ASSIGN_OR_RETURN(TensorView view, Take(leaf, {hidden}, leaves));
      if (norm.has_value() && !SameBytes(*norm, view)) {
        return RefuseTensor("DUPLICATE_TENSOR", leaf, "differs from adapter_norm_before");
      }
      norm = std::move(view);
    }
  }
  return absl::OkStatus();
}

absl::Status TakeOptionalParts(const BottleneckConfig& config, int64_t hidden, Leaves* leaves,
                               BottleneckModule* module) {
  if (config.norm_before) {
    TENON_RETURN_IF_ERROR(TakeNormBefore(hidden, leaves, module));
  }
  if (config.norm_after) {
    TENON_ASSIGN_OR_RETURN(module->norm_after_weight,
                           Take("adapter_norm_after.weight", {hidden}, leaves));
    TENON_ASSIGN_OR_RETURN(module->norm_after_bias,
                           Take("adapter_norm_after.bias", {hidden}, leaves));
  }
  if (config.scaling != Scaling::kConstant) {
    TENON_ASSIGN_OR_RETURN(
        module->learned_scaling,
        Take("scaling", {config.scaling == Scaling::kLearned ? 1 : hidden}, leaves));
  }
  return absl::OkStatus();
}

absl::StatusOr<BottleneckModule> BuildModule(const AdapterHubContext& context,
                                             const BottleneckConfig& config,
                                             const std::string& layer, Sublayer sublayer,
                                             Leaves leaves) {
  const int64_t number = LayerNumber(layer);
  const bool expected =
      (sublayer == Sublayer::kAttention ? config.on_attention : config.on_feed_forward) &&
      std::find(config.leave_out.begin(), config.leave_out.end(), number) == config.leave_out.end();
  if (!expected) {
    return RefuseTensor("UNEXPECTED_TENSOR", leaves.begin()->second.name,
                        "is at a place that mh_adapter, output_adapter and leave_out exclude");
  }
  const int64_t hidden = context.hidden_size;
  TENON_ASSIGN_OR_RETURN(const int64_t width, WidthOf(context, number));
  BottleneckModule module;
  module.module = layer;
  module.sublayer = sublayer;
  TENON_RETURN_IF_ERROR(TakeOptionalParts(config, hidden, &leaves, &module));
  const std::string down = config.norm_before ? "adapter_down.1" : "adapter_down.0";
  TENON_ASSIGN_OR_RETURN(module.down, Take(down + ".weight", {width, hidden}, &leaves));
  TENON_ASSIGN_OR_RETURN(module.down_bias, Take(down + ".bias", {width}, &leaves));
  TENON_ASSIGN_OR_RETURN(module.up, Take("adapter_up.weight", {hidden, width}, &leaves));
  TENON_ASSIGN_OR_RETURN(module.up_bias, Take("adapter_up.bias", {hidden}, &leaves));
  if (!leaves.empty()) {
    return RefuseTensor("UNKNOWN_TENSOR", leaves.begin()->second.name,
                        "is no part of a bottleneck module with this configuration");
  }
  return module;
}

}  // namespace

absl::StatusOr<BottleneckSpec> ParseAdapterHubBottleneck(const AdapterHubContext& context) {
  TENON_ASSIGN_OR_RETURN(BottleneckConfig config, ReadConfig(context.settings));
  Modules modules;
  std::string adapter_name;
  for (const auto& [name, view] : context.file.tensors) {
    TENON_RETURN_IF_ERROR(AddTensor({name, view}, &adapter_name, &modules));
  }
  for (const auto& [place, leaves] : modules) {
    TENON_ASSIGN_OR_RETURN(BottleneckModule module,
                           BuildModule(context, config, place.first, place.second, leaves));
    config.spec.modules.push_back(std::move(module));
  }
  return std::move(config.spec);
}

}  // namespace tenon
