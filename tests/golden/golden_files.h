// Golden files: what the reference computed for one model and its adapters.
#ifndef TENON_TESTS_GOLDEN_GOLDEN_FILES_H_
#define TENON_TESTS_GOLDEN_GOLDEN_FILES_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace tenon {

/// One greedy generation of the reference.
struct GoldenCase {
  std::string name;     ///< "rslora/7"
  std::string adapter;  ///< "" for the base, or where there is a selection
  /// Several adapters with their weights, in order.
  std::vector<std::pair<std::string, float>> selection;
  std::vector<int32_t> prompt;
  std::vector<int32_t> tokens;  ///< what it generated
  std::vector<float> margins;   ///< per step: best minus second best logit
  /// Per step, for as many leading steps as were kept: log-softmax of the logits, [vocab].
  std::vector<std::vector<float>> logprobs;
  /// Log-softmax of the first step's logits of the reference in bf16, [vocab]; empty where the
  /// folder has no golden-bf16.safetensors.
  std::vector<float> bf16_logprobs;
};

struct Goldens {
  std::map<std::string, std::string> adapters;  ///< name -> folder
  std::vector<GoldenCase> cases;
};

/// Reads golden.json, golden.safetensors and, where there is one, golden-bf16.safetensors of a
/// folder that make_goldens.py or make_matrix.sh wrote. Paths inside are relative to `source_dir`.
absl::StatusOr<Goldens> LoadGoldens(const std::string& folder, const std::string& source_dir);

}  // namespace tenon

#endif  // TENON_TESTS_GOLDEN_GOLDEN_FILES_H_
