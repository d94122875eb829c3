// The `adapters` library's own LoRA and IA3 (LoRAConfig with composition_mode "add" or "scale").

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/adapter_hub.h"
#include "adapters/formats/config_fields.h"
#include "adapters/formats/tensor_checks.h"

namespace tenon {
namespace {

using Json = nlohmann::ordered_json;

constexpr absl::string_view kMarker = ".loras.";
constexpr absl::string_view kFields[] = {
    "architecture", "r", "alpha", "composition_mode",
    // Where the library puts modules; the tensors show where they are.
    "selfattn_lora", "intermediate_lora", "output_lora", "attn_matrices", "leave_out",
    // Of training or of initialisation.
    "dropout", "init_weights", "init_weights_seed", "dtype"};

struct LoraPair {
  NamedTensor a, b;  // a has no name in IA3
};
using LoraPairs = std::map<std::string, LoraPair>;

// "<module>.loras.<name>.lora_A" and "...lora_B".
absl::StatusOr<LoraPairs> PairTensors(const SafetensorsFile& file) {
  LoraPairs pairs;
  std::string adapter_name;
  for (const auto& [name, view] : file.tensors) {
    const absl::string_view text = name;
    const size_t place = text.find(kMarker);
    const size_t dot = text.rfind('.');
    if (place == absl::string_view::npos || dot < place + kMarker.size() ||
        !IsModuleName(text.substr(0, place)) ||
        (text.substr(dot) != ".lora_A" && text.substr(dot) != ".lora_B")) {
      return RefuseTensor("UNKNOWN_TENSOR", name,
                          "is not <module>.loras.<name>.lora_A or <module>.loras.<name>.lora_B");
    }
    const std::string adapter(text.substr(place + kMarker.size(), dot - place - kMarker.size()));
    if (adapter_name.empty()) {
      adapter_name = adapter;
    }
    if (adapter != adapter_name) {
      return RefuseTensor("UNEXPECTED_TENSOR", name,
                          "belongs to a second adapter; a folder holds one");
    }
    LoraPair& pair = pairs[std::string(text.substr(0, place))];
    (text.substr(dot) == ".lora_A" ? pair.a : pair.b) = {name, view};
  }
  return pairs;
}

using Buffers = std::vector<std::shared_ptr<const std::string>>;

// GPT-2 projects to queries, keys and values with one matrix, of which an adapter may have parts.
constexpr int64_t kNumParts = 3;
bool IsFused(absl::string_view module) { return LastComponent(module) == "c_attn"; }

// The indices of the parts that `attn_matrices` names, in the matrix's order.
absl::StatusOr<std::vector<int64_t>> ReadParts(const Json& settings) {
  TENON_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                         CheckStrings("attn_matrices", Field(settings, "attn_matrices")));
  std::vector<int64_t> parts;
  for (int64_t part = 0; part < kNumParts; ++part) {
    if (std::find(names.begin(), names.end(), std::string(1, "qkv"[part])) != names.end()) {
      parts.push_back(part);
    }
  }
  return parts;
}

// Rows of one part. `tensor` is [parts * rows, columns], checked to divide evenly.
absl::StatusOr<int64_t> RowsPerPart(const NamedTensor& tensor, size_t num_parts) {
  const int64_t rows = tensor.view.shape[0], parts = static_cast<int64_t>(num_parts);
  if (parts == 0 || rows % parts != 0) {
    return RefuseTensor("INVALID_SHAPE", tensor.name,
                        absl::StrCat("has ", rows, " rows for ", parts, " attn_matrices"));
  }
  return rows / parts;
}

TensorView Keep(DType dtype, std::vector<int64_t> shape, std::string bytes, Buffers* built) {
  built->push_back(std::make_shared<const std::string>(std::move(bytes)));
  const std::span<const char> chars(built->back()->data(), built->back()->size());
  return {dtype, std::move(shape), std::as_bytes(chars)};
}

// [parts * rows, r] -> [3 * rows, parts * r]: each part's block in its rows and columns, else zero.
absl::StatusOr<TensorView> SpreadB(const NamedTensor& b, const std::vector<int64_t>& parts,
                                   Buffers* built) {
  TENON_ASSIGN_OR_RETURN(const int64_t rows, RowsPerPart(b, parts.size()));
  const int64_t width = b.view.shape[1] * static_cast<int64_t>(parts.size());
  const size_t block = static_cast<size_t>(b.view.shape[1] * ElementSize(b.view.dtype));
  const size_t stride = block * parts.size();
  std::string bytes(static_cast<size_t>(kNumParts * rows) * stride, '\0');
  for (size_t part = 0; part < parts.size(); ++part) {
    for (int64_t row = 0; row < rows; ++row) {
      const size_t from = static_cast<size_t>(static_cast<int64_t>(part) * rows + row) * block;
      const size_t to = static_cast<size_t>(parts[part] * rows + row) * stride + part * block;
      std::memcpy(bytes.data() + to, b.view.bytes.data() + from, block);
    }
  }
  return Keep(b.view.dtype, {kNumParts * rows, width}, std::move(bytes), built);
}

// [parts * rows, 1] -> [3 * rows, 1], with ones in the parts that the adapter has not.
absl::StatusOr<TensorView> SpreadScale(const NamedTensor& scale, const std::vector<int64_t>& parts,
                                       Buffers* built) {
  TENON_ASSIGN_OR_RETURN(const int64_t rows, RowsPerPart(scale, parts.size()));
  const DType dtype = scale.view.dtype;
  const uint32_t one = dtype == DType::kF32 ? 0x3F800000 : dtype == DType::kF16 ? 0x3C00 : 0x3F80;
  const size_t size = static_cast<size_t>(ElementSize(dtype));
  const size_t part_bytes = static_cast<size_t>(rows) * size;
  std::string bytes(kNumParts * part_bytes, '\0');
  for (size_t place = 0; place < bytes.size(); place += size) {
    std::memcpy(bytes.data() + place, &one, size);
  }
  for (size_t part = 0; part < parts.size(); ++part) {
    std::memcpy(bytes.data() + static_cast<size_t>(parts[part]) * part_bytes,
                scale.view.bytes.data() + part * part_bytes, part_bytes);
  }
  return Keep(dtype, {kNumParts * rows, 1}, std::move(bytes), built);
}

absl::StatusOr<Ia3Module> BuildIa3(const std::string& module, const LoraPair& pair, double alpha,
                                   const Json& settings, Buffers* built) {
  if (!pair.a.name.empty() || pair.b.name.empty()) {
    return RefuseTensor("UNEXPECTED_TENSOR", pair.a.name,
                        "is a lora_A, which composition_mode \"scale\" does not have");
  }
  TENON_RETURN_IF_ERROR(CheckShape(pair.b, {-1, 1}));
  Ia3Module ia3;
  ia3.module = module;
  ia3.scale = pair.b.view;
  ia3.scaling = alpha;
  if (IsFused(module)) {
    TENON_ASSIGN_OR_RETURN(const std::vector<int64_t> parts, ReadParts(settings));
    TENON_ASSIGN_OR_RETURN(ia3.scale, SpreadScale(pair.b, parts, built));
  }
  return ia3;
}

absl::StatusOr<LoraModule> BuildLora(const std::string& module, const LoraPair& pair, int64_t rank,
                                     double alpha, const AdapterHubContext& context,
                                     Buffers* built) {
  if (pair.a.name.empty() || pair.b.name.empty()) {
    return RefuseTensor("UNPAIRED_TENSOR", pair.a.name.empty() ? pair.b.name : pair.a.name,
                        "has no matching lora_A or lora_B");
  }
  const int64_t max_rank = context.limits.max_rank;
  TENON_RETURN_IF_ERROR(CheckFloats(pair.a, 2));
  TENON_RETURN_IF_ERROR(CheckFloats(pair.b, 2));
  TENON_RETURN_IF_ERROR(CheckTensorRank(pair.b, 1, rank, max_rank));
  LoraModule lora;
  lora.module = module;
  lora.a = pair.a.view;
  lora.b = pair.b.view;
  lora.scaling = alpha / static_cast<double>(rank);
  int64_t whole_rank = rank;
  if (IsFused(module)) {
    TENON_ASSIGN_OR_RETURN(const std::vector<int64_t> parts, ReadParts(context.settings));
    whole_rank *= static_cast<int64_t>(parts.size());
    TENON_RETURN_IF_ERROR(CheckTensorRank(pair.a, 0, whole_rank, max_rank));
    TENON_ASSIGN_OR_RETURN(lora.b, SpreadB(pair.b, parts, built));
  }
  TENON_RETURN_IF_ERROR(CheckTensorRank(pair.a, 0, whole_rank, max_rank));
  return lora;
}

}  // namespace

absl::StatusOr<MethodSpec> ParseAdapterHubLora(const AdapterHubContext& context, Buffers* built) {
  const Json& settings = context.settings;
  TENON_RETURN_IF_ERROR(CheckNoOtherFields(settings, {kFields}));
  TENON_ASSIGN_OR_RETURN(const int64_t rank,
                         CheckCount("r", Field(settings, "r"), context.limits.max_rank,
                                    "max_adapter_rank", "RANK_LIMIT"));
  TENON_ASSIGN_OR_RETURN(const double alpha, CheckFactor("alpha", Field(settings, "alpha")));
  TENON_ASSIGN_OR_RETURN(const LoraPairs pairs, PairTensors(context.file));
  const Json& mode = Field(settings, "composition_mode");
  if (mode != Json("add") && mode != Json("scale")) {
    return UnsupportedConfig("composition_mode", mode, "\"add\" and \"scale\" are");
  }
  LoraSpec lora_spec;
  Ia3Spec ia3_spec;
  for (const auto& [module, pair] : pairs) {
    if (mode == Json("scale")) {
      TENON_ASSIGN_OR_RETURN(Ia3Module ia3, BuildIa3(module, pair, alpha, settings, built));
      ia3_spec.modules.push_back(std::move(ia3));
    } else {
      TENON_ASSIGN_OR_RETURN(LoraModule lora, BuildLora(module, pair, rank, alpha, context, built));
      lora_spec.modules.push_back(std::move(lora));
    }
  }
  return mode == Json("scale") ? MethodSpec(std::move(ia3_spec)) : MethodSpec(std::move(lora_spec));
}

}  // namespace tenon
