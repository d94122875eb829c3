// What every adapter tensor must be, whatever its method.
#ifndef TENON_ADAPTERS_FORMATS_TENSOR_CHECKS_H_
#define TENON_ADAPTERS_FORMATS_TENSOR_CHECKS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "adapters/formats/safetensors.h"

namespace tenon {

/// A tensor with the name it has in its file, for messages.
struct NamedTensor {
  std::string name;
  TensorView view;
};

/// INVALID_ARGUMENT: 'tensor "<name>" <message>'.
absl::Status RefuseTensor(absl::string_view reason, absl::string_view tensor,
                          absl::string_view message);

/// OK for F32, F16 or BF16, `num_dims` dimensions from 1 on, and no NaN or Inf.
absl::Status CheckFloats(const NamedTensor& tensor, size_t num_dims);

/// CheckFloats, and exactly `shape`; a dimension of -1 may be anything from 1 on.
absl::Status CheckShape(const NamedTensor& tensor, const std::vector<int64_t>& shape);

/// OK when the size of dimension `dim` is `config_rank` and within `max_rank`.
absl::Status CheckTensorRank(const NamedTensor& tensor, size_t dim, int64_t config_rank,
                             int64_t max_rank);

/// Whether `module` is a path of 1 to 256 letters, digits, '.', '_' and '-'.
bool IsModuleName(absl::string_view module);

/// The last component of a module's path: "q_proj" of "model.layers.0.self_attn.q_proj".
absl::string_view LastComponent(absl::string_view module);

/// Whether the path names the token embedding or the language model head of a supported model.
bool IsEmbeddingModule(absl::string_view module);
bool IsHeadModule(absl::string_view module);

}  // namespace tenon

#endif  // TENON_ADAPTERS_FORMATS_TENSOR_CHECKS_H_
