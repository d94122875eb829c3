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
  absl::StatusOr<Linear> TakeLinear(const std::vector<Module>& modules, int64_t in_features,
                                    bool bias);
  absl::Status LoadLayer(int64_t index);
  absl::Status LoadHead();
  absl::Status LoadTiedHead();

  Checkpoint* checkpoint_;
  Decoder* decoder_;
};

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_DECODER_LOADER_H_
