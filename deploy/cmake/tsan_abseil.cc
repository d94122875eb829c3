// Tells ThreadSanitizer of Abseil's locks, in the tsan preset only.
//
// A packaged libabsl is not built with -fsanitize=thread, so that ThreadSanitizer sees neither its
// atomics nor a happens-before edge between Unlock and the next Lock, and reports every guarded
// member as a race. The linker sends our calls here (--wrap, TenonToolchain.cmake); each does the
// real thing and states the edge. The names are mangled with Debian's inline namespace "debian3".
#include <sanitizer/tsan_interface.h>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace {

// A condition that takes the mutex's edge before it is evaluated: Abseil evaluates it with the
// mutex held, out of our sight.
struct GuardedCondition {
  absl::Mutex* mutex;
  const absl::Condition* condition;

  static bool Eval(GuardedCondition* guarded) {
    __tsan_acquire(guarded->mutex);
    return guarded->condition->Eval();
  }
};

// Where HasBeenNotified(), which is inline, reads: the flag behind the mutex.
void* FlagOf(const absl::Notification* notification) {
  return const_cast<char*>(reinterpret_cast<const char*>(notification)) + sizeof(absl::Mutex);
}

}  // namespace

extern "C" {
void __real__ZN4absl7debian35Mutex4LockEv(absl::Mutex*);
void __wrap__ZN4absl7debian35Mutex4LockEv(absl::Mutex* mutex) {
  __real__ZN4absl7debian35Mutex4LockEv(mutex);
  __tsan_acquire(mutex);
}

void __real__ZN4absl7debian35Mutex6UnlockEv(absl::Mutex*);
void __wrap__ZN4absl7debian35Mutex6UnlockEv(absl::Mutex* mutex) {
  __tsan_release(mutex);
  __real__ZN4absl7debian35Mutex6UnlockEv(mutex);
}

void __real__ZN4absl7debian35Mutex10ReaderLockEv(absl::Mutex*);
void __wrap__ZN4absl7debian35Mutex10ReaderLockEv(absl::Mutex* mutex) {
  __real__ZN4absl7debian35Mutex10ReaderLockEv(mutex);
  __tsan_acquire(mutex);
}

void __real__ZN4absl7debian35Mutex12ReaderUnlockEv(absl::Mutex*);
void __wrap__ZN4absl7debian35Mutex12ReaderUnlockEv(absl::Mutex* mutex) {
  __tsan_release(mutex);
  __real__ZN4absl7debian35Mutex12ReaderUnlockEv(mutex);
}

bool __real__ZN4absl7debian35Mutex7TryLockEv(absl::Mutex*);
bool __wrap__ZN4absl7debian35Mutex7TryLockEv(absl::Mutex* mutex) {
  const bool locked = __real__ZN4absl7debian35Mutex7TryLockEv(mutex);
  if (locked) {
    __tsan_acquire(mutex);
  }
  return locked;
}

void __real__ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE(absl::Mutex*, const absl::Condition&);
void __wrap__ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE(absl::Mutex* mutex,
                                                           const absl::Condition& condition) {
  GuardedCondition guarded{mutex, &condition};
  __tsan_release(mutex);
  __real__ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE(
      mutex, absl::Condition(&GuardedCondition::Eval, &guarded));
  __tsan_acquire(mutex);
}

bool __real__ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE(
    absl::Mutex*, const absl::Condition&, absl::Duration);
bool __wrap__ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE(
    absl::Mutex* mutex, const absl::Condition& condition, absl::Duration limit) {
  GuardedCondition guarded{mutex, &condition};
  __tsan_release(mutex);
  const bool met = __real__ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE(
      mutex, absl::Condition(&GuardedCondition::Eval, &guarded), limit);
  __tsan_acquire(mutex);
  return met;
}

bool __real__ZN4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE(
    absl::Mutex*, const absl::Condition&, absl::Time);
bool __wrap__ZN4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE(
    absl::Mutex* mutex, const absl::Condition& condition, absl::Time limit) {
  GuardedCondition guarded{mutex, &condition};
  __tsan_release(mutex);
  const bool met = __real__ZN4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE(
      mutex, absl::Condition(&GuardedCondition::Eval, &guarded), limit);
  __tsan_acquire(mutex);
  return met;
}

void __real__ZN4absl7debian35Mutex8LockWhenERKNS0_9ConditionE(absl::Mutex*, const absl::Condition&);
void __wrap__ZN4absl7debian35Mutex8LockWhenERKNS0_9ConditionE(absl::Mutex* mutex,
                                                              const absl::Condition& condition) {
  GuardedCondition guarded{mutex, &condition};
  __real__ZN4absl7debian35Mutex8LockWhenERKNS0_9ConditionE(
      mutex, absl::Condition(&GuardedCondition::Eval, &guarded));
  __tsan_acquire(mutex);
}

bool __real__ZN4absl7debian35Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE(
    absl::Mutex*, const absl::Condition&, absl::Duration);
bool __wrap__ZN4absl7debian35Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE(
    absl::Mutex* mutex, const absl::Condition& condition, absl::Duration limit) {
  GuardedCondition guarded{mutex, &condition};
  const bool met =
      __real__ZN4absl7debian35Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE(
          mutex, absl::Condition(&GuardedCondition::Eval, &guarded), limit);
  __tsan_acquire(mutex);
  return met;
}

bool __real__ZN4absl7debian35Mutex20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE(
    absl::Mutex*, const absl::Condition&, absl::Time);
bool __wrap__ZN4absl7debian35Mutex20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE(
    absl::Mutex* mutex, const absl::Condition& condition, absl::Time limit) {
  GuardedCondition guarded{mutex, &condition};
  const bool met = __real__ZN4absl7debian35Mutex20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE(
      mutex, absl::Condition(&GuardedCondition::Eval, &guarded), limit);
  __tsan_acquire(mutex);
  return met;
}

void __real__ZN4absl7debian37CondVar4WaitEPNS0_5MutexE(absl::CondVar*, absl::Mutex*);
void __wrap__ZN4absl7debian37CondVar4WaitEPNS0_5MutexE(absl::CondVar* condvar, absl::Mutex* mutex) {
  __tsan_release(mutex);
  __real__ZN4absl7debian37CondVar4WaitEPNS0_5MutexE(condvar, mutex);
  __tsan_acquire(mutex);
}

bool __real__ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE(absl::CondVar*,
                                                                                 absl::Mutex*,
                                                                                 absl::Duration);
bool __wrap__ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE(
    absl::CondVar* condvar, absl::Mutex* mutex, absl::Duration limit) {
  __tsan_release(mutex);
  const bool timed_out =
      __real__ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE(condvar, mutex,
                                                                                  limit);
  __tsan_acquire(mutex);
  return timed_out;
}

bool __real__ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE(absl::CondVar*,
                                                                              absl::Mutex*,
                                                                              absl::Time);
bool __wrap__ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE(
    absl::CondVar* condvar, absl::Mutex* mutex, absl::Time limit) {
  __tsan_release(mutex);
  const bool timed_out = __real__ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE(
      condvar, mutex, limit);
  __tsan_acquire(mutex);
  return timed_out;
}

void __real__ZN4absl7debian312Notification6NotifyEv(absl::Notification*);
void __wrap__ZN4absl7debian312Notification6NotifyEv(absl::Notification* notification) {
  __tsan_release(FlagOf(notification));
  __real__ZN4absl7debian312Notification6NotifyEv(notification);
}

void __real__ZNK4absl7debian312Notification19WaitForNotificationEv(const absl::Notification*);
void __wrap__ZNK4absl7debian312Notification19WaitForNotificationEv(
    const absl::Notification* notification) {
  __real__ZNK4absl7debian312Notification19WaitForNotificationEv(notification);
  __tsan_acquire(FlagOf(notification));
}

bool __real__ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE(
    const absl::Notification*, absl::Duration);
bool __wrap__ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE(
    const absl::Notification* notification, absl::Duration limit) {
  const bool notified =
      __real__ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE(
          notification, limit);
  __tsan_acquire(FlagOf(notification));
  return notified;
}

bool __real__ZNK4absl7debian312Notification31WaitForNotificationWithDeadlineENS0_4TimeE(
    const absl::Notification*, absl::Time);
bool __wrap__ZNK4absl7debian312Notification31WaitForNotificationWithDeadlineENS0_4TimeE(
    const absl::Notification* notification, absl::Time limit) {
  const bool notified =
      __real__ZNK4absl7debian312Notification31WaitForNotificationWithDeadlineENS0_4TimeE(
          notification, limit);
  __tsan_acquire(FlagOf(notification));
  return notified;
}

bool __real__ZN4absl7debian315BlockingCounter14DecrementCountEv(absl::BlockingCounter*);
bool __wrap__ZN4absl7debian315BlockingCounter14DecrementCountEv(absl::BlockingCounter* counter) {
  __tsan_release(counter);
  return __real__ZN4absl7debian315BlockingCounter14DecrementCountEv(counter);
}

void __real__ZN4absl7debian315BlockingCounter4WaitEv(absl::BlockingCounter*);
void __wrap__ZN4absl7debian315BlockingCounter4WaitEv(absl::BlockingCounter* counter) {
  __real__ZN4absl7debian315BlockingCounter4WaitEv(counter);
  __tsan_acquire(counter);
}

}  // extern "C"
