// LoadModel: everything that a Hugging Face model folder holds, ready to run.
#ifndef TENON_SERVER_MODEL_MODEL_H_
#define TENON_SERVER_MODEL_MODEL_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "adapters/methods/base_shape.h"
#include "server/kernels/linear.h"
#include "server/model/decoder.h"
#include "server/model/generation_config.h"
#include "server/model/model_config.h"

namespace tenon {

struct ModelOptions {
  /// fp32 or bf16; the checkpoint's own when not given (fp32 for one in fp16).
  std::optional<at::ScalarType> dtype;
  KernelKind kernels = KernelKind::kCpu;
  at::Device device = at::kCPU;  ///< as OpenDevice gives it; not the CPU: not with kCpu
  WeightFormat weights = WeightFormat::kAsGiven;
  /// Tensor-parallel ranks, which share the heads, the intermediate features and the vocabulary.
  int64_t num_ranks = 1;
};

/// Opens the device of that name (OpenDevice) and, for a GPU, Tenon's kernels for it; sets `device`
/// and `kernels`. Errors are those of OpenDevice, FindKernelLibrary and OpenKernelLibrary. Not
/// thread-safe: call it at start.
absl::Status SelectDevice(absl::string_view name, ModelOptions& options);

/// A model folder in memory. The decoder is shared with the runner that runs it:
///
///   TENON_ASSIGN_OR_RETURN(Model model, LoadModel(folder, {}));
///   const int64_t blocks = KvCache::NumBlocks(model.config, block_size, model.dtype,
///   budget_bytes); TENON_ASSIGN_OR_RETURN(auto runner, DecoderRunner::Create(model.decoder,
///   blocks, block_size,
///                                                             max_context_tokens));
///   scheduler_options.prefix_cache = runner->prefix_sharing_is_exact();
struct Model {
  ModelConfig config;           ///< the whole model's
  GenerationConfig generation;  ///< all absent when the folder has no generation_config.json
  BaseShape base;               ///< what adapters are fitted to; base.digest names the weights
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;            ///< of the decoder's weights
  std::shared_ptr<const Decoder> decoder;  ///< rank 0's

  /// The tokens that end a generation: those of generation_config.json, else of config.json.
  const std::vector<int32_t>& eos_token_ids() const {
    return generation.eos_token_ids.empty() ? config.eos_token_ids : generation.eos_token_ids;
  }
};

/// Loads `folder`: config.json, generation_config.json when there, and the safetensors weights,
/// whose digest is taken on a second thread meanwhile. Errors name the file, field or tensor.
absl::StatusOr<Model> LoadModel(const std::string& folder, const ModelOptions& options);

/// The shape that adapters are compiled against, without read_parameter.
BaseShape MakeBaseShape(const ModelConfig& config, std::string digest);

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_MODEL_H_
