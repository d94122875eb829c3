// Tells ThreadSanitizer what absl::Mutex and CondVar do.
//
// The distribution's Abseil is not built with ThreadSanitizer, so its locks look like no locks, and
// every use of a guarded field like a race. These definitions take the place of the library's (an
// executable's symbols come first), announce each acquire and release, and call the originals. Part
// of every test under the tsan preset; see sanitizer/tsan_interface.h for the protocol. The symbols
// are those of Debian 12's Abseil.
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include "absl/synchronization/mutex.h"

// A Status shares its payload by a reference count, whose decrements happen in part inside the
// library: the last owner's delete then seems unordered after the others' reads.
extern "C" const char* __tsan_default_suppressions() { return "race:absl::debian3::Status::Unref"; }

namespace absl {
ABSL_NAMESPACE_BEGIN
namespace {

// The library's definition of the function whose symbol is `name`. A member function is called like
// a plain one whose first argument is `this` (Itanium C++ ABI).
template <typename Function>
Function* Original(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

// `acquire` runs between the announcements; while it does, memory accesses are not judged, so that
// conditions, which any thread may evaluate on behalf of another, are left alone.
template <typename Call>
void Acquire(Mutex* mutex, unsigned flags, Call acquire) {
  __tsan_mutex_pre_lock(mutex, flags);
  acquire();
  __tsan_mutex_post_lock(mutex, flags, 0);
}

template <typename Call>
bool TryAcquire(Mutex* mutex, unsigned flags, Call acquire) {
  __tsan_mutex_pre_lock(mutex, flags | __tsan_mutex_try_lock);
  const bool acquired = acquire();
  __tsan_mutex_post_lock(
      mutex, flags | __tsan_mutex_try_lock | (acquired ? 0 : __tsan_mutex_try_lock_failed), 0);
  return acquired;
}

template <typename Call>
void Release(Mutex* mutex, unsigned flags, Call release) {
  __tsan_mutex_pre_unlock(mutex, flags);
  release();
  __tsan_mutex_post_unlock(mutex, flags);
}

// Waiting gives the mutex up and takes it again, whatever the outcome.
template <typename Call>
auto Wait(Mutex* mutex, Call wait) {
  Release(mutex, 0, [] {});
  __tsan_mutex_pre_lock(mutex, 0);
  const auto result = wait();
  __tsan_mutex_post_lock(mutex, 0, 0);
  return result;
}

}  // namespace

#define ORIGINAL(type, symbol) static auto* const original = Original<type>(symbol)

void Mutex::Lock() {
  ORIGINAL(void(Mutex*), "_ZN4absl7debian35Mutex4LockEv");
  Acquire(this, 0, [this] { original(this); });
}

void Mutex::Unlock() {
  ORIGINAL(void(Mutex*), "_ZN4absl7debian35Mutex6UnlockEv");
  Release(this, 0, [this] { original(this); });
}

bool Mutex::TryLock() {
  ORIGINAL(bool(Mutex*), "_ZN4absl7debian35Mutex7TryLockEv");
  return TryAcquire(this, 0, [this] { return original(this); });
}

void Mutex::ReaderLock() {
  ORIGINAL(void(Mutex*), "_ZN4absl7debian35Mutex10ReaderLockEv");
  Acquire(this, __tsan_mutex_read_lock, [this] { original(this); });
}

void Mutex::ReaderUnlock() {
  ORIGINAL(void(Mutex*), "_ZN4absl7debian35Mutex12ReaderUnlockEv");
  Release(this, __tsan_mutex_read_lock, [this] { original(this); });
}

void Mutex::LockWhen(const Condition& condition) {
  ORIGINAL(void(Mutex*, const Condition&), "_ZN4absl7debian35Mutex8LockWhenERKNS0_9ConditionE");
  Acquire(this, 0, [this, &condition] { original(this, condition); });
}

bool Mutex::LockWhenWithTimeout(const Condition& condition, Duration timeout) {
  ORIGINAL(bool(Mutex*, const Condition&, Duration),
           "_ZN4absl7debian35Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE");
  __tsan_mutex_pre_lock(this, 0);
  const bool held = original(this, condition, timeout);
  __tsan_mutex_post_lock(this, 0, 0);
  return held;
}

bool Mutex::LockWhenWithDeadline(const Condition& condition, Time deadline) {
  ORIGINAL(bool(Mutex*, const Condition&, Time),
           "_ZN4absl7debian35Mutex20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE");
  __tsan_mutex_pre_lock(this, 0);
  const bool held = original(this, condition, deadline);
  __tsan_mutex_post_lock(this, 0, 0);
  return held;
}

void Mutex::Await(const Condition& condition) {
  ORIGINAL(void(Mutex*, const Condition&), "_ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE");
  Wait(this, [this, &condition] {
    original(this, condition);
    return true;
  });
}

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  ORIGINAL(bool(Mutex*, const Condition&, Duration),
           "_ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE");
  return Wait(this, [&] { return original(this, condition, timeout); });
}

bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  ORIGINAL(bool(Mutex*, const Condition&, Time),
           "_ZN4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE");
  return Wait(this, [&] { return original(this, condition, deadline); });
}

void CondVar::Wait(Mutex* mutex) {
  ORIGINAL(void(CondVar*, Mutex*), "_ZN4absl7debian37CondVar4WaitEPNS0_5MutexE");
  absl::Wait(mutex, [&] {
    original(this, mutex);
    return true;
  });
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  ORIGINAL(bool(CondVar*, Mutex*, Duration),
           "_ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE");
  return absl::Wait(mutex, [&] { return original(this, mutex, timeout); });
}

bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  ORIGINAL(bool(CondVar*, Mutex*, Time),
           "_ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE");
  return absl::Wait(mutex, [&] { return original(this, mutex, deadline); });
}

#undef ORIGINAL

ABSL_NAMESPACE_END
}  // namespace absl
