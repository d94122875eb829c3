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
};

struct Goldens {
  std::map<std::string, std::string> adapters;  ///< name -> folder
  std::vector<GoldenCase> cases;
};

/// Reads golden.json and golden.safetensors of a folder that make_goldens.py wrote. Paths inside
/// are relative to `source_dir`.
absl::StatusOr<Goldens> LoadGoldens(const std::string& folder, const std::string& source_dir);

}  // namespace tenon

#endif  // TENON_TESTS_GOLDEN_GOLDEN_FILES_H_
