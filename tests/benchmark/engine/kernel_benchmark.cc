// Times the CPU kernels next to their ATen references, in one run: on a shared machine only the
// ratio means something.
//
//   kernel_benchmark [gemm|low_rank|attention|elementwise ...]
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "server/kernels/linear.h"

namespace tenon {
namespace {

using Clock = std::chrono::steady_clock;

// The fastest of several rounds, in seconds a call: the one that was least disturbed.
double SecondsPerCall(const std::function<void()>& call) {
  call();
  double best = 1e9;
  for (int round = 0; round < 7; ++round) {
    int calls = 0;
    const Clock::time_point begin = Clock::now();
    double elapsed = 0;
    do {
      call();
      ++calls;
      elapsed = std::chrono::duration<double>(Clock::now() - begin).count();
    } while (elapsed < 0.02);
    best = std::min(best, elapsed / calls);
  }
  return best;
}

void Report(const std::string& name, double flop, double bytes, const std::function<void()>& fast,
            const std::function<void()>& reference) {
  const double fast_s = SecondsPerCall(fast);
  const double reference_s = SecondsPerCall(reference);
  std::printf("%-44s %9.1f us %7.1f GFLOP/s %6.1f GB/s | ATen %9.1f us | x%.2f\n", name.c_str(),
              fast_s * 1e6, flop / fast_s * 1e-9, bytes / fast_s * 1e-9, reference_s * 1e6,
              reference_s / fast_s);
  std::fflush(stdout);
}

void BenchmarkLinear(int64_t rows, int64_t in, int64_t out, at::ScalarType dtype) {
  const auto options = at::TensorOptions().dtype(dtype);
  // As many copies as defy the caches at one row: a decoder reads each weight once a step.
  const int64_t bytes = in * out * static_cast<int64_t>(c10::elementSize(dtype));
  const int64_t copies = std::max<int64_t>(1, (int64_t{32} << 20) / bytes);
  std::vector<Linear> fast, reference;
  for (int64_t i = 0; i < copies; ++i) {
    const at::Tensor weight = at::randn({out, in}, options);
    fast.push_back(*Linear::Create({weight}, {}, KernelKind::kCpu));
    reference.push_back(*Linear::Create({weight}, {}, KernelKind::kReference));
  }
  const at::Tensor x = at::randn({rows, in}, options);
  const at::Tensor y = at::empty({rows, out}, options);
  size_t next = 0;
  const auto run = [&](const std::vector<Linear>& layers) {
    layers[next++ % layers.size()].Forward(x, y);
  };
  char name[80];
  std::snprintf(name, sizeof(name), "linear %s rows %3ld  %ld -> %ld",
                dtype == at::kFloat ? "fp32" : "bf16", static_cast<long>(rows),
                static_cast<long>(in), static_cast<long>(out));
  Report(name, 2.0 * static_cast<double>(rows * in * out), static_cast<double>(bytes),
         [&] { run(fast); }, [&] { run(reference); });
}

void BenchmarkLinears() {
  const int64_t shapes[][2] = {{576, 960},  {576, 576},  {576, 3072}, {1536, 576},
                               {768, 2304}, {768, 4096}, {2048, 768}};
  for (const at::ScalarType dtype : {at::kBFloat16, at::kFloat}) {
    for (const auto& shape : shapes) {
      for (const int64_t rows : {1, 8, 32, 256}) {
        BenchmarkLinear(rows, shape[0], shape[1], dtype);
      }
    }
  }
}

}  // namespace
}  // namespace tenon

int main(int argc, char** argv) {
  const std::vector<std::string> wanted(argv + 1, argv + argc);
  const auto runs = [&](const char* name) {
    return wanted.empty() || std::find(wanted.begin(), wanted.end(), name) != wanted.end();
  };
  std::printf("%d threads\n", at::get_num_threads());
  if (runs("gemm")) {
    tenon::BenchmarkLinears();
  }
  return 0;
}
