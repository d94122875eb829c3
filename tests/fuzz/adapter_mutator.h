// Structure-aware mutation of adapter folders.
#ifndef TENON_TESTS_FUZZ_ADAPTER_MUTATOR_H_
#define TENON_TESTS_FUZZ_ADAPTER_MUTATOR_H_

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/adapters/formats/method_folders.h"

namespace tenon::testing {

/// Makes broken and half-broken variants of a valid folder of each method in turn: tokens of the
/// JSON texts swapped for interesting ones, numbers nudged, bytes flipped, parts cut, doubled or
/// moved. The same seed makes the same mutants. Not thread-safe.
class AdapterMutator {
 public:
  explicit AdapterMutator(uint64_t seed) : random_(seed), folders_(AllMethodFolders()) {}

  /// Of plain PEFT LoRA only.
  static AdapterMutator OfLora(uint64_t seed) {
    AdapterMutator mutator(seed);
    mutator.folders_.resize(1);
    return mutator;
  }

  FileSet Next() {
    const MethodFolder& folder = folders_[next_++ % folders_.size()];
    std::string config = folder.config.dump(), header = folder.weights.header(),
                data = folder.weights.data();
    bool keep_length = true;
    for (int changes = 1 + Pick(3); changes > 0; --changes) {
      switch (Pick(8)) {
        case 0:
        case 1:
        case 2:
          MutateJson(&config);
          break;
        case 3:
        case 4:
        case 5:
          MutateJson(&header);
          break;
        case 6:
          MutateBytes(&data);
          break;
        default:
          keep_length = false;
      }
    }
    const uint64_t length =
        keep_length ? header.size() : header.size() + static_cast<uint64_t>(Number());
    return MakeFileSet({{"adapter_config.json", config},
                        {folder.weights_name, absl::StrCat(LittleEndian64(length), header, data)}});
  }

 private:
  int64_t Pick(int64_t below) {
    return std::uniform_int_distribution<int64_t>(0, below - 1)(random_);
  }

  int64_t Number() {
    static constexpr int64_t kNumbers[] = {0,
                                           1,
                                           -1,
                                           2,
                                           7,
                                           8,
                                           255,
                                           256,
                                           257,
                                           65536,
                                           1 << 20,
                                           1 << 30,
                                           int64_t{1} << 31,
                                           int64_t{1} << 32,
                                           INT64_MAX,
                                           INT64_MIN};
    return kNumbers[Pick(std::size(kNumbers))];
  }

  std::string Token() {
    static const char* const kTokens[] = {"null",
                                          "true",
                                          "false",
                                          "[]",
                                          "{}",
                                          "\"\"",
                                          "1e308",
                                          "1e999",
                                          "-0",
                                          "0.5",
                                          "[[[[[[[[",
                                          "{\"a\":{\"a\":",
                                          "\"F64\"",
                                          "\"BF16\"",
                                          "\"I8\"",
                                          "\"dtype\"",
                                          "\"shape\"",
                                          "\"data_offsets\"",
                                          "\"__metadata__\"",
                                          "\"all-linear\"",
                                          "\".*\"",
                                          "\"(((\"",
                                          "\"\\u0000\"",
                                          "\"pissa\"",
                                          "\"r\"",
                                          "\"target_modules\"",
                                          "\"peft_type\"",
                                          "\"IA3\"",
                                          "\"LOKR\"",
                                          "\"PREFIX_TUNING\"",
                                          "\"lora\"",
                                          "\"post_add\"",
                                          "\"channel\"",
                                          "\"config\"",
                                          "\"model.layers.0.output_adapters.adapters.t.scaling\"",
                                          "18446744073709551615",
                                          ",",
                                          ":",
                                          "}",
                                          "]",
                                          "\"\xff\"",
                                          "\"base_model.model.q_proj.lora_A.weight\""};
    return kTokens[Pick(std::size(kTokens))];
  }

  // [begin, end) of a JSON token near a random place: a string, a number or word, or one mark.
  static std::pair<size_t, size_t> TokenAt(const std::string& text, size_t place) {
    const auto is_word = [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) || c == '.';
    };
    size_t begin = place, end = place + 1;
    if (text[place] == '"') {
      end = std::min(text.find('"', place + 1), text.size() - 1) + 1;
    } else if (is_word(text[place])) {
      while (begin > 0 && is_word(text[begin - 1])) --begin;
      while (end < text.size() && is_word(text[end])) ++end;
    }
    return {begin, end};
  }

  void MutateJson(std::string* text) {
    if (text->empty()) {
      return;
    }
    const auto [begin, end] = TokenAt(*text, Pick(static_cast<int64_t>(text->size())));
    const std::string token = text->substr(begin, end - begin);
    switch (Pick(6)) {
      case 0:
        text->replace(begin, end - begin, Token());
        break;
      case 1:
        text->replace(begin, end - begin, absl::StrCat(Number()));
        break;
      case 2:  // a number one off
        text->replace(begin, end - begin,
                      absl::StrCat(std::strtoull(token.c_str(), nullptr, 10) + Pick(3) - 1));
        break;
      case 3:
        text->erase(begin, end - begin);
        break;
      case 4: {  // a part of the text doubled elsewhere
        const size_t length = std::min<size_t>(text->size() - begin, 1 + Pick(200));
        const std::string part = text->substr(begin, length);
        text->insert(Pick(static_cast<int64_t>(text->size())), part);
        break;
      }
      default:
        MutateBytes(text);
    }
  }

  void MutateBytes(std::string* bytes) {
    if (bytes->empty()) {
      return;
    }
    const size_t place = Pick(static_cast<int64_t>(bytes->size()));
    switch (Pick(4)) {
      case 0:
        (*bytes)[place] = static_cast<char>((*bytes)[place] ^ (1 << Pick(8)));
        break;
      case 1:
        bytes->resize(place);
        break;
      case 2:
        bytes->append(1 + Pick(16), static_cast<char>(Pick(256)));
        break;
      default:  // 0xFF x 4: a NaN when it hits a whole float
        std::fill_n(bytes->begin() + place, std::min<size_t>(4, bytes->size() - place), '\xff');
    }
  }

  std::mt19937_64 random_;
  std::vector<MethodFolder> folders_;
  size_t next_ = 0;
};

/// TENON_FUZZ_SEED, or a fixed seed; TENON_FUZZ_MUTANTS, or `mutants`.
inline uint64_t FuzzSeed() {
  const char* text = std::getenv("TENON_FUZZ_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 20260101;
}
inline int64_t FuzzMutants(int64_t mutants) {
  const char* text = std::getenv("TENON_FUZZ_MUTANTS");
  return text != nullptr ? std::atoll(text) : mutants;
}

}  // namespace tenon::testing

#endif  // TENON_TESTS_FUZZ_ADAPTER_MUTATOR_H_
