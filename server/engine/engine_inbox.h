// EngineInbox: where callers' threads and the engine thread meet.
#ifndef TENON_SERVER_ENGINE_ENGINE_INBOX_H_
#define TENON_SERVER_ENGINE_ENGINE_INBOX_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/engine/engine.h"

namespace tenon {

/// Sequences by tenant.
using SequenceCounts = absl::flat_hash_map<std::string, int64_t>;

/// New requests and wake-ups on their way to the engine thread; counts and stats on their way back.
///
/// Thread-safe. Held by shared_ptr in the callbacks of streams and adapter loads, which may run
/// after the engine is gone; a wake-up then has no effect.
/// Invariant: a sequence is in flight from the Reserve that accepted it until the Report that
/// counts its end, and queued while it is in flight and not running.
class EngineInbox {
 public:
  /// What the engine thread finds at a step boundary.
  struct Mail {
    std::vector<GenerationRequest> requests;
    bool stop = false;
  };

  /// See EngineOptions::max_queued_sequences; a tenant's part is as large as any other's.
  explicit EngineInbox(int64_t max_queued_sequences, bool fair = true)
      : max_queued_sequences_(max_queued_sequences), fair_(fair) {}
  EngineInbox(const EngineInbox&) = delete;
  EngineInbox& operator=(const EngineInbox&) = delete;

  // --- callers ---
  /// Takes places in the queue for the sequences of one request, or says why not: see
  /// Engine::Submit.
  absl::Status Reserve(absl::string_view tenant, int64_t num_sequences) ABSL_LOCKS_EXCLUDED(mutex_);
  /// Queues a request that has its places. UNAVAILABLE, and gives them back, when stopped since.
  absl::Status Put(GenerationRequest request) ABSL_LOCKS_EXCLUDED(mutex_);
  void Wake() ABSL_LOCKS_EXCLUDED(mutex_);
  /// Every later Reserve is refused.
  void Close() ABSL_LOCKS_EXCLUDED(mutex_);
  /// Closes, and tells the engine thread to end.
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_);
  /// Waits until nothing is in flight, at most `timeout`. False when that ran out.
  bool AwaitIdle(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mutex_);
  EngineStats stats() const ABSL_LOCKS_EXCLUDED(mutex_);

  // --- the engine thread ---
  /// Takes what has come since the last call, and forgets the wake-ups until now.
  Mail Take() ABSL_LOCKS_EXCLUDED(mutex_);
  /// Waits for a Put, Wake or Stop since the last Take, at most `timeout`.
  void Wait(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mutex_);
  /// Replaces the stats, and counts more sequences as ended: their last event has been pushed.
  /// `time_per_sequence` is how far apart sequences have been ending lately.
  void Report(const EngineStats& stats, const SequenceCounts& ended,
              absl::Duration time_per_sequence) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  /// Whether there is a place for so many more of that tenant.
  bool HasPlaces(absl::string_view tenant, int64_t num_queued, int64_t num_sequences) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountEnd(absl::string_view tenant, int64_t count) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool has_mail() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return woken_; }
  bool idle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return num_in_flight_ == 0; }

  const int64_t max_queued_sequences_;
  const bool fair_;
  mutable absl::Mutex mutex_;
  std::vector<GenerationRequest> requests_ ABSL_GUARDED_BY(mutex_);
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t num_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  SequenceCounts in_flight_ ABSL_GUARDED_BY(mutex_);  // of tenants that have any
  absl::Duration time_per_sequence_ ABSL_GUARDED_BY(mutex_) = absl::Seconds(1);
  EngineStats stats_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tenon

#endif  // TENON_SERVER_ENGINE_ENGINE_INBOX_H_
