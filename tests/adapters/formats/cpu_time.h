// The time that a thread has computed, which a busy machine does not stretch.
#ifndef TENON_TESTS_ADAPTERS_FORMATS_CPU_TIME_H_
#define TENON_TESTS_ADAPTERS_FORMATS_CPU_TIME_H_

#include <ctime>

#include "absl/time/time.h"

namespace tenon::testing {

/// Processor time of the calling thread since it began. A parser neither sleeps nor waits, so that
/// a limit on its time is one on this.
inline absl::Duration ThreadCpuTime() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return absl::DurationFromTimespec(time);
}

}  // namespace tenon::testing

#endif  // TENON_TESTS_ADAPTERS_FORMATS_CPU_TIME_H_
