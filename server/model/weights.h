// Checkpoint: the tensors of a Hugging Face model folder, mapped and handed out by name.
#ifndef TENON_SERVER_MODEL_WEIGHTS_H_
#define TENON_SERVER_MODEL_WEIGHTS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "adapters/formats/safetensors.h"
#include "server/model/mapped_file.h"

namespace tenon {

/// model.safetensors, or the files that model.safetensors.index.json names.
///
/// Not thread-safe, but Digest() and Read() may run beside anything. Tensors share the mapping and
/// keep it alive, so they may outlive the checkpoint; they are read-only memory: writing to one is
/// fatal.
///
///   TENON_ASSIGN_OR_RETURN(auto checkpoint, Checkpoint::Open(folder));
///   TENON_ASSIGN_OR_RETURN(at::Tensor norm, checkpoint->Take("model.norm.weight", {hidden}));
///   TENON_RETURN_IF_ERROR(checkpoint->CheckAllTaken());
class Checkpoint {
 public:
  /// Maps and indexes the files. NOT_FOUND when the folder has none; INVALID_ARGUMENT when one is
  /// malformed, when two hold the same tensor or when the index names what is not there.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& folder);

  /// The tensor of that name, fp32, bf16 or fp16 as stored, without a copy (unless its bytes are
  /// not aligned to its element). NOT_FOUND when missing, INVALID_ARGUMENT on another shape or
  /// dtype.
  absl::StatusOr<at::Tensor> Take(absl::string_view name, const std::vector<int64_t>& shape);

  /// A copy of the tensor of that name in fp32, whether it was taken or not. Thread-safe. Errors as
  /// Take's.
  absl::StatusOr<at::Tensor> Read(absl::string_view name) const;

  bool Has(absl::string_view name) const { return tensors_.contains(name); }

  /// INVALID_ARGUMENT that names a tensor which nobody took: a part of the model that would be
  /// left out. Buffers that old versions of transformers saved (rotary_emb.inv_freq; the causal
  /// masks attn.bias and attn.masked_bias of GPT-2) do not count.
  absl::Status CheckAllTaken() const;

  /// SHA-256, lower-case hex, over `config_json` and every byte of every file: equal digests are
  /// equal models. Reads all files, about 1 GB/s, and touches no mapped page. INTERNAL when a file
  /// cannot be read.
  absl::StatusOr<std::string> Digest(absl::string_view config_json) const;

  /// Gives back the memory of what was read so far; what is needed again is read again.
  void DropPages() const;

  /// Bytes of all files.
  int64_t nbytes() const;

 private:
  struct Entry {
    TensorView view;
    std::shared_ptr<const void> owner;
  };

  Checkpoint() = default;
  absl::Status AddFile(const std::string& folder, const std::string& name);
  absl::Status AddShards(const std::string& folder, absl::string_view index_json);

  std::map<std::string, std::shared_ptr<const MappedFile>> files_;
  std::map<std::string, Entry, std::less<>> tensors_;
  absl::flat_hash_set<std::string> taken_;
};

/// ATen's name of a file's dtype. INVALID_ARGUMENT, naming `tensor`, for types that are no weights.
absl::StatusOr<at::ScalarType> WeightScalarType(absl::string_view tensor, DType dtype);

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_WEIGHTS_H_
