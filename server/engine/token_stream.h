// TokenStream: the bounded outbox between the engine thread and the reader of one request.
#ifndef TENON_SERVER_ENGINE_TOKEN_STREAM_H_
#define TENON_SERVER_ENGINE_TOKEN_STREAM_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/scheduler/sampling_params.h"
#include "server/scheduler/sequence.h"

namespace tenon {

/// A generated token of sample `sample_index`.
struct TokenEvent {
  int32_t sample_index = 0;
  SampledToken token;
  /// The token ended the sample (kStopToken): it is counted, and no part of the text.
  bool is_stop = false;
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
  absl::Duration device_time;  ///< its part of the steps that it was in
};

using GenerationEvent = std::variant<TokenEvent, PromptEvent, FinishEvent>;

/// One writer (the engine thread, which never waits) and one reader. Two things travel back, both
/// read by the engine at step boundaries: credit and cancellation.
///
/// Thread-safe; may outlive the engine. Callbacks run without the lock held, on the thread whose
/// call caused them, and may run on several threads at once.
/// Finish events are always taken, whatever the credit.
class TokenStream {
 public:
  /// Holds about `capacity` (> 0) events before the engine pauses the request, which goes on when
  /// half of them have been read.
  explicit TokenStream(int64_t capacity) : capacity_(capacity) {}
  TokenStream(const TokenStream&) = delete;
  TokenStream& operator=(const TokenStream&) = delete;

  /// Runs after each Push. Set by the reader, before the stream is submitted.
  void set_on_readable(absl::AnyInvocable<void()> callback) ABSL_LOCKS_EXCLUDED(mutex_);
  /// Runs when credit is back and at each cancellation. Set by the engine, at Submit.
  void set_on_credit(absl::AnyInvocable<void()> callback) ABSL_LOCKS_EXCLUDED(mutex_);

  // --- the engine's side ---
  void Push(GenerationEvent event) ABSL_LOCKS_EXCLUDED(mutex_);
  /// False from the push that fills the stream until half of it has been read.
  bool has_credit() const ABSL_LOCKS_EXCLUDED(mutex_);
  /// Why that sample is to be ended, or kNone.
  FinishReason cancelled(int32_t sample_index) const ABSL_LOCKS_EXCLUDED(mutex_);

  // --- the reader's side ---
  /// The next event, or nothing when none is there now.
  std::optional<GenerationEvent> Pop() ABSL_LOCKS_EXCLUDED(mutex_);
  /// Whether Pop has nothing now.
  bool empty() const ABSL_LOCKS_EXCLUDED(mutex_);
  /// Ends all samples (kCancelled, kDeadline) at the next step boundary.
  void CancelAll(FinishReason reason) ABSL_LOCKS_EXCLUDED(mutex_);
  /// Ends one sample: the reader saw a stop string (kStopString).
  void CancelSample(int32_t sample_index, FinishReason reason) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // Shared so that a caller can copy it under the lock and run it without.
  using Callback = std::shared_ptr<absl::AnyInvocable<void()>>;

  const int64_t capacity_;
  mutable absl::Mutex mutex_;
  std::deque<GenerationEvent> events_ ABSL_GUARDED_BY(mutex_);
  bool full_ ABSL_GUARDED_BY(mutex_) = false;  // was filled, and is not yet half read
  FinishReason cancel_all_ ABSL_GUARDED_BY(mutex_) = FinishReason::kNone;
  std::vector<std::pair<int32_t, FinishReason>> cancelled_samples_ ABSL_GUARDED_BY(mutex_);
  Callback on_readable_ ABSL_GUARDED_BY(mutex_);
  Callback on_credit_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tenon

#endif  // TENON_SERVER_ENGINE_TOKEN_STREAM_H_
