// AdapterSpec: what an adapter's files say, free of file format and of the base model.
#ifndef TENON_ADAPTERS_FORMATS_ADAPTER_SPEC_H_
#define TENON_ADAPTERS_FORMATS_ADAPTER_SPEC_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "adapters/formats/safetensors.h"

namespace tenon {

/// LoRA at one module: y += scaling * (x @ a^T) @ b^T.
struct LoraModule {
  std::string module;  ///< path in the base checkpoint, "model.layers.0.self_attn.q_proj"
  TensorView a;        ///< [rank, in]
  TensorView b;        ///< [out, rank]
  double scaling = 1.0;
};

struct LoraSpec {
  std::vector<LoraModule> modules;  ///< sorted by module path
};

/// One adapter as its files describe it. The tensors are views into the FileSet that it was parsed
/// from, which `files` keeps alive.
struct AdapterSpec {
  std::string method;      ///< "LORA", "RSLORA"
  std::string base_model;  ///< base_model_name_or_path, informational, may be empty
  std::variant<LoraSpec> body;
  FileSet files;
  std::vector<std::string> warnings;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_FORMATS_ADAPTER_SPEC_H_
