// LoHa (arXiv:2108.06098) and LoKr (arXiv:2309.14859), on linear layers.

#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/config_fields.h"
#include "adapters/formats/peft_methods.h"
#include "adapters/formats/peft_tensors.h"

namespace tenon {
namespace {

using Json = nlohmann::ordered_json;

constexpr absl::string_view kFields[] = {
    "r", "alpha", "rank_pattern", "alpha_pattern",
    // Of training or of initialisation; the tensors' shapes show how a matrix was decomposed.
    "rank_dropout", "module_dropout", "rank_dropout_scale", "init_weights", "decompose_both",
    "decompose_factor",
    // Convolutions only.
    "use_effective_conv2d"};
constexpr absl::string_view kLohaLeaves[] = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"};
constexpr absl::string_view kLokrLeaves[] = {"lokr_w1", "lokr_w1_a", "lokr_w1_b",
                                             "lokr_w2", "lokr_w2_a", "lokr_w2_b"};

struct LycorisFile {
  PeftConfig peft;
  PeftRanks ranks;
  PeftTensors tensors;
};

absl::StatusOr<LycorisFile> ReadFile(const Json& config, const SafetensorsFile& file,
                                     std::span<const absl::string_view> leaves,
                                     const AdapterLimits& limits) {
  LycorisFile result;
  TENON_ASSIGN_OR_RETURN(result.peft, ReadPeftConfig(config, kFields, /*has_targets=*/true));
  TENON_ASSIGN_OR_RETURN(result.ranks, ReadPeftRanks(config, "alpha", limits));
  for (const auto& [name, view] : file.tensors) {
    const absl::string_view leaf = LastComponent(name);
    if (leaf == "hada_t1" || leaf == "hada_t2" || leaf == "lokr_t2") {
      return RefuseTensor("UNKNOWN_TENSOR", name,
                          "is a Tucker core of a convolution, which is not served");
    }
  }
  TENON_ASSIGN_OR_RETURN(result.tensors, GroupPeftTensors(file, leaves));
  TENON_RETURN_IF_ERROR(CheckTargets(result.tensors, result.ranks.cost(), &result.peft));
  return result;
}

absl::StatusOr<AdapterSpec> Finish(absl::string_view method, MethodSpec body, LycorisFile file,
                                   const AdapterLimits& limits) {
  AdapterSpec spec;
  spec.method = std::string(method);
  spec.body = std::move(body);
  TENON_ASSIGN_OR_RETURN(spec.shared, ReadSharedParts(file.tensors, limits, &file.peft));
  spec.base_model = std::move(file.peft.base_model);
  spec.warnings = std::move(file.peft.warnings);
  return spec;
}

// The product [rows, rank] @ [rank, columns] of one module.
absl::Status ReadProduct(const TensorGroup& group, const std::string& prefix, int64_t rank,
                         const AdapterLimits& limits, TensorView* a, TensorView* b) {
  TENON_ASSIGN_OR_RETURN(const NamedTensor left, GetTensor(group, prefix + "_a"));
  TENON_ASSIGN_OR_RETURN(const NamedTensor right, GetTensor(group, prefix + "_b"));
  TENON_RETURN_IF_ERROR(CheckFloats(left, 2));
  TENON_RETURN_IF_ERROR(CheckFloats(right, 2));
  TENON_RETURN_IF_ERROR(CheckTensorRank(left, 1, rank, limits.max_rank));
  TENON_RETURN_IF_ERROR(CheckTensorRank(right, 0, rank, limits.max_rank));
  *a = left.view;
  *b = right.view;
  return absl::OkStatus();
}

absl::StatusOr<LohaModule> BuildLoha(const PeftRanks& ranks, const std::string& module,
                                     const TensorGroup& group, const AdapterLimits& limits) {
  LohaModule loha;
  loha.module = module;
  loha.scaling = ranks.ScalingOf(module);
  const int64_t rank = ranks.RankOf(module);
  TENON_RETURN_IF_ERROR(ReadProduct(group, "hada_w1", rank, limits, &loha.w1_a, &loha.w1_b));
  TENON_RETURN_IF_ERROR(ReadProduct(group, "hada_w2", rank, limits, &loha.w2_a, &loha.w2_b));
  if (loha.w1_a.shape != loha.w2_a.shape || loha.w1_b.shape != loha.w2_b.shape) {
    return RefuseTensor("INVALID_SHAPE", group.find("hada_w2_a")->second.name,
                        "and hada_w2_b have not the shapes of hada_w1_a and hada_w1_b");
  }
  return loha;
}

absl::StatusOr<KroneckerFactor> BuildFactor(const TensorGroup& group, const std::string& prefix,
                                            int64_t rank, const AdapterLimits& limits) {
  KroneckerFactor factor;
  if (const auto whole = group.find(prefix); whole != group.end()) {
    if (group.contains(prefix + "_a") || group.contains(prefix + "_b")) {
      return RefuseTensor("DUPLICATE_TENSOR", whole->second.name,
                          "is there both whole and as a product");
    }
    TENON_RETURN_IF_ERROR(CheckFloats(whole->second, 2));
    factor.whole = whole->second.view;
    return factor;
  }
  TensorView a, b;
  TENON_RETURN_IF_ERROR(ReadProduct(group, prefix, rank, limits, &a, &b));
  factor.a = std::move(a);
  factor.b = std::move(b);
  return factor;
}

}  // namespace

absl::StatusOr<AdapterSpec> ParsePeftLoha(const Json& config, const SafetensorsFile& file,
                                          const AdapterLimits& limits) {
  TENON_ASSIGN_OR_RETURN(LycorisFile read, ReadFile(config, file, kLohaLeaves, limits));
  LohaSpec body;
  for (const auto& [module, group] : read.tensors.modules) {
    TENON_ASSIGN_OR_RETURN(LohaModule loha, BuildLoha(read.ranks, module, group, limits));
    body.modules.push_back(std::move(loha));
  }
  return Finish("LOHA", std::move(body), std::move(read), limits);
}

absl::StatusOr<AdapterSpec> ParsePeftLokr(const Json& config, const SafetensorsFile& file,
                                          const AdapterLimits& limits) {
  TENON_ASSIGN_OR_RETURN(LycorisFile read, ReadFile(config, file, kLokrLeaves, limits));
  LokrSpec body;
  for (const auto& [module, group] : read.tensors.modules) {
    LokrModule lokr;
    lokr.module = module;
    lokr.scaling = read.ranks.ScalingOf(module);
    const int64_t rank = read.ranks.RankOf(module);
    TENON_ASSIGN_OR_RETURN(lokr.w1, BuildFactor(group, "lokr_w1", rank, limits));
    TENON_ASSIGN_OR_RETURN(lokr.w2, BuildFactor(group, "lokr_w2", rank, limits));
    body.modules.push_back(std::move(lokr));
  }
  return Finish("LOKR", std::move(body), std::move(read), limits);
}

}  // namespace tenon
