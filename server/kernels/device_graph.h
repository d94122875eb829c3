// DeviceGraph: launches on a GPU that are recorded once and given to it again as one.
#ifndef TENON_SERVER_KERNELS_DEVICE_GRAPH_H_
#define TENON_SERVER_KERNELS_DEVICE_GRAPH_H_

#include <c10/core/Device.h>

#include <memory>

#include "absl/functional/function_ref.h"
#include "server/kernels/cuda/model_kernels.h"

namespace tenon {

/// A CUDA graph of what a function gives to LibTorch's current stream, which must not be the
/// default one. Addresses are part of it: the memory of all tensors outlives it.
///
/// Not thread-safe.
class DeviceGraph {
 public:
  /// Records `run`, nothing of which is executed. It has been run before, so that libraries have
  /// what they keep. Throws c10::Error when it waits for the device or takes device memory, which
  /// nobody would keep for the graph. OpenKernelLibrary comes first.
  DeviceGraph(c10::Device device, absl::FunctionRef<void()> run);

  /// Gives all of it to LibTorch's current stream. Throws c10::Error.
  void Launch() const;

 private:
  struct Deleter {
    void operator()(cuda::Graph* graph) const;
  };

  c10::Device device_;
  std::unique_ptr<cuda::Graph, Deleter> graph_;
};

}  // namespace tenon

#endif  // TENON_SERVER_KERNELS_DEVICE_GRAPH_H_
