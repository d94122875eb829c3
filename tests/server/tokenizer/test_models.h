// The tiny tokenizers of data/ (made by make_test_tokenizers.py) and folders written by a test.
#ifndef TENON_TESTS_SERVER_TOKENIZER_TEST_MODELS_H_
#define TENON_TESTS_SERVER_TOKENIZER_TEST_MODELS_H_

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/tokenizer/tokenizer.h"
#include "tests/source_dir.h"

namespace tenon {

inline std::string DataFolder(absl::string_view name) {
  return SourcePath(absl::StrCat("tests/server/tokenizer/data/", name));
}

inline nlohmann::json ReadJson(const std::string& path) {
  std::ifstream file(path);
  return nlohmann::json::parse(file);
}

/// Loads data/<name>; ends the test program when it cannot.
inline std::unique_ptr<Tokenizer> LoadTestTokenizer(absl::string_view name,
                                                    TokenizerOptions options = {}) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      Tokenizer::Load(DataFolder(name), std::move(options));
  if (!tokenizer.ok()) {
    ADD_FAILURE() << tokenizer.status();
    std::abort();
  }
  return *std::move(tokenizer);
}

/// A model folder that a test fills and that goes away with it.
class ModelFolder {
 public:
  /// Begins with the tokenizer.json of data/<name>, unless the name is empty.
  explicit ModelFolder(absl::string_view name = "bpe") {
    const testing::TestInfo* test = testing::UnitTest::GetInstance()->current_test_info();
    path_ = absl::StrCat(testing::TempDir(), "/tenon_", test->test_suite_name(), "_", test->name());
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
    if (!name.empty()) {
      std::filesystem::copy(absl::StrCat(DataFolder(name), "/tokenizer.json"), path_);
    }
  }
  ~ModelFolder() { std::filesystem::remove_all(path_); }

  ModelFolder& Write(absl::string_view file, absl::string_view bytes) {
    std::ofstream(absl::StrCat(path_, "/", file), std::ios::binary)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return *this;
  }

  absl::StatusOr<std::unique_ptr<Tokenizer>> Load(TokenizerOptions options = {}) const {
    return Tokenizer::Load(path_, std::move(options));
  }

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace tenon

#endif  // TENON_TESTS_SERVER_TOKENIZER_TEST_MODELS_H_
