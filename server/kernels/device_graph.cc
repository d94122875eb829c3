#include "server/kernels/device_graph.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/util/Exception.h>

#include <cstdint>

#include "adapters/kernels/device.h"

namespace tenon {
namespace {

const cuda::GraphFunctions& Functions() {
  static const auto& functions = KernelTable<cuda::GraphFunctions>(TENON_GRAPH_FUNCTIONS_SYMBOL);
  return functions;
}

void Check(const char* problem) { TORCH_CHECK(problem == nullptr, "CUDA graph: ", problem); }

// Bytes of device memory that LibTorch has given out so far, whether they have come back.
int64_t BytesGiven(c10::Device device) {
  if (!device.is_cuda()) {
    return 0;
  }
  return c10::getDeviceAllocator(device.type())
      ->getDeviceStats(device.index())
      .allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)]
      .allocated;
}

}  // namespace

void DeviceGraph::Deleter::operator()(cuda::Graph* graph) const { Functions().destroy(graph); }

DeviceGraph::DeviceGraph(c10::Device device, absl::FunctionRef<void()> run) : device_(device) {
  void* const stream = CurrentStream(device);
  const int64_t before = BytesGiven(device);
  cuda::Graph* graph = nullptr;
  Check(Functions().begin_capture(stream));
  try {
    run();
  } catch (...) {
    Functions().end_capture(stream, &graph);
    graph_.reset(graph);
    throw;
  }
  Check(Functions().end_capture(stream, &graph));
  graph_.reset(graph);
  const int64_t taken = BytesGiven(device) - before;
  TORCH_CHECK(taken == 0, "CUDA graph: ", taken, " bytes of device memory were taken");
}

void DeviceGraph::Launch() const {
  Check(Functions().launch(graph_.get(), CurrentStream(device_)));
}

}  // namespace tenon
