#include "adapters/base/thread_priority.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace tenon {
namespace {

constexpr int kLevels = 5;

}  // namespace

void LowerThreadPriority() {
  const id_t thread = static_cast<id_t>(syscall(SYS_gettid));
  const int now = getpriority(PRIO_PROCESS, thread);
  [[maybe_unused]] const int refused = setpriority(PRIO_PROCESS, thread, now + kLevels);
}

}  // namespace tenon
