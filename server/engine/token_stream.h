// TokenStream: the bounded outbox between the engine thread and the reader of one request.
#ifndef TENON_SERVER_ENGINE_TOKEN_STREAM_H_
#define TENON_SERVER_ENGINE_TOKEN_STREAM_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/scheduler/sampling_params.h"
#include "server/scheduler/sequence.h"

namespace tenon {

/// A generated token of sample `sample_index`.
struct TokenEvent {
  int32_t sample_index = 0;
  SampledToken token;
};

/// Log-probabilities of prompt tokens 1..n-1, in order; sent once, before the first token, when
/// asked for.
struct PromptEvent {
  std::vector<SampledToken> prompt_logprobs;
};

/// The end of one sample. The request is over when each of its samples has one.
struct FinishEvent {
  int32_t sample_index = 0;
  FinishReason reason = FinishReason::kNone;
  absl::Status status;  ///< not OK with reason kError, kDeadline or kCancelled
  int64_t num_prompt_tokens = 0;
  int64_t num_cached_tokens = 0;
  int64_t num_generated_tokens = 0;
  SequenceTimings timings;
};

using GenerationEvent = std::variant<TokenEvent, PromptEvent, FinishEvent>;

/// One writer (the engine thread, which never waits) and one reader. Two things travel back, both
/// read by the engine at step boundaries: credit and cancellation.
///
/// Thread-safe. Callbacks run without the lock held, on the thread whose call caused them.
/// Finish events are always taken, whatever the credit.
class TokenStream {
 public:
  /// Holds about `capacity` token events before the engine pauses the request.
  explicit TokenStream(int64_t capacity) : capacity_(capacity) {}

  /// Each is set at most once, before the stream is shared: on_readable by the reader, on_credit by
  /// the engine.
  void set_on_readable(absl::AnyInvocable<void()> callback) ABSL_LOCKS_EXCLUDED(mutex_);
  void set_on_credit(absl::AnyInvocable<void()> callback) ABSL_LOCKS_EXCLUDED(mutex_);

  // --- the engine's side ---
  void Push(GenerationEvent event) ABSL_LOCKS_EXCLUDED(mutex_);
  bool has_credit() const ABSL_LOCKS_EXCLUDED(mutex_);
  /// Why sample `index` is to be ended, or kNone.
  FinishReason cancelled(int32_t sample_index) const ABSL_LOCKS_EXCLUDED(mutex_);

  // --- the reader's side ---
  std::optional<GenerationEvent> Pop() ABSL_LOCKS_EXCLUDED(mutex_);
  /// Ends all samples (kCancelled, kDeadline) at the next step boundary.
  void CancelAll(FinishReason reason) ABSL_LOCKS_EXCLUDED(mutex_);
  /// Ends one sample: the reader saw a stop string (kStopString).
  void CancelSample(int32_t sample_index, FinishReason reason) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  const int64_t capacity_;
  mutable absl::Mutex mutex_;
  std::deque<GenerationEvent> events_ ABSL_GUARDED_BY(mutex_);
  FinishReason cancel_all_ ABSL_GUARDED_BY(mutex_) = FinishReason::kNone;
  std::vector<std::pair<int32_t, FinishReason>> cancelled_samples_ ABSL_GUARDED_BY(mutex_);
  bool starved_ ABSL_GUARDED_BY(mutex_) = false;  // the engine saw no credit and waits to be woken
  absl::AnyInvocable<void()> on_readable_;
  absl::AnyInvocable<void()> on_credit_;
};

}  // namespace tenon

#endif  // TENON_SERVER_ENGINE_TOKEN_STREAM_H_
