#include "adapters/kernels/huge_pages.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <cstddef>
#include <cstdint>

namespace tenon {

void AdviseHugePages([[maybe_unused]] const at::Tensor& tensor) {
#if defined(MADV_HUGEPAGE)
  // Neighbours in memory may share a large page, so that smaller matrices than one get some too.
  constexpr size_t kLeastBytes = size_t{64} << 10;
  if (tensor.nbytes() < kLeastBytes) {
    return;
  }
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(tensor.mutable_data_ptr());
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t last = (begin + tensor.nbytes()) / page * page;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

}  // namespace tenon
