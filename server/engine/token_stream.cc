#include "server/engine/token_stream.h"

namespace tenon {

void TokenStream::set_on_readable(absl::AnyInvocable<void()> callback) {
  absl::MutexLock lock(&mutex_);
  on_readable_ = std::make_shared<absl::AnyInvocable<void()>>(std::move(callback));
}

void TokenStream::set_on_credit(absl::AnyInvocable<void()> callback) {
  absl::MutexLock lock(&mutex_);
  on_credit_ = std::make_shared<absl::AnyInvocable<void()>>(std::move(callback));
}

void TokenStream::Push(GenerationEvent event) {
  Callback on_readable;
  {
    absl::MutexLock lock(&mutex_);
    events_.push_back(std::move(event));
    full_ = full_ || static_cast<int64_t>(events_.size()) >= capacity_;
    on_readable = on_readable_;
  }
  if (on_readable != nullptr) {
    (*on_readable)();
  }
}

bool TokenStream::has_credit() const {
  absl::MutexLock lock(&mutex_);
  return !full_;
}

FinishReason TokenStream::cancelled(int32_t sample_index) const {
  absl::MutexLock lock(&mutex_);
  for (const auto& [index, reason] : cancelled_samples_) {
    if (index == sample_index) {
      return reason;
    }
  }
  return cancel_all_;
}

std::optional<GenerationEvent> TokenStream::Pop() {
  std::optional<GenerationEvent> event;
  Callback on_credit;
  {
    absl::MutexLock lock(&mutex_);
    if (events_.empty()) {
      return std::nullopt;
    }
    event = std::move(events_.front());
    events_.pop_front();
    if (full_ && static_cast<int64_t>(events_.size()) <= capacity_ / 2) {
      full_ = false;
      on_credit = on_credit_;
    }
  }
  if (on_credit != nullptr) {
    (*on_credit)();
  }
  return event;
}

bool TokenStream::empty() const {
  absl::MutexLock lock(&mutex_);
  return events_.empty();
}

void TokenStream::CancelAll(FinishReason reason) {
  Callback on_credit;
  {
    absl::MutexLock lock(&mutex_);
    if (cancel_all_ == FinishReason::kNone) {
      cancel_all_ = reason;
    }
    on_credit = on_credit_;
  }
  if (on_credit != nullptr) {
    (*on_credit)();
  }
}

void TokenStream::CancelSample(int32_t sample_index, FinishReason reason) {
  Callback on_credit;
  {
    absl::MutexLock lock(&mutex_);
    cancelled_samples_.emplace_back(sample_index, reason);  // the first one is the one that counts
    on_credit = on_credit_;
  }
  if (on_credit != nullptr) {
    (*on_credit)();
  }
}

}  // namespace tenon
