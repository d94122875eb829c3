#include "server/model/weights.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cstdint>
#include <cstring>
#include <set>
#include <span>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "adapters/base/sha256.h"
#include "adapters/base/status_macros.h"
#include "server/model/json_fields.h"
#include "server/model/mapped_file.h"

namespace tenon {
namespace {

constexpr absl::string_view kSingleFile = "model.safetensors";
constexpr absl::string_view kIndexFile = "model.safetensors.index.json";
constexpr int64_t kMaxIndexBytes = int64_t{64} << 20;

// Adds a piece led by its length, so that pieces cannot run together.
void AddLength(uint64_t length, Sha256& sha256) {
  sha256.Update(std::as_bytes(std::span(&length, 1)));
}
void AddPiece(absl::string_view text, Sha256& sha256) {
  AddLength(text.size(), sha256);
  sha256.Update(text);
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// A shard lies in the folder itself; nothing else can be named by an index.
bool IsPlainFileName(absl::string_view name) {
  return !name.empty() && !absl::StrContains(name, '/') && !absl::StrContains(name, '\0') &&
         name != "." && name != ".." && absl::EndsWith(name, ".safetensors");
}

}  // namespace

absl::StatusOr<at::ScalarType> WeightScalarType(absl::string_view tensor, DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return at::kFloat;
    case DType::kBF16:
      return at::kBFloat16;
    case DType::kF16:
      return at::kHalf;
    default:
      return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor, " is ", DTypeName(dtype),
                                                     ", want F32, BF16 or F16 weights"));
  }
}

absl::Status Checkpoint::AddFile(const std::string& folder, const std::string& name) {
  TENON_ASSIGN_OR_RETURN(std::shared_ptr<const MappedFile> file,
                         MappedFile::Open(absl::StrCat(folder, "/", name)));
  TENON_ASSIGN_OR_RETURN(SafetensorsFile parsed, ParseSafetensors(name, file->bytes(), {}));
  for (auto& [tensor, view] : parsed.tensors) {
    const bool added = tensors_.emplace(tensor, Entry{std::move(view), file}).second;
    if (!added) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": tensor ", tensor, " is in another file, too"));
    }
  }
  files_.emplace(name, std::move(file));
  return absl::OkStatus();
}

absl::Status Checkpoint::AddShards(const std::string& folder, absl::string_view index_json) {
  TENON_ASSIGN_OR_RETURN(const nlohmann::json index, ParseJsonObject(kIndexFile, index_json));
  const auto weight_map = index.find("weight_map");
  if (weight_map == index.end() || !weight_map->is_object() || weight_map->empty()) {
    return absl::InvalidArgumentError(absl::StrCat(kIndexFile, ": no weight_map"));
  }
  std::set<std::string> names;
  for (const auto& [tensor, file] : weight_map->items()) {
    if (!file.is_string() || !IsPlainFileName(file.get<std::string>())) {
      return absl::InvalidArgumentError(
          absl::StrCat(kIndexFile, ": tensor ", tensor, " is not in a file of this folder"));
    }
    names.insert(file.get<std::string>());
  }
  for (const std::string& name : names) {
    TENON_RETURN_IF_ERROR(AddFile(folder, name));
  }
  for (const auto& [tensor, file] : weight_map->items()) {
    if (!Has(tensor)) {
      return absl::InvalidArgumentError(
          absl::StrCat(kIndexFile, ": tensor ", tensor, " is not in ", file.get<std::string>()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& folder) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint);
  const absl::Status single = checkpoint->AddFile(folder, std::string(kSingleFile));
  if (single.ok()) {
    return checkpoint;
  }
  if (!absl::IsNotFound(single)) {
    return single;
  }
  const absl::StatusOr<std::string> index =
      ReadSmallFile(absl::StrCat(folder, "/", kIndexFile), kMaxIndexBytes);
  if (absl::IsNotFound(index.status())) {
    return absl::NotFoundError(
        absl::StrCat(folder, " holds neither ", kSingleFile, " nor ", kIndexFile));
  }
  TENON_RETURN_IF_ERROR(index.status());
  TENON_RETURN_IF_ERROR(checkpoint->AddShards(folder, *index));
  return checkpoint;
}

absl::StatusOr<at::Tensor> Checkpoint::Take(absl::string_view name,
                                            const std::vector<int64_t>& shape) {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return absl::NotFoundError(absl::StrCat("the checkpoint has no tensor ", name));
  }
  const TensorView& view = found->second.view;
  if (view.shape != shape) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " has shape ",
                                                   ShapeText(view.shape), ", config.json wants ",
                                                   ShapeText(shape)));
  }
  TENON_ASSIGN_OR_RETURN(const at::ScalarType dtype, WeightScalarType(name, view.dtype));
  taken_.insert(std::string(name));
  const std::byte* const data = view.bytes.data();
  if (reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(ElementSize(view.dtype)) != 0) {
    at::Tensor copy = at::empty(shape, at::TensorOptions(dtype));
    std::memcpy(copy.mutable_data_ptr(), data, view.bytes.size());
    return copy;
  }
  return at::from_blob(
      const_cast<std::byte*>(data), shape, [owner = found->second.owner](void*) {},
      at::TensorOptions(dtype));
}

absl::StatusOr<at::Tensor> Checkpoint::Read(absl::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return absl::NotFoundError(absl::StrCat("the checkpoint has no tensor ", name));
  }
  const TensorView& view = found->second.view;
  TENON_ASSIGN_OR_RETURN(const at::ScalarType dtype, WeightScalarType(name, view.dtype));
  at::Tensor copy = at::empty(view.shape, at::TensorOptions(dtype));
  std::memcpy(copy.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  return copy.to(at::kFloat);
}

absl::Status Checkpoint::CheckAllTaken() const {
  for (const auto& [name, entry] : tensors_) {
    const bool is_buffer = absl::EndsWith(name, "rotary_emb.inv_freq") ||
                           absl::EndsWith(name, ".attn.bias") ||
                           absl::EndsWith(name, ".attn.masked_bias");
    if (!taken_.contains(name) && !is_buffer) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", name, " of the checkpoint has no place in the model"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Checkpoint::Digest(absl::string_view config_json) const {
  Sha256 sha256;
  AddPiece(config_json, sha256);
  for (const auto& [name, file] : files_) {
    AddPiece(name, sha256);
    AddLength(file->bytes().size(), sha256);
    TENON_RETURN_IF_ERROR(
        file->Read([&sha256](std::span<const std::byte> bytes) { sha256.Update(bytes); }));
  }
  return sha256.HexDigest();
}

void Checkpoint::DropPages() const {
  for (const auto& [name, file] : files_) {
    file->DropPages();
  }
}

int64_t Checkpoint::nbytes() const {
  int64_t total = 0;
  for (const auto& [name, file] : files_) {
    total += static_cast<int64_t>(file->bytes().size());
  }
  return total;
}

}  // namespace tenon
