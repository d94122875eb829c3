// Collective: what the ranks of a tensor-parallel model tell each other.
#ifndef TENON_SERVER_KERNELS_COLLECTIVE_H_
#define TENON_SERVER_KERNELS_COLLECTIVE_H_

#include <ATen/core/Tensor.h>
#include <c10/util/intrusive_ptr.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace c10d {
class Backend;
}

namespace tenon {

/// One rank's end of a group. Every rank calls the same operations in the same order with tensors
/// of the same shape and dtype, each on its own thread; a call returns when all have made it.
///
/// Not thread-safe: one thread a rank. The backend is c10d's, here gloo over the loopback
/// interface; any other of c10d's has the same interface.
/// An operation throws c10::Error or std::exception when another rank has closed its end, or is
/// silent for the timeout; the group is then broken() and of no use any more.
class Collective {
 public:
  /// A group of ranks of this process, connected: [size]. `size` is at least 2; `timeout` bounds
  /// the connecting and every operation. UNAVAILABLE when the ranks cannot reach each other.
  static absl::StatusOr<std::vector<std::unique_ptr<Collective>>> ConnectGloo(
      int64_t size, absl::Duration timeout);

  ~Collective();
  Collective(const Collective&) = delete;
  Collective& operator=(const Collective&) = delete;

  /// y = the sum of all ranks' y, in place: fp32 or bf16, contiguous, on the CPU. Added in fp32 in
  /// the order of the ranks and rounded once, so that all ranks get the same bits, and a row the
  /// same ones whatever other rows the call has.
  void AllReduce(const at::Tensor& y);

  /// All ranks' columns side by side: [T, size * columns] of each rank's [T, columns], contiguous,
  /// on the CPU, any dtype.
  at::Tensor GatherColumns(const at::Tensor& columns);

  /// Gives up the group: what other ranks wait for then fails at once.
  void Close();

  int64_t rank() const { return rank_; }
  int64_t size() const { return size_; }
  /// Whether an operation has failed.
  bool broken() const { return broken_; }

 private:
  Collective(c10::intrusive_ptr<c10d::Backend> backend, int64_t rank, int64_t size);

  /// [size, ...] of each rank's contiguous tensor.
  at::Tensor Gather(const at::Tensor& tensor);

  c10::intrusive_ptr<c10d::Backend> backend_;  // null once closed
  const int64_t rank_;
  const int64_t size_;
  bool broken_ = false;
};

}  // namespace tenon

#endif  // TENON_SERVER_KERNELS_COLLECTIVE_H_
