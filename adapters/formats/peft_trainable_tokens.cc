// PEFT's TRAINABLE_TOKENS: replaced rows of the token embedding and nothing else.

#include <utility>

#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/config_fields.h"
#include "adapters/formats/peft_methods.h"
#include "adapters/formats/peft_tensors.h"

namespace tenon {

using Json = nlohmann::ordered_json;

absl::StatusOr<AdapterSpec> ParsePeftTrainableTokens(const Json& config,
                                                     const SafetensorsFile& file,
                                                     const AdapterLimits& limits) {
  constexpr absl::string_view kFields[] = {"token_indices", "target_modules", "init_weights"};
  TENON_ASSIGN_OR_RETURN(PeftConfig peft, ReadPeftConfig(config, kFields, /*has_targets=*/false));
  TENON_ASSIGN_OR_RETURN(std::vector<int32_t> tokens,
                         CheckIndices("token_indices", Field(config, "token_indices"),
                                      static_cast<size_t>(limits.max_token_rows)));
  if (tokens.empty()) {
    return InvalidConfig("token_indices", Field(config, "token_indices"), "a list of tokens");
  }
  peft.token_indices.emplace_back("", std::move(tokens));
  TENON_ASSIGN_OR_RETURN(const PeftTensors tensors, GroupPeftTensors(file, {}));
  AdapterSpec spec;
  TENON_ASSIGN_OR_RETURN(spec.shared, ReadSharedParts(tensors, limits, &peft));
  if (const Json& targets = Field(config, "target_modules"); !IsUnset(targets)) {
    TENON_ASSIGN_OR_RETURN(const ModuleNames names, ReadModuleNames("target_modules", targets));
    for (const TokenRows& rows : spec.shared.token_rows) {
      if (!names.Matches(rows.module) && !IsHeadModule(rows.module)) {
        return InvalidAdapterError(
            "UNEXPECTED_TENSOR", rows.module,
            "adapter_model.safetensors: has token rows of a module that target_modules does not "
            "name");
      }
    }
  }
  spec.method = "TRAINABLE_TOKENS";
  spec.base_model = std::move(peft.base_model);
  spec.body = TokenRowsSpec{};
  spec.warnings = std::move(peft.warnings);
  return spec;
}

}  // namespace tenon
