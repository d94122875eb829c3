// TextStream: the text of one sample as a client may see it, ended by stop strings.
#ifndef TENON_SERVER_TOKENIZER_TEXT_STREAM_H_
#define TENON_SERVER_TOKENIZER_TEXT_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/tokenizer/detokenizer.h"
#include "server/tokenizer/tokenizer.h"

namespace tenon {

struct TextStreamOptions {
  std::vector<std::string> stop;  ///< stop strings; empty ones are ignored
  int32_t min_tokens = 0;         ///< a stop string that these tokens complete does not count
  bool include_stop = false;      ///< the matched stop string is part of the text
  bool skip_special_tokens = true;
};

struct TextPiece {
  std::string text;                         ///< safe to send; whole UTF-8 characters
  std::optional<std::string> stop_matched;  ///< the stop string that ends the text here
};

/// Detokenizes one sample and looks for stop strings in its text, however they lie across tokens.
/// Text that may be the beginning of a stop string is held back until that is decided.
///
/// Of several stop strings the one that is complete first counts, and of those complete at the same
/// character the longest: the answer does not depend on how the text falls into tokens.
///
/// Not thread-safe; one per sample. `tokenizer` is borrowed.
class TextStream {
 public:
  TextStream(const Tokenizer* tokenizer, TextStreamOptions options);

  /// The text that token `id` makes final. After a match every further piece is empty.
  absl::StatusOr<TextPiece> Append(int32_t id);

  /// The rest, after the last token. It may still complete a stop string.
  absl::StatusOr<TextPiece> Flush();

  bool stopped() const { return stopped_; }

 private:
  struct Match {
    size_t begin = 0, end = 0;  // in pending_
    const std::string* stop = nullptr;
  };
  TextPiece Take(absl::string_view text);
  std::optional<Match> FindStop() const;
  size_t HeldBackBytes() const;

  TextStreamOptions options_;
  IncrementalDetokenizer detokenizer_;
  int64_t num_tokens_ = 0;
  bool stopped_ = false;
  std::string pending_;            // text that is not out yet
  size_t num_searched_bytes_ = 0;  // of pending_: no stop string that ends in these counts
};

}  // namespace tenon

#endif  // TENON_SERVER_TOKENIZER_TEXT_STREAM_H_
