// Folders of the AdapterHub `adapters` library (1.x) to AdapterSpec.
#ifndef TENON_ADAPTERS_FORMATS_ADAPTER_HUB_H_
#define TENON_ADAPTERS_FORMATS_ADAPTER_HUB_H_

#include "absl/status/statusor.h"
#include "adapters/formats/adapter_limits.h"
#include "adapters/formats/adapter_spec.h"
#include "adapters/formats/safetensors.h"
#include "nlohmann/json.hpp"

namespace tenon {

/// Reads the JSON object of an adapter_config.json (with its `config` object), the tensors of
/// adapter.safetensors, and adapter_interface.json and model_head.safetensors where they are, into
/// a spec that has no `files` yet. Served are bottleneck adapters, LoRA and IA3, with a head as a
/// saved module. INVALID_ARGUMENT, naming the field or tensor, otherwise. Module paths stay as the
/// tensors' names say them; the library names them as transformers does.
absl::StatusOr<AdapterSpec> ParseAdapterHub(const nlohmann::ordered_json& config,
                                            const SafetensorsFile& file, const FileSet& files,
                                            const AdapterLimits& limits);

/// The parts of it, by architecture. `settings` is the `config` object; `hidden_size` is checked.
struct AdapterHubContext {
  const nlohmann::ordered_json& settings;
  const SafetensorsFile& file;
  const AdapterLimits& limits;
  int64_t hidden_size = 0;
};
absl::StatusOr<BottleneckSpec> ParseAdapterHubBottleneck(const AdapterHubContext& context);
absl::StatusOr<MethodSpec> ParseAdapterHubLora(
    const AdapterHubContext& context, std::vector<std::shared_ptr<const std::string>>* built);

/// The number of the layer in "model.layers.12" or "transformer.h.12"; -1 when there is none.
int64_t LayerNumber(absl::string_view layer);

}  // namespace tenon

#endif  // TENON_ADAPTERS_FORMATS_ADAPTER_HUB_H_
