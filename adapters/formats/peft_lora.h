// From PEFT's LoRA tensors to a LoraSpec.
#ifndef TENON_ADAPTERS_FORMATS_PEFT_LORA_H_
#define TENON_ADAPTERS_FORMATS_PEFT_LORA_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "adapters/formats/adapter_spec.h"
#include "adapters/formats/peft_config.h"
#include "adapters/formats/safetensors.h"

namespace tenon {

/// Pairs the tensors "base_model.model.<module>.lora_A.weight" and "...lora_B.weight" and checks
/// each against the configuration: names, targets, dtypes (F32, F16, BF16), shapes, ranks, and that
/// every element is finite. Adds to `warnings` what is odd but harmless. INVALID_ARGUMENT, naming
/// the tensor, otherwise.
absl::StatusOr<LoraSpec> BuildLoraSpec(const PeftLoraConfig& config, const SafetensorsFile& file,
                                       const AdapterLimits& limits,
                                       std::vector<std::string>* warnings);

}  // namespace tenon

#endif  // TENON_ADAPTERS_FORMATS_PEFT_LORA_H_
