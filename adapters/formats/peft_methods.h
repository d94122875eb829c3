// From the files of each PEFT method (peft 0.21) to its part of an AdapterSpec. One .cc file a
// method or family of methods.
#ifndef TENON_ADAPTERS_FORMATS_PEFT_METHODS_H_
#define TENON_ADAPTERS_FORMATS_PEFT_METHODS_H_

#include "absl/status/statusor.h"
#include "adapters/formats/adapter_limits.h"
#include "adapters/formats/adapter_spec.h"
#include "adapters/formats/safetensors.h"
#include "nlohmann/json.hpp"

namespace tenon {

/// Each reads the JSON object of an adapter_config.json of its peft_type and the tensors of
/// adapter_model.safetensors into a spec that has no `files` yet. Names, targets, dtypes (F32, F16,
/// BF16), shapes and ranks are checked against the configuration, and that every element is
/// finite. INVALID_ARGUMENT, naming the field or tensor, otherwise.
using PeftParser = absl::StatusOr<AdapterSpec>(const nlohmann::ordered_json& config,
                                               const SafetensorsFile& file,
                                               const AdapterLimits& limits);

PeftParser ParsePeftLora;             ///< LORA, with rsLoRA and DoRA
PeftParser ParsePeftIa3;              ///< IA3
PeftParser ParsePeftPromptTuning;     ///< PROMPT_TUNING and P_TUNING
PeftParser ParsePeftPrefixTuning;     ///< PREFIX_TUNING
PeftParser ParsePeftVera;             ///< VERA
PeftParser ParsePeftLoha;             ///< LOHA
PeftParser ParsePeftLokr;             ///< LOKR
PeftParser ParsePeftTrainableTokens;  ///< TRAINABLE_TOKENS

}  // namespace tenon

#endif  // TENON_ADAPTERS_FORMATS_PEFT_METHODS_H_
