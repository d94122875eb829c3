#include "tests/golden/golden_files.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <span>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/safetensors.h"
#include "nlohmann/json.hpp"
#include "server/model/mapped_file.h"

namespace tenon {
namespace {

constexpr int64_t kMaxGoldenBytes = int64_t{64} << 20;

std::vector<float> LogSoftmax(std::span<const float> logits) {
  double sum = 0;
  for (const float logit : logits) {
    sum += std::exp(static_cast<double>(logit));
  }
  std::vector<float> logprobs;
  for (const float logit : logits) {
    logprobs.push_back(static_cast<float>(logit - std::log(sum)));
  }
  return logprobs;
}

float ToFloat(DType dtype, const std::byte* bytes) {
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, bytes, sizeof(value));
    return value;
  }
  uint16_t high;  // bf16: the upper half of a float
  std::memcpy(&high, bytes, sizeof(high));
  return std::bit_cast<float>(uint32_t{high} << 16);
}

absl::StatusOr<std::vector<std::vector<float>>> ReadLogprobs(const SafetensorsFile& file,
                                                             const std::string& key, DType dtype) {
  std::vector<std::vector<float>> steps;
  const auto found = file.tensors.find(key);
  if (found == file.tensors.end()) {
    return absl::NotFoundError(absl::StrCat("no logits ", key));
  }
  const TensorView& view = found->second;
  if (view.dtype != dtype || view.shape.size() != 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("logits ", key, " have another dtype or are not [steps, vocab]"));
  }
  std::vector<float> row(view.shape[1]);
  const std::byte* next = view.bytes.data();
  for (int64_t step = 0; step < view.shape[0]; ++step) {
    for (float& logit : row) {
      logit = ToFloat(dtype, next);
      next += ElementSize(dtype);
    }
    steps.push_back(LogSoftmax(row));
  }
  return steps;
}

/// Fills bf16_logprobs of all cases.
absl::Status AddBf16(const std::string& path, std::vector<GoldenCase>& cases) {
  if (!std::filesystem::exists(path)) {
    return absl::OkStatus();
  }
  TENON_ASSIGN_OR_RETURN(const FileBytes bytes, MapFile(path));
  TENON_ASSIGN_OR_RETURN(const SafetensorsFile file, ParseSafetensors(path, bytes.bytes, {}));
  for (GoldenCase& golden : cases) {
    TENON_ASSIGN_OR_RETURN(const auto steps, ReadLogprobs(file, golden.name, DType::kBF16));
    golden.bf16_logprobs = steps.front();
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Goldens> LoadGoldens(const std::string& folder, const std::string& source_dir) {
  TENON_ASSIGN_OR_RETURN(const std::string text,
                         ReadSmallFile(folder + "/golden.json", kMaxGoldenBytes));
  TENON_ASSIGN_OR_RETURN(const FileBytes bytes, MapFile(folder + "/golden.safetensors"));
  TENON_ASSIGN_OR_RETURN(const SafetensorsFile file,
                         ParseSafetensors("golden.safetensors", bytes.bytes, {}));
  const nlohmann::json json = nlohmann::json::parse(text);  // our own file: may throw
  Goldens goldens;
  for (const auto& [name, path] : json.at("adapters").items()) {
    goldens.adapters[name] = absl::StrCat(source_dir, "/", path.get<std::string>());
  }
  for (const nlohmann::json& entry : json.at("cases")) {
    GoldenCase golden;
    golden.name = entry.at("name");
    golden.adapter = entry.at("adapter").is_null() ? "" : entry.at("adapter");
    for (const nlohmann::json& part : entry.value("selection", nlohmann::json::array())) {
      golden.selection.emplace_back(part.at("adapter"), part.at("weight").get<float>());
    }
    golden.prompt = entry.at("prompt").get<std::vector<int32_t>>();
    golden.tokens = entry.at("tokens").get<std::vector<int32_t>>();
    golden.margins = entry.at("margins").get<std::vector<float>>();
    if (entry.contains("logits") && !entry.at("logits").is_null()) {
      TENON_ASSIGN_OR_RETURN(golden.logprobs, ReadLogprobs(file, entry.at("logits"), DType::kF32));
    }
    goldens.cases.push_back(std::move(golden));
  }
  TENON_RETURN_IF_ERROR(AddBf16(folder + "/golden-bf16.safetensors", goldens.cases));
  return goldens;
}

}  // namespace tenon
