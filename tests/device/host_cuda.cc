#include "tests/device/host_cuda.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "tests/device/host_device.h"

struct HostGraph {
  std::vector<std::function<void()>> work;
};

namespace tenon::host_cuda {
namespace {

constexpr unsigned kMaxThreads = 1024;
constexpr size_t kStackBytes = size_t{64} << 10;

[[noreturn]] void Fail(const char* problem) {
  std::fprintf(stderr, "host CUDA: %s\n", problem);
  std::abort();
}

// Saves the registers that a call must keep on the stack (System V x86-64), then goes on where
// `to` stopped.
extern "C" void TenonSwitchFiber(void** from, void* to);
asm(R"(
.globl TenonSwitchFiber
TenonSwitchFiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

// What is being recorded, or null. Of the thread that began it, as a GPU's is.
thread_local std::unique_ptr<HostGraph> captured;

enum class Wait { kNothing, kBlock, kWarp, kEnded };

struct Fiber {
  void* stack_pointer = nullptr;
  dim3 index{0};
  Wait wait = Wait::kEnded;
};

struct Block {
  std::vector<Fiber> fibers{kMaxThreads};
  std::vector<uint32_t> exchanged = std::vector<uint32_t>(kMaxThreads);
  char* stacks = nullptr;
  unsigned size = 0;
  unsigned current = 0;
  void* scheduler = nullptr;
  const std::function<void()>* kernel = nullptr;

  Block() {
    void* const memory = mmap(nullptr, kMaxThreads * kStackBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
      Fail("no memory for stacks");
    }
    stacks = static_cast<char*>(memory);
  }
};

Block& TheBlock() {
  static Block* const block = new Block;
  return *block;
}

void Yield(Wait wait) {
  Block& block = TheBlock();
  Fiber& fiber = block.fibers[block.current];
  fiber.wait = wait;
  TenonSwitchFiber(&fiber.stack_pointer, block.scheduler);
}

void RunFiber() {
  (*TheBlock().kernel)();
  Yield(Wait::kEnded);
}

void Prepare(Block& block, unsigned thread, dim3 shape) {
  Fiber& fiber = block.fibers[thread];
  fiber.index = dim3(thread % shape.x, thread / shape.x % shape.y, thread / shape.x / shape.y);
  fiber.wait = Wait::kNothing;
  // The first switch pops six registers and returns to RunFiber, with the stack as a call leaves
  // it.
  auto** top = reinterpret_cast<void**>(block.stacks + (thread + 1) * kStackBytes) - 1;
  *--top = reinterpret_cast<void*>(&RunFiber);
  for (int i = 0; i < 6; ++i) {
    *--top = nullptr;
  }
  fiber.stack_pointer = top;
}

// Whether all fibers of [begin, end) that have not ended wait for `wait`, and there are some.
bool AllWait(const Block& block, unsigned begin, unsigned end, Wait wait, bool may_end) {
  bool any = false;
  for (unsigned i = begin; i < end; ++i) {
    if (block.fibers[i].wait == Wait::kEnded && may_end) {
      continue;
    }
    if (block.fibers[i].wait != wait) {
      return false;
    }
    any = true;
  }
  return any;
}

// Lets those go on whose barrier is complete. False when everybody has ended.
bool Release(Block& block) {
  bool released = false, alive = false;
  for (unsigned begin = 0; begin < block.size; begin += 32) {
    const unsigned end = begin + 32 < block.size ? begin + 32 : block.size;
    const bool warp = AllWait(block, begin, end, Wait::kWarp, /*may_end=*/false);
    for (unsigned i = begin; i < end; ++i) {
      alive = alive || block.fibers[i].wait != Wait::kEnded;
      if (warp) {
        block.fibers[i].wait = Wait::kNothing;
        released = true;
      }
    }
  }
  if (alive && !released && AllWait(block, 0, block.size, Wait::kBlock, /*may_end=*/true)) {
    for (unsigned i = 0; i < block.size; ++i) {
      Fiber& fiber = block.fibers[i];
      fiber.wait = fiber.wait == Wait::kBlock ? Wait::kNothing : fiber.wait;
    }
    released = true;
  }
  if (alive && !released) {
    Fail("threads of a block wait for others that do not come");
  }
  return alive;
}

void RunBlock(Block& block, dim3 shape) {
  for (unsigned thread = 0; thread < block.size; ++thread) {
    Prepare(block, thread, shape);
  }
  do {
    for (unsigned thread = 0; thread < block.size; ++thread) {
      if (block.fibers[thread].wait == Wait::kNothing) {
        block.current = thread;
        coordinates.thread_index = block.fibers[thread].index;
        TenonSwitchFiber(&block.scheduler, block.fibers[thread].stack_pointer);
      }
    }
  } while (Release(block));
}

}  // namespace

Coordinates coordinates;

bool IsCapturing() { return captured != nullptr; }

void RunOrRecord(std::function<void()> work) {
  if (captured == nullptr) {
    work();
  } else {
    captured->work.push_back(std::move(work));
  }
}

void Launch(dim3 grid, dim3 block_shape, const std::function<void()>& kernel) {
  const HostDeviceAccess access;
  Block& block = TheBlock();
  block.size = block_shape.x * block_shape.y * block_shape.z;
  if (block.size == 0 || block.size > kMaxThreads || grid.x == 0 || grid.y == 0 || grid.y > 65535 ||
      grid.z == 0 || grid.z > 65535) {
    Fail("a launch of no or too many threads or blocks");
  }
  block.kernel = &kernel;
  coordinates.grid = grid;
  coordinates.block = block_shape;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        coordinates.block_index = dim3(x, y, z);
        RunBlock(block, block_shape);
      }
    }
  }
}

void SyncBlock() { Yield(Wait::kBlock); }

unsigned Lane() { return TheBlock().current % 32; }

void CheckMatrix(const void* at, size_t row_bytes) {
  if (reinterpret_cast<uintptr_t>(at) % 32 != 0 || row_bytes % 16 != 0) {
    Fail("a matrix is not aligned");
  }
}

uint32_t Exchange(uint32_t value, unsigned lane) {
  Block& block = TheBlock();
  const unsigned self = block.current;
  block.exchanged[self] = value;
  Yield(Wait::kWarp);
  const uint32_t other = block.exchanged[self / 32 * 32 + lane % 32];
  Yield(Wait::kWarp);  // before the next exchange writes
  return other;
}

}  // namespace tenon::host_cuda

using tenon::host_cuda::captured;

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  if (captured != nullptr) {
    return cudaErrorIllegalState;
  }
  captured = std::make_unique<HostGraph>();
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  *graph = captured.release();
  return *graph == nullptr ? cudaErrorIllegalState : cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned) {
  *executable = new HostGraph(*graph);
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t) {
  for (const std::function<void()>& work : executable->work) {
    work();
  }
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
