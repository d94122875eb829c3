// absl::Mutex, absl::CondVar and the reference count of absl::Status for ThreadSanitizer builds.
//
// ThreadSanitizer learns what a lock orders from code that it has instrumented or from pthread
// calls. A system's Abseil is neither: its Mutex is atomics and futexes in an uninstrumented shared
// library, so each access under such a lock is reported as a race, and so is the end of each Status
// that two threads have held. The definitions here take the place of the library's (an executable's
// symbols come first) and do the same on top of std::mutex. They are slower, treat readers as
// writers and detect no deadlocks.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace absl {
ABSL_NAMESPACE_BEGIN
namespace {

struct Lockable {
  std::mutex mutex;
  std::condition_variable changed;
};

// The object that stands behind an Abseil one, made on first use: a constant-initialized Mutex has
// no constructor to make it in.
template <typename T>
T& Behind(std::atomic<intptr_t>& word) {
  intptr_t current = word.load(std::memory_order_acquire);
  if (current == 0) {
    T* made = new T;
    if (word.compare_exchange_strong(current, reinterpret_cast<intptr_t>(made),
                                     std::memory_order_acq_rel)) {
      return *made;
    }
    delete made;
  }
  return *reinterpret_cast<T*>(current);
}

// Waits on `changed` with `mutex` held until woken or `deadline`; false at the deadline.
bool WaitUntil(std::condition_variable& changed, std::mutex& mutex, Time deadline) {
  std::unique_lock<std::mutex> lock(mutex, std::adopt_lock);
  std::cv_status status = std::cv_status::no_timeout;
  if (deadline == InfiniteFuture()) {
    changed.wait(lock);
  } else {
    status = changed.wait_until(lock, ToChronoTime(deadline));
  }
  lock.release();
  return status == std::cv_status::no_timeout;
}

bool AwaitHeld(Lockable& lockable, const Condition& condition, Time deadline) {
  while (!condition.Eval()) {
    if (!WaitUntil(lockable.changed, lockable.mutex, deadline)) {
      return condition.Eval();
    }
  }
  return true;
}

Time After(Duration timeout) {
  return timeout == InfiniteDuration() ? InfiniteFuture() : Now() + timeout;
}

}  // namespace

Mutex::~Mutex() { delete reinterpret_cast<Lockable*>(mu_.load(std::memory_order_acquire)); }

void Mutex::Lock() { Behind<Lockable>(mu_).mutex.lock(); }
bool Mutex::TryLock() { return Behind<Lockable>(mu_).mutex.try_lock(); }
void Mutex::Unlock() {
  Lockable& lockable = Behind<Lockable>(mu_);
  lockable.changed.notify_all();  // before: the mutex may be gone as soon as it is free
  lockable.mutex.unlock();
}
void Mutex::AssertHeld() const {}
void Mutex::AssertReaderHeld() const {}
void Mutex::AssertNotHeld() const {}
void Mutex::ForgetDeadlockInfo() {}

void Mutex::ReaderLock() { Lock(); }
bool Mutex::ReaderTryLock() { return TryLock(); }
void Mutex::ReaderUnlock() { Unlock(); }

void Mutex::Await(const Condition& condition) { AwaitWithDeadline(condition, InfiniteFuture()); }
bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  return AwaitWithDeadline(condition, After(timeout));
}
bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  Lockable& lockable = Behind<Lockable>(mu_);
  lockable.changed.notify_all();  // what was written under the lock may be what others wait for
  return AwaitHeld(lockable, condition, deadline);
}

void Mutex::LockWhen(const Condition& condition) {
  LockWhenWithDeadline(condition, InfiniteFuture());
}
bool Mutex::LockWhenWithTimeout(const Condition& condition, Duration timeout) {
  return LockWhenWithDeadline(condition, After(timeout));
}
bool Mutex::LockWhenWithDeadline(const Condition& condition, Time deadline) {
  Lock();
  return AwaitHeld(Behind<Lockable>(mu_), condition, deadline);
}
void Mutex::ReaderLockWhen(const Condition& condition) { LockWhen(condition); }
bool Mutex::ReaderLockWhenWithTimeout(const Condition& condition, Duration timeout) {
  return LockWhenWithTimeout(condition, timeout);
}
bool Mutex::ReaderLockWhenWithDeadline(const Condition& condition, Time deadline) {
  return LockWhenWithDeadline(condition, deadline);
}

CondVar::~CondVar() {
  delete reinterpret_cast<std::condition_variable*>(cv_.load(std::memory_order_acquire));
}
void CondVar::Wait(Mutex* mutex) { WaitWithDeadline(mutex, InfiniteFuture()); }
bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  return WaitWithDeadline(mutex, After(timeout));
}
bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  // A Mutex is one word, and so is what stands behind it.
  static_assert(sizeof(Mutex) == sizeof(std::atomic<intptr_t>));
  Lockable& lockable = Behind<Lockable>(*reinterpret_cast<std::atomic<intptr_t>*>(mutex));
  lockable.changed.notify_all();
  return !WaitUntil(Behind<std::condition_variable>(cv_), lockable.mutex, deadline);
}
void CondVar::Signal() { Behind<std::condition_variable>(cv_).notify_one(); }
void CondVar::SignalAll() { Behind<std::condition_variable>(cv_).notify_all(); }

void Status::UnrefNonInlined(uintptr_t rep) {
  status_internal::StatusRep* status = RepToPointer(rep);
  if (status->ref.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    delete status;
  }
}

ABSL_NAMESPACE_END
}  // namespace absl
