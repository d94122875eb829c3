// ModelFolder: writes a small model to a temporary folder.
#ifndef TENON_TESTS_SERVER_MODEL_MODEL_FOLDER_H_
#define TENON_TESTS_SERVER_MODEL_MODEL_FOLDER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace tenon {

struct FloatTensor {
  std::vector<int64_t> shape;
  std::vector<float> values;
};
using FloatTensors = std::map<std::string, FloatTensor>;

/// A folder under the test's temporary directory, removed with its owner.
class ModelFolder {
 public:
  ModelFolder();
  ~ModelFolder();
  ModelFolder(const ModelFolder&) = delete;
  ModelFolder& operator=(const ModelFolder&) = delete;

  const std::string& path() const { return path_; }
  void Write(const std::string& name, absl::string_view text) const;
  /// fp32 tensors; `padding` spaces lengthen the header, to shift the data's alignment.
  void WriteSafetensors(const std::string& name, const FloatTensors& tensors,
                        int padding = 0) const;

 private:
  std::string path_;
};

/// The tensors of SmallConfig() (config_text.h), random but fixed.
FloatTensors SmallWeights();

}  // namespace tenon

#endif  // TENON_TESTS_SERVER_MODEL_MODEL_FOLDER_H_
