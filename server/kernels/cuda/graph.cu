// CUDA graphs by stream capture.
#include <memory>

#include "server/kernels/cuda/tables.cuh"

namespace tenon::cuda {

struct Graph {
  cudaGraphExec_t executable = nullptr;
  ~Graph() {
    if (executable != nullptr) {
      cudaGraphExecDestroy(executable);
    }
  }
};

namespace {

// Null or what is wrong, of which no later call hears again.
const char* Problem(cudaError_t error) {
  if (error == cudaSuccess) {
    return nullptr;
  }
  cudaGetLastError();
  return cudaGetErrorString(error);
}

// Other threads load adapters meanwhile, which this one's capture does not hinder.
const char* BeginCapture(void* stream) {
  return Problem(
      cudaStreamBeginCapture(static_cast<cudaStream_t>(stream), cudaStreamCaptureModeThreadLocal));
}

const char* EndCapture(void* stream, Graph** graph) {
  cudaGraph_t captured = nullptr;
  auto made = std::make_unique<Graph>();
  const char* problem = Problem(cudaStreamEndCapture(static_cast<cudaStream_t>(stream), &captured));
  if (problem == nullptr) {
    problem = Problem(cudaGraphInstantiate(&made->executable, captured, 0));
  }
  if (captured != nullptr) {
    cudaGraphDestroy(captured);
  }
  *graph = problem == nullptr ? made.release() : nullptr;
  return problem;
}

const char* LaunchGraph(Graph* graph, void* stream) {
  return Problem(cudaGraphLaunch(graph->executable, static_cast<cudaStream_t>(stream)));
}

void DestroyGraph(Graph* graph) { delete graph; }

}  // namespace
}  // namespace tenon::cuda

extern "C" const tenon::cuda::GraphFunctions* tenon_graph_functions_1() {
  using namespace tenon::cuda;
  static const GraphFunctions functions = {&BeginCapture, &EndCapture, &LaunchGraph, &DestroyGraph};
  return &functions;
}
