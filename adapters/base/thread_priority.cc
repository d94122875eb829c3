#include "adapters/base/thread_priority.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace tenon {
namespace {

constexpr int kNice = 10;

}  // namespace

void LowerThreadPriority() {
  const id_t thread = static_cast<id_t>(syscall(SYS_gettid));
  [[maybe_unused]] const int refused = setpriority(PRIO_PROCESS, thread, kNice);
}

}  // namespace tenon
