// TextGeneration: a request from text to text, for whatever protocol carries it.
#ifndef TENON_SERVER_ENGINE_TEXT_GENERATION_H_
#define TENON_SERVER_ENGINE_TEXT_GENERATION_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "adapters/registry/adapter_registry.h"
#include "adapters/registry/adapter_selection.h"
#include "server/engine/engine.h"
#include "server/engine/text_request.h"
#include "server/engine/token_stream.h"
#include "server/tokenizer/text_stream.h"
#include "server/tokenizer/tokenizer.h"

namespace tenon {

/// The end of one sample.
struct TextFinish {
  FinishReason reason = FinishReason::kNone;
  std::string stop_string;  ///< when that was the reason
  int64_t num_prompt_tokens = 0;
  int64_t num_cached_tokens = 0;
  /// Up to and with the one that ended the sample, whatever the engine ran beyond it.
  int64_t num_generated_tokens = 0;
  SequenceTimings timings;
  absl::Duration device_time;
};

/// What is new of one sample.
struct TextChunk {
  int32_t sample_index = 0;
  std::string text;                  ///< whole UTF-8 characters
  std::vector<SampledToken> tokens;  ///< those that became known, whether their text is out
  std::vector<SampledToken> prompt_logprobs;  ///< once, with sample 0
  std::optional<TextFinish> finish;           ///< in the sample's last chunk
};

/// Reads one request's TokenStream as text.
///
/// Cancel is thread-safe; all else belongs to one reader at a time. A reader calls Next until it
/// gives nothing, then waits for the on_readable of TextGenerator::Start:
///
///   while (std::optional<TextChunk> chunk = generation->Next()) Send(*chunk);
///   if (generation->finished()) End(generation->status());
class TextGeneration {
 public:
  /// `tokenizer` is borrowed.
  TextGeneration(const Tokenizer* tokenizer, TextRequest request,
                 std::shared_ptr<const AdapterSelection> selection,
                 std::shared_ptr<TokenStream> stream);
  TextGeneration(const TextGeneration&) = delete;
  TextGeneration& operator=(const TextGeneration&) = delete;

  /// The next chunk, joined from all events of its sample that are there. Nothing after a failure.
  std::optional<TextChunk> Next();

  /// Whether every sample has ended and its last chunk was taken.
  bool finished() const { return num_unfinished_ == 0 && ready_.empty(); }
  /// Whether Next may have something of which on_readable has told already.
  bool has_more() const { return !ready_.empty() || !stream_->empty(); }
  /// Why the request failed, all its samples with it. OK while it runs and when it succeeded.
  const absl::Status& status() const { return status_; }

  /// Ends what still runs at the next step boundary; the finish events still arrive.
  void Cancel(FinishReason reason) { stream_->CancelAll(reason); }

  const AdapterSelection& selection() const { return *selection_; }
  const TextRequest& request() const { return request_; }

 private:
  struct Sample {
    Sample(const Tokenizer* tokenizer, const TextStreamOptions& options)
        : text(tokenizer, options) {}
    TextStream text;
    TextChunk chunk;       // what has been joined since the sample's last one
    bool touched = false;  // chunk is in the current round
    std::string stop_string;
    int64_t num_tokens = 0;
  };

  void TakeEvents();
  void Take(TokenEvent event);
  void Take(PromptEvent event);
  void Take(FinishEvent event);
  void AddPiece(absl::StatusOr<TextPiece> piece, int32_t sample_index);
  TextChunk& Touch(int32_t sample_index);
  void Fail(const absl::Status& status);

  const TextRequest request_;
  const std::shared_ptr<const AdapterSelection> selection_;
  const std::shared_ptr<TokenStream> stream_;
  const absl::flat_hash_set<int32_t> stop_tokens_;
  std::vector<Sample> samples_;
  std::deque<TextChunk> ready_;
  int64_t num_unfinished_;
  absl::Status status_;
};

/// Starts requests: adapter, prompt, engine. Thread-safe. All pointers are borrowed.
class TextGenerator {
 public:
  struct Options {
    int64_t max_context_tokens = 0;
    /// Tokens that may wait for a slow reader before the engine pauses the request.
    int64_t outbox_tokens = 64;
  };
  TextGenerator(Options options, const Tokenizer* tokenizer, const AdapterRegistry* registry,
                Engine* engine);

  /// Fixes the adapter version, makes the prompt and submits it. Takes as long as tokenization.
  /// `on_readable` runs on the engine thread whenever there is something to read, possibly before
  /// this returns, so it only passes the news on.
  ///
  /// NOT_FOUND: no such adapter. INVALID_ARGUMENT: the adapters do not go together, or not with
  /// their weights. FAILED_PRECONDITION: the prompt does not fit the context, or a conversation for
  /// a model without a chat template. Else the errors of Tokenizer and of Engine::Submit.
  absl::StatusOr<std::unique_ptr<TextGeneration>> Start(TextRequest request,
                                                        absl::AnyInvocable<void()> on_readable);

  /// The token ids of a request's input.
  absl::StatusOr<std::vector<int32_t>> MakePrompt(const TextRequest& request) const;

 private:
  absl::StatusOr<std::shared_ptr<const AdapterSelection>> Select(const TextRequest& request) const;
  absl::Status SettleLength(int64_t num_prompt_tokens, int64_t num_virtual_tokens,
                            SamplingParams& sampling) const;

  const Options options_;
  const Tokenizer* const tokenizer_;
  const AdapterRegistry* const registry_;
  Engine* const engine_;
};

}  // namespace tenon

#endif  // TENON_SERVER_ENGINE_TEXT_GENERATION_H_
