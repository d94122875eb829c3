// What PEFT's methods save beside their own tensors: biases, token rows, saved modules.

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/peft_tensors.h"

namespace tenon {
namespace {

class SharedPartsReader {
 public:
  SharedPartsReader(const PeftTensors& tensors, const AdapterLimits& limits, PeftConfig* config)
      : tensors_(tensors), limits_(limits), config_(*config) {}

  absl::StatusOr<SharedParts> Read() {
    for (const auto& [path, tensor] : tensors_.rest) {
      if (!IsModuleName(path)) {
        return Unknown(tensor);
      }
      TENON_RETURN_IF_ERROR(ReadTensor(path, tensor));
    }
    TENON_RETURN_IF_ERROR(CheckComplete());
    return std::move(parts_);
  }

 private:
  absl::Status ReadTensor(absl::string_view path, const NamedTensor& tensor) {
    absl::string_view module = path;
    if (absl::ConsumeSuffix(&module, ".trainable_tokens_delta")) {
      absl::ConsumeSuffix(&module, ".token_adapter");
      return AddTokenRows(module, tensor);
    }
    if (absl::ConsumeSuffix(&module, ".base_layer.weight")) {
      return AddBaseCopy(module, tensor);
    }
    if (absl::ConsumeSuffix(&module, ".bias")) {
      absl::ConsumeSuffix(&module, ".base_layer");
      return AddBias(module, tensor);
    }
    if (absl::ConsumeSuffix(&module, ".weight") &&
        (IsEmbeddingModule(module) || IsHeadModule(module))) {
      return AddSavedModule(module, tensor);
    }
    return Unknown(tensor);
  }

  absl::Status Unknown(const NamedTensor& tensor) {
    return RefuseTensor("UNKNOWN_TENSOR", tensor.name,
                        "is not known for this method and its configuration");
  }

  absl::Status AddBias(absl::string_view module, const NamedTensor& tensor) {
    const bool announced = config_.bias == PeftBias::kAll || (config_.bias == PeftBias::kTargets &&
                                                              tensors_.modules.contains(module));
    if (!announced) {
      return RefuseTensor("UNEXPECTED_TENSOR", tensor.name,
                          "is a bias of the base model, which `bias` does not announce");
    }
    TENON_RETURN_IF_ERROR(CheckFloats(tensor, 1));
    parts_.biases.push_back({std::string(module), tensor.view});
    return absl::OkStatus();
  }

  // PEFT saves the frozen matrix beside an adapter of the embedding or the head.
  absl::Status AddBaseCopy(absl::string_view module, const NamedTensor& tensor) {
    if (!tensors_.modules.contains(module) ||
        (!IsEmbeddingModule(module) && !IsHeadModule(module))) {
      return RefuseTensor("UNEXPECTED_TENSOR", tensor.name,
                          "is a copy of a base weight; the base is frozen, so remove it");
    }
    return KeepBaseCopy(module, tensor);
  }

  absl::Status KeepBaseCopy(absl::string_view module, const NamedTensor& tensor) {
    TENON_RETURN_IF_ERROR(CheckFloats(tensor, 2));
    parts_.base_copies.push_back({std::string(module), tensor.view});
    config_.warnings.push_back(absl::StrCat("tensor ", Quoted(tensor.name),
                                            " is a copy of a base weight and is not applied"));
    return absl::OkStatus();
  }

  absl::Status AddSavedModule(absl::string_view module, const NamedTensor& tensor) {
    const auto& names = config_.modules_to_save;
    const bool announced = std::any_of(names.begin(), names.end(), [&](const std::string& name) {
      return module == name || absl::EndsWith(module, absl::StrCat(".", name));
    });
    if (!announced) {  // what save_pretrained(..., save_embedding_layers=True) adds
      return KeepBaseCopy(module, tensor);
    }
    TENON_RETURN_IF_ERROR(CountBytes(tensor));
    TENON_RETURN_IF_ERROR(CheckFloats(tensor, 2));
    parts_.saved_modules.push_back({std::string(module), tensor.view});
    return absl::OkStatus();
  }

  const std::vector<int32_t>* TokensOf(absl::string_view module) const {
    for (const auto& [name, tokens] : config_.token_indices) {
      const bool matches = name.empty()
                               ? IsEmbeddingModule(module) || IsHeadModule(module)
                               : module == name || absl::EndsWith(module, absl::StrCat(".", name));
      if (matches) {
        return &tokens;
      }
    }
    return nullptr;
  }

  absl::Status AddTokenRows(absl::string_view module, const NamedTensor& tensor) {
    const std::vector<int32_t>* tokens = TokensOf(module);
    // A tied head is saved under its own name, with the embedding's tokens.
    if (tokens == nullptr && IsHeadModule(module) && !config_.token_indices.empty()) {
      tokens = &config_.token_indices.front().second;
    }
    if (tokens == nullptr || (!IsEmbeddingModule(module) && !IsHeadModule(module))) {
      return RefuseTensor("UNEXPECTED_TENSOR", tensor.name,
                          "has token rows of a module that the configuration does not name");
    }
    TENON_RETURN_IF_ERROR(CountBytes(tensor));
    TENON_RETURN_IF_ERROR(CheckShape(tensor, {static_cast<int64_t>(tokens->size()), -1}));
    parts_.token_rows.push_back({std::string(module), *tokens, tensor.view});
    return absl::OkStatus();
  }

  absl::Status CountBytes(const NamedTensor& tensor) {
    override_bytes_ += static_cast<int64_t>(tensor.view.bytes.size());
    if (override_bytes_ <= limits_.max_override_bytes) {
      return absl::OkStatus();
    }
    return RefuseTensor("OVERRIDE_LIMIT", tensor.name,
                        absl::StrCat("brings the replaced rows and matrices to ", override_bytes_,
                                     " bytes, which exceeds the limit of ",
                                     limits_.max_override_bytes, " (max_override_bytes)"));
  }

  absl::Status CheckComplete() const {
    for (const std::string& name : config_.modules_to_save) {
      const bool found = std::any_of(parts_.saved_modules.begin(), parts_.saved_modules.end(),
                                     [&](const SavedModule& saved) {
                                       return LastComponent(saved.module) == LastComponent(name);
                                     });
      if (!found) {
        return Missing("modules_to_save", name);
      }
    }
    if (config_.token_indices.empty() != parts_.token_rows.empty()) {
      return Missing("trainable tokens", "trainable_tokens_delta");
    }
    for (const auto& [name, tokens] : config_.token_indices) {
      TENON_RETURN_IF_ERROR(CheckTokensPresent(name, tokens));
    }
    const bool saves_embedding =
        std::any_of(config_.modules_to_save.begin(), config_.modules_to_save.end(),
                    [](const std::string& name) { return IsEmbeddingModule(name); });
    if (config_.ensure_weight_tying && !parts_.saved_modules.empty() &&
        !(saves_embedding && parts_.saved_modules.size() > 1)) {
      return InvalidAdapterError("UNSUPPORTED_ADAPTER", "ensure_weight_tying",
                                 "adapter_config.json: \"ensure_weight_tying\" is true with only "
                                 "one of embedding and head in modules_to_save, which is not "
                                 "supported; save both");
    }
    return absl::OkStatus();
  }

  // PEFT keeps one set of rows for tied modules with equal tokens.
  absl::Status CheckTokensPresent(absl::string_view name,
                                  const std::vector<int32_t>& tokens) const {
    const bool found = std::any_of(parts_.token_rows.begin(), parts_.token_rows.end(),
                                   [&](const TokenRows& rows) { return rows.tokens == tokens; });
    return found ? absl::OkStatus() : Missing("trainable_token_indices", name);
  }

  static absl::Status Missing(absl::string_view field, absl::string_view name) {
    return InvalidAdapterError("MISSING_TENSOR", field,
                               absl::StrCat("adapter_model.safetensors: has no tensor for ", field,
                                            " entry ", Quoted(name)));
  }

  const PeftTensors& tensors_;
  const AdapterLimits& limits_;
  PeftConfig& config_;
  SharedParts parts_;
  int64_t override_bytes_ = 0;
};

}  // namespace

absl::StatusOr<SharedParts> ReadSharedParts(const PeftTensors& tensors, const AdapterLimits& limits,
                                            PeftConfig* config) {
  return SharedPartsReader(tensors, limits, config).Read();
}

}  // namespace tenon
