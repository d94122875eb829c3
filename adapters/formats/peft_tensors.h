// The tensors of a PEFT file, sorted by the module that they belong to.
#ifndef TENON_ADAPTERS_FORMATS_PEFT_TENSORS_H_
#define TENON_ADAPTERS_FORMATS_PEFT_TENSORS_H_

#include <map>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "adapters/formats/adapter_spec.h"
#include "adapters/formats/peft_config.h"
#include "adapters/formats/safetensors.h"
#include "adapters/formats/tensor_checks.h"

namespace tenon {

/// The method's tensors of one module, by what follows the module's path ("lora_A.weight").
using TensorGroup = std::map<std::string, NamedTensor, std::less<>>;

struct PeftTensors {
  std::map<std::string, TensorGroup, std::less<>> modules;
  /// What does not belong to the method, by path without "base_model.model.".
  std::map<std::string, NamedTensor, std::less<>> rest;
};

/// Splits the names "base_model.model.<module>.<leaf>", where `leaves` are the method's. PEFT's
/// adapter name "default" may stand in a name: PEFT itself loads such files. `skipped` are whole
/// names that the caller takes itself. INVALID_ARGUMENT when a name has another prefix, names a
/// module that cannot be one, or appears twice.
absl::StatusOr<PeftTensors> GroupPeftTensors(const SafetensorsFile& file,
                                             std::span<const absl::string_view> leaves,
                                             std::span<const absl::string_view> skipped = {});

/// The group's tensor; INVALID_ARGUMENT (reason UNPAIRED_TENSOR), naming another of its tensors,
/// when it is missing.
absl::StatusOr<NamedTensor> GetTensor(const TensorGroup& group, absl::string_view leaf);

/// OK when every module is a target and matching them costs no more than about a second.
/// INVALID_ARGUMENT (reason UNEXPECTED_TENSOR or UNSUPPORTED_PATTERN) otherwise; (reason
/// NO_TENSORS) when there is no module. `cost` is what else is matched against each module's name.
/// Warns of targets that no module has.
absl::Status CheckTargets(const PeftTensors& tensors, int64_t cost, PeftConfig* config);

/// What of `rest` belongs to biases, token rows and saved modules that the configuration announces.
/// INVALID_ARGUMENT, naming the tensor, for everything else, and for what is announced but missing;
/// (reason OVERRIDE_LIMIT) when the replaced rows and matrices pass limits.max_override_bytes.
absl::StatusOr<SharedParts> ReadSharedParts(const PeftTensors& tensors, const AdapterLimits& limits,
                                            PeftConfig* config);

}  // namespace tenon

#endif  // TENON_ADAPTERS_FORMATS_PEFT_TENSORS_H_
