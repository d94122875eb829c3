#include "server/tokenizer/detokenizer.h"

#include <span>
#include <utility>

#include "absl/strings/match.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

constexpr absl::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// A character has at most four bytes, hence at most four tokens: more that end in U+FFFD are
// certainly broken, whatever comes. Some slack keeps the search for a cut rare.
constexpr size_t kMaxHeldTokens = 16;

bool IsContinuationByte(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

}  // namespace

std::string IncrementalDetokenizer::NewText(absl::string_view window_text) const {
  size_t begin = num_emitted_bytes_;
  while (begin < window_text.size() && IsContinuationByte(window_text[begin])) {
    ++begin;
  }
  return begin < window_text.size() ? std::string(window_text.substr(begin)) : std::string();
}

absl::StatusOr<std::string> IncrementalDetokenizer::Append(int32_t id) {
  if (skip_special_tokens_ && tokenizer_->is_special(id)) {
    return std::string();
  }
  window_.push_back(id);
  TENON_ASSIGN_OR_RETURN(const std::string text, tokenizer_->Decode(window_, skip_special_tokens_));
  if (absl::EndsWith(text, kReplacement)) {
    return ReleaseBroken(text);
  }
  std::string piece = NewText(text);
  window_.erase(window_.begin(),
                window_.begin() + static_cast<std::ptrdiff_t>(num_context_tokens_));
  num_context_tokens_ = window_.size();
  TENON_ASSIGN_OR_RETURN(const std::string context,
                         tokenizer_->Decode(window_, skip_special_tokens_));
  num_emitted_bytes_ = context.size();
  release_at_tokens_ = 0;
  return piece;
}

// Bounds the window under a stream of bytes that never form a character. The window is cut where
// decoding the two parts separately gives the text of the whole: then no character spans the cut,
// because parting one that does turns it into more U+FFFD than it was. Text before the cut is
// final.
absl::StatusOr<std::string> IncrementalDetokenizer::ReleaseBroken(absl::string_view window_text) {
  if (release_at_tokens_ == 0) {
    release_at_tokens_ = num_context_tokens_ + kMaxHeldTokens;
  }
  if (window_.size() < release_at_tokens_) {
    return std::string();
  }
  release_at_tokens_ = 2 * window_.size();
  for (size_t cut = window_.size() - 1; cut > num_context_tokens_; --cut) {
    const std::span<const int32_t> all(window_);
    TENON_ASSIGN_OR_RETURN(const std::string before,
                           tokenizer_->Decode(all.first(cut), skip_special_tokens_));
    TENON_ASSIGN_OR_RETURN(const std::string after,
                           tokenizer_->Decode(all.subspan(cut), skip_special_tokens_));
    if (after.empty() || before.size() + after.size() != window_text.size() ||
        !absl::StartsWith(window_text, before) || !absl::EndsWith(window_text, after)) {
      continue;
    }
    std::string piece = NewText(before);
    window_.erase(window_.begin(), window_.begin() + static_cast<std::ptrdiff_t>(cut));
    num_context_tokens_ = 0;
    num_emitted_bytes_ = 0;
    release_at_tokens_ = 0;
    return piece;
  }
  return std::string();
}

absl::StatusOr<std::string> IncrementalDetokenizer::Flush() {
  if (window_.size() == num_context_tokens_) {
    return std::string();
  }
  TENON_ASSIGN_OR_RETURN(const std::string text, tokenizer_->Decode(window_, skip_special_tokens_));
  std::string piece = NewText(text);
  num_context_tokens_ = window_.size();
  num_emitted_bytes_ = text.size();
  return piece;
}

}  // namespace tenon
