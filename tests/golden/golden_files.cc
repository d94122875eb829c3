#include "tests/golden/golden_files.h"

#include <cmath>
#include <cstring>
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

absl::StatusOr<std::vector<std::vector<float>>> ReadLogprobs(const SafetensorsFile& file,
                                                             const std::string& key) {
  std::vector<std::vector<float>> steps;
  const auto found = file.tensors.find(key);
  if (found == file.tensors.end()) {
    return absl::NotFoundError(absl::StrCat("no logits ", key));
  }
  const TensorView& view = found->second;
  if (view.dtype != DType::kF32 || view.shape.size() != 2) {
    return absl::InvalidArgumentError(absl::StrCat("logits ", key, " are not fp32 [steps, vocab]"));
  }
  std::vector<float> row(view.shape[1]);
  const size_t row_bytes = row.size() * sizeof(float);
  for (int64_t step = 0; step < view.shape[0]; ++step) {
    std::memcpy(row.data(), view.bytes.data() + step * row_bytes, row_bytes);
    steps.push_back(LogSoftmax(row));
  }
  return steps;
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
      TENON_ASSIGN_OR_RETURN(golden.logprobs, ReadLogprobs(file, entry.at("logits")));
    }
    goldens.cases.push_back(std::move(golden));
  }
  return goldens;
}

}  // namespace tenon
