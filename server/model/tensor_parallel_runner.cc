#include "server/model/tensor_parallel_runner.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

// One rank's part of a step. A rank that fails is not waited for.
absl::StatusOr<StepOutput> RunRank(DecoderRunner& runner, Collective* collective,
                                   const Batch& batch,
                                   std::span<const ResolvedSelection> adapters) {
  runner.set_collective(collective);
  absl::StatusOr<StepOutput> output = runner.Run(batch, adapters);
  if (!output.ok()) {
    collective->Close();
  }
  return output;
}

}  // namespace

// A thread that runs one rank's part of a step at a time. Begin and Wait are the engine thread's.
class TensorParallelRunner::RankThread {
 public:
  explicit RankThread(std::unique_ptr<DecoderRunner> runner)
      : runner_(std::move(runner)), thread_([this] { Work(); }) {}

  ~RankThread() {
    {
      absl::MutexLock lock(&mutex_);
      state_ = State::kStopping;
    }
    thread_.join();
  }

  // Begins a step. The arguments live until Wait has returned.
  void Begin(Collective* collective, const Batch& batch,
             std::span<const ResolvedSelection> adapters) {
    absl::MutexLock lock(&mutex_);
    collective_ = collective;
    batch_ = &batch;
    adapters_ = adapters;
    state_ = State::kRunning;
  }

  // Waits for the end of the step that was begun last.
  absl::Status Wait() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](RankThread* self)
             ABSL_EXCLUSIVE_LOCKS_REQUIRED(self->mutex_) { return self->state_ == State::kIdle; },
        this));
    return status_;
  }

  // Between steps.
  DecoderRunner& runner() { return *runner_; }

 private:
  enum class State { kIdle, kRunning, kStopping };

  bool HasNews() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return state_ != State::kIdle; }

  void Work() {
    for (;;) {
      {
        absl::MutexLock lock(&mutex_);
        mutex_.Await(absl::Condition(this, &RankThread::HasNews));
        if (state_ == State::kStopping) {
          return;
        }
      }
      // What Begin has set stays until the step has ended.
      absl::Status status = RunRank(*runner_, collective_, *batch_, adapters_).status();
      absl::MutexLock lock(&mutex_);
      status_ = std::move(status);
      state_ = State::kIdle;
    }
  }

  const std::unique_ptr<DecoderRunner> runner_;
  absl::Mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kIdle;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  Collective* collective_ = nullptr;
  const Batch* batch_ = nullptr;
  std::span<const ResolvedSelection> adapters_;
  std::thread thread_;  // last: it uses the rest
};

absl::StatusOr<std::unique_ptr<TensorParallelRunner>> TensorParallelRunner::Create(
    std::shared_ptr<const Decoder> decoder, int64_t num_blocks, int64_t block_size,
    int64_t max_positions, absl::Duration timeout) {
  TENON_ASSIGN_OR_RETURN(std::unique_ptr<DecoderRunner> first,
                         DecoderRunner::Create(decoder, num_blocks, block_size, max_positions));
  std::vector<std::unique_ptr<RankThread>> others;
  for (int64_t rank = 1; rank < decoder->num_ranks(); ++rank) {
    TENON_ASSIGN_OR_RETURN(
        std::unique_ptr<DecoderRunner> other,
        DecoderRunner::Create(std::shared_ptr<const Decoder>(decoder, &decoder->OfRank(rank)),
                              num_blocks, block_size, max_positions));
    others.push_back(std::make_unique<RankThread>(std::move(other)));
  }
  std::unique_ptr<TensorParallelRunner> runner(
      new TensorParallelRunner(timeout, std::move(first), std::move(others)));
  TENON_RETURN_IF_ERROR(runner->Connect());
  return runner;
}

TensorParallelRunner::TensorParallelRunner(absl::Duration timeout,
                                           std::unique_ptr<DecoderRunner> first,
                                           std::vector<std::unique_ptr<RankThread>> others)
    : timeout_(timeout), first_(std::move(first)), others_(std::move(others)) {}

TensorParallelRunner::~TensorParallelRunner() = default;

absl::Status TensorParallelRunner::Connect() {
  if (num_ranks() > 1) {
    TENON_ASSIGN_OR_RETURN(group_, Collective::ConnectGloo(num_ranks(), timeout_));
  }
  return absl::OkStatus();
}

absl::Status TensorParallelRunner::ErrorOf(std::span<const absl::Status> ranks) const {
  int64_t culprit = -1;
  for (int64_t rank = 0; rank < num_ranks(); ++rank) {
    const auto failed = [&](int64_t index) { return !ranks[static_cast<size_t>(index)].ok(); };
    const auto is_consequence = [&](int64_t index) {
      return group_[static_cast<size_t>(index)]->broken();
    };
    if (failed(rank) && (culprit < 0 || (is_consequence(culprit) && !is_consequence(rank)))) {
      culprit = rank;
    }
  }
  if (culprit < 0) {
    return absl::OkStatus();
  }
  return Annotate(ranks[static_cast<size_t>(culprit)],
                  absl::StrCat("tensor-parallel rank ", culprit, " of ", num_ranks()));
}

absl::StatusOr<StepOutput> TensorParallelRunner::Run(const Batch& batch,
                                                     std::span<const ResolvedSelection> adapters) {
  if (others_.empty()) {
    return first_->Run(batch, adapters);
  }
  if (group_.empty()) {
    TENON_RETURN_IF_ERROR(Connect());
  }
  for (size_t i = 0; i < others_.size(); ++i) {
    others_[i]->Begin(group_[i + 1].get(), batch, adapters);
  }
  absl::StatusOr<StepOutput> output = RunRank(*first_, group_.front().get(), batch, adapters);
  std::vector<absl::Status> ranks = {output.status()};
  for (const std::unique_ptr<RankThread>& other : others_) {
    ranks.push_back(other->Wait());
  }
  if (absl::Status error = ErrorOf(ranks); !error.ok()) {
    group_.clear();
    return error;
  }
  return output;
}

void TensorParallelRunner::set_poison_freed_blocks(bool poison) {
  first_->set_poison_freed_blocks(poison);
  for (const std::unique_ptr<RankThread>& other : others_) {
    other->runner().set_poison_freed_blocks(poison);
  }
}

void TensorParallelRunner::set_merge_costs(const MergeCosts& costs) {
  first_->set_merge_costs(costs);
  for (const std::unique_ptr<RankThread>& other : others_) {
    other->runner().set_merge_costs(costs);
  }
}

}  // namespace tenon
