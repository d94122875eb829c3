// What this machine can do at best: how fast it reads memory and multiplies matrices. The share of
// these that a server reaches is what tests/benchmark/peers prints beside its rates.
//
//   machine_limits [--threads 2] [--mib 512]
//
// Prints one line of JSON:
//   read_gb_s      sum over an array that no cache holds
//   copy_gb_s      the same array copied; bytes read and bytes written both count
//   gemm_gflop_s   by dtype and rows, the faster of LibTorch's product (oneDNN) and Tenon's packed
//                  one, over weights [4096, 2048]: two operations a multiply-add
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "adapters/kernels/parallel.h"
#include "server/kernels/linear.h"

ABSL_FLAG(int, threads, 0, "threads; 0: one per CPU");
ABSL_FLAG(int64_t, mib, 512, "MiB of the array that is read and copied");

namespace tenon {
namespace {

constexpr int kRounds = 5;

// The fastest of several rounds, in seconds: a limit is what the machine can do undisturbed.
double Fastest(const std::function<void()>& run) {
  double best = 1e9;
  for (int round = 0; round < kRounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    run();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    best = std::min(best, elapsed.count());
  }
  return best;
}

// Seconds in which `task(begin, end)` covers [0, size), cut into as many parts as there are threads.
double Sweep(int64_t size, const std::function<void(int64_t, int64_t)>& task) {
  const int64_t parts = NumKernelThreads();
  return Fastest([&] {
    ParallelFor(parts, size / parts, [&](int64_t part) {
      task(size * part / parts, size * (part + 1) / parts);
    });
  });
}

nlohmann::json MemoryLimits(int64_t num_bytes) {
  std::vector<uint64_t> source(static_cast<size_t>(num_bytes) / sizeof(uint64_t), 1);
  std::vector<uint64_t> target(source.size(), 0);
  std::atomic<uint64_t> sum{0};  // so that the reads are not for nothing
  const auto size = static_cast<int64_t>(source.size());
  const double read_s = Sweep(size, [&](int64_t begin, int64_t end) {
    sum += std::accumulate(source.begin() + begin, source.begin() + end, uint64_t{0});
  });
  const double copy_s = Sweep(size, [&](int64_t begin, int64_t end) {
    std::memcpy(target.data() + begin, source.data() + begin,
                static_cast<size_t>(end - begin) * sizeof(uint64_t));
  });
  const double gb = static_cast<double>(num_bytes) * 1e-9;
  if (sum != source.size() * kRounds || target != source) {
    std::fprintf(stderr, "the machine does not add or copy right\n");
    std::exit(1);
  }
  return {{"read_gb_s", gb / read_s}, {"copy_gb_s", 2 * gb / copy_s}};
}

double GemmGflops(int64_t rows, at::ScalarType dtype) {
  constexpr int64_t kIn = 2048, kOut = 4096;
  const auto options = at::TensorOptions().dtype(dtype);
  const at::Tensor weight = at::randn({kOut, kIn}, options);
  const at::Tensor x = at::randn({rows, kIn}, options), y = at::empty({rows, kOut}, options);
  const double flop = 2.0 * static_cast<double>(rows * kIn * kOut);
  double best = 0;
  for (const KernelKind kind : {KernelKind::kReference, KernelKind::kCpu}) {
    const Linear linear = *Linear::Create({weight}, {}, kind);
    linear.Forward(x, y);
    best = std::max(best, flop * 1e-9 / Fastest([&] { linear.Forward(x, y); }));
  }
  return best;
}

int Main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  if (const int threads = absl::GetFlag(FLAGS_threads); threads > 0) {
    SetNumKernelThreads(threads);
  }
  nlohmann::json limits = MemoryLimits(absl::GetFlag(FLAGS_mib) << 20);
  limits["threads"] = NumKernelThreads();
  for (const auto& [name, dtype] : {std::pair("bf16", at::kBFloat16), std::pair("fp32", at::kFloat)}) {
    for (const int64_t rows : {1, 8, 32, 256, 512}) {
      limits["gemm_gflop_s"][name][std::to_string(rows)] = GemmGflops(rows, dtype);
    }
  }
  std::printf("%s\n", limits.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace tenon

int main(int argc, char** argv) { return tenon::Main(argc, argv); }
