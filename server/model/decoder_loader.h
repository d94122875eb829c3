// Decoder::Loader: from the tensors of a checkpoint to the weights of a decoder.
#ifndef TENON_SERVER_MODEL_DECODER_LOADER_H_
#define TENON_SERVER_MODEL_DECODER_LOADER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "adapters/methods/rank_share.h"
#include "server/model/decoder.h"

namespace tenon {

/// What the checkpoint has in front of all names but the head's: the family's root, or nothing.
std::string CheckpointRoot(const ModelConfig& config, const Checkpoint& checkpoint);

/// Fills one decoder. Lives for the length of Decoder::Create; borrows its arguments.
class Decoder::Loader {
 public:
  /// `config` is the whole model's, which the checkpoint's shapes are.
  Loader(const ModelConfig& config, Checkpoint* checkpoint, Decoder* decoder)
      : config_(config), checkpoint_(checkpoint), decoder_(decoder) {}

  absl::Status Load();

 private:
  /// Features of a module that ranks share, and this rank's run of them.
  struct Part {
    int64_t size = 0;
    RankShare share;
  };
  /// A linear layer of a checkpoint: the module's name and its outputs, in parts (a fused query,
  /// key and value has three).
  struct Module {
    std::string name;
    std::vector<Part> outputs;
  };

  /// The whole tensor, in the decoder's dtype and on its device.
  absl::StatusOr<at::Tensor> Take(const std::string& name, const std::vector<int64_t>& shape);
  /// Features that are not shared; that all ranks share; keys or values.
  Part Whole(int64_t size) const { return {size, {0, size}}; }
  Part Shared(int64_t size) const {
    return {size, ShareOf(size, decoder_->rank(), decoder_->num_ranks())};
  }
  Part KvShared() const;
  /// This rank's runs of dimension `dim`: `whole` itself when that is all of it.
  static at::Tensor Select(const at::Tensor& whole, int64_t dim, const std::vector<Part>& parts);
  /// Nothing when `name` is a family's empty one.
  absl::StatusOr<Norm> TakeNorm(const std::string& prefix, absl::string_view name, int64_t size);
  absl::StatusOr<Linear> TakeLinear(const std::vector<Module>& modules, const Part& inputs,
                                    bool bias);
  static Linear& LinearOf(Layer& layer, LinearKind kind) {
    return layer.linears[static_cast<size_t>(kind)];
  }
  absl::Status LoadAttention(const std::string& prefix, Layer& layer);
  absl::Status LoadFeedForward(const std::string& prefix, Layer& layer);
  absl::Status LoadLayer(int64_t index);
  absl::Status LoadHead();
  absl::Status LoadTiedHead(const std::string& name);

  const ModelConfig& config_;
  Checkpoint* checkpoint_;
  Decoder* decoder_;
  std::string root_;  // what the checkpoint has in front of all names but the head's
};

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_DECODER_LOADER_H_
