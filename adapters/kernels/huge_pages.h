// AdviseHugePages: fewer address translations for matrices that are read whole.
#ifndef TENON_ADAPTERS_KERNELS_HUGE_PAGES_H_
#define TENON_ADAPTERS_KERNELS_HUGE_PAGES_H_

#include <ATen/core/Tensor.h>

namespace tenon {

/// Asks the kernel for large pages (on x86 2 MiB) behind a tensor that nothing was written to yet.
/// A step reads all weights front to back; with pages of 4 KiB the processor's prefetch stops at
/// the end of each. Only a hint: where there are no such pages nothing changes, and neither does
/// how much memory is used, as only pages that lie wholly in the process's memory are joined.
/// Source: madvise(2), MADV_HUGEPAGE.
void AdviseHugePages(const at::Tensor& tensor);

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_HUGE_PAGES_H_
