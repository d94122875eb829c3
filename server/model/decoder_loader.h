// Decoder::Loader: from the tensors of a checkpoint to the weights of a decoder.
#ifndef TENON_SERVER_MODEL_DECODER_LOADER_H_
#define TENON_SERVER_MODEL_DECODER_LOADER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/model/decoder.h"

namespace tenon {

/// What the checkpoint has in front of all names but the head's: the family's root, or nothing.
std::string CheckpointRoot(const ModelConfig& config, const Checkpoint& checkpoint);

/// Fills one decoder. Lives for the length of Decoder::Create; borrows both arguments.
class Decoder::Loader {
 public:
  Loader(Checkpoint* checkpoint, Decoder* decoder) : checkpoint_(checkpoint), decoder_(decoder) {}

  absl::Status Load();

 private:
  /// A linear layer of a checkpoint: the module's name, its outputs, whether it has a bias.
  struct Module {
    std::string name;
    int64_t out_features = 0;
  };

  absl::StatusOr<at::Tensor> Take(const std::string& name, const std::vector<int64_t>& shape);
  /// Nothing when `name` is a family's empty one.
  absl::StatusOr<Norm> TakeNorm(const std::string& prefix, absl::string_view name, int64_t size);
  absl::StatusOr<Linear> TakeLinear(const std::vector<Module>& modules, int64_t in_features,
                                    bool bias);
  static Linear& LinearOf(Layer& layer, LinearKind kind) {
    return layer.linears[static_cast<size_t>(kind)];
  }
  absl::Status LoadAttention(const std::string& prefix, Layer& layer);
  absl::Status LoadFeedForward(const std::string& prefix, Layer& layer);
  absl::Status LoadLayer(int64_t index);
  absl::Status LoadHead();
  absl::Status LoadTiedHead(const std::string& name);

  Checkpoint* checkpoint_;
  Decoder* decoder_;
  std::string root_;  // what the checkpoint has in front of all names but the head's
};

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_DECODER_LOADER_H_
