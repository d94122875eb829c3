#include "server/tokenizer/text_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"

namespace tenon {

TextStream::TextStream(const Tokenizer* tokenizer, TextStreamOptions options)
    : options_(std::move(options)), detokenizer_(tokenizer, options_.skip_special_tokens) {
  std::erase_if(options_.stop, [](const std::string& stop) { return stop.empty(); });
}

absl::StatusOr<TextPiece> TextStream::Append(int32_t id) {
  if (stopped_) {
    return TextPiece();
  }
  ++num_tokens_;
  TENON_ASSIGN_OR_RETURN(const std::string text, detokenizer_.Append(id));
  return Take(text);
}

absl::StatusOr<TextPiece> TextStream::Flush() {
  if (stopped_) {
    return TextPiece();
  }
  TENON_ASSIGN_OR_RETURN(const std::string text, detokenizer_.Flush());
  TextPiece piece = Take(text);
  if (!stopped_) {
    absl::StrAppend(&piece.text, pending_);
    pending_.clear();
    num_searched_bytes_ = 0;
  }
  return piece;
}

TextPiece TextStream::Take(absl::string_view text) {
  absl::StrAppend(&pending_, text);
  if (num_tokens_ > options_.min_tokens) {
    if (const std::optional<Match> match = FindStop(); match.has_value()) {
      stopped_ = true;
      return {pending_.substr(0, options_.include_stop ? match->end : match->begin), *match->stop};
    }
  }
  const size_t num_safe_bytes = pending_.size() - HeldBackBytes();
  TextPiece piece{pending_.substr(0, num_safe_bytes), std::nullopt};
  pending_.erase(0, num_safe_bytes);
  num_searched_bytes_ = pending_.size();
  return piece;
}

std::optional<TextStream::Match> TextStream::FindStop() const {
  std::optional<Match> best;
  for (const std::string& stop : options_.stop) {
    // Only what ends beyond the searched bytes is new.
    const size_t first_end = num_searched_bytes_ + 1;
    const size_t from = first_end > stop.size() ? first_end - stop.size() : 0;
    const size_t begin = pending_.find(stop, from);
    if (begin == std::string::npos) {
      continue;
    }
    const Match match{begin, begin + stop.size(), &stop};
    if (!best.has_value() || match.end < best->end ||
        (match.end == best->end && match.begin < best->begin)) {
      best = match;
    }
  }
  return best;
}

// Length of the longest end of pending_ that is a beginning of a stop string, but not all of it.
size_t TextStream::HeldBackBytes() const {
  size_t held = 0;
  const absl::string_view pending = pending_;
  for (const std::string& stop : options_.stop) {
    for (size_t size = std::min(stop.size() - 1, pending.size()); size > held; --size) {
      if (absl::EndsWith(pending, absl::string_view(stop).substr(0, size))) {
        held = size;
        break;
      }
    }
  }
  return held;
}

}  // namespace tenon
