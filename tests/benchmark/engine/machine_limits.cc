// What this machine can do at best: how fast it reads memory and multiplies matrices. The share of
// these that a server reaches is what tests/benchmark/peers prints beside its rates.
//
//   machine_limits [--threads 2] [--mib 512]
//
// Prints one line of JSON:
//   read_gb_s      all lines of an array that no cache holds, read once: the fastest of 1, 2, 4, 8
//                  streams a thread, fetched ahead, from large pages where the kernel gives them
//   sustained_read_gb_s  the same with the median of the rounds: what a run of seconds can get
//   copy_gb_s      half of the array copied to the other; bytes read and written both count
//   gemm_gflop_s   by dtype and rows, the faster of LibTorch's product (oneDNN) and Tenon's packed
//                  one, over weights [4096, 2048]: two operations a multiply-add
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "adapters/kernels/huge_pages.h"
#include "adapters/kernels/parallel.h"
#include "server/kernels/linear.h"

ABSL_FLAG(int, threads, 0, "threads; 0: one per CPU");
ABSL_FLAG(int64_t, mib, 512, "MiB of the array that is read and copied");

namespace tenon {
namespace {

constexpr int kRounds = 5;
constexpr std::chrono::milliseconds kLeastTime(200);  // longer than a neighbour's turn on the CPU

// Of kRounds rounds or more, in seconds.
struct Times {
  double fastest, median;  // the fastest is what the machine can do undisturbed
};

Times TimesOf(const std::function<void()>& run) {
  std::vector<double> seconds;
  const auto start = std::chrono::steady_clock::now();
  for (int round = 0; round < kRounds || std::chrono::steady_clock::now() - start < kLeastTime;
       ++round) {
    const auto begin = std::chrono::steady_clock::now();
    run();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    seconds.push_back(elapsed.count());
  }
  std::sort(seconds.begin(), seconds.end());
  return {seconds.front(), seconds[seconds.size() / 2]};
}

// Times in which `task(begin, end)` covers [0, size), cut into as many parts as there are
// threads.
Times Sweep(int64_t size, const std::function<void(int64_t, int64_t)>& task) {
  const int64_t parts = NumKernelThreads();
  return TimesOf([&] {
    ParallelFor(parts, size / parts,
                [&](int64_t part) { task(size * part / parts, size * (part + 1) / parts); });
  });
}

// 8 bytes of each cache line of [begin, end), from `streams` places of it at once, each fetched
// ahead.
template <int kStreams>
uint64_t ReadLines(const uint64_t* begin, const uint64_t* end) {
  constexpr int64_t kLine = 64 / sizeof(uint64_t), kAhead = 16 * kLine;
  const int64_t length = (end - begin) / kStreams;
  uint64_t sums[kStreams] = {};
  for (int64_t i = 0; i < length; i += kLine) {
    for (int s = 0; s < kStreams; ++s) {
      const uint64_t* const at = begin + s * length + i;
      __builtin_prefetch(at + kAhead);
      sums[s] += *at;
    }
  }
  return std::accumulate(sums, sums + kStreams, uint64_t{0});
}

template <int kStreams>
Times ReadTimes(std::span<const uint64_t> array) {
  std::atomic<uint64_t> sum{0};  // so that the reads are not for nothing
  const Times times = Sweep(static_cast<int64_t>(array.size()), [&](int64_t begin, int64_t end) {
    sum += ReadLines<kStreams>(array.data() + begin, array.data() + end);
  });
  if (sum == 0) {
    std::fprintf(stderr, "the machine does not add right\n");
    std::exit(1);
  }
  return times;
}

nlohmann::json MemoryLimits(int64_t num_bytes) {
  const at::Tensor memory = at::empty({num_bytes}, at::kByte);
  AdviseHugePages(memory);
  std::span<uint64_t> array(static_cast<uint64_t*>(memory.mutable_data_ptr()),
                            static_cast<size_t>(num_bytes) / sizeof(uint64_t));
  std::fill(array.begin(), array.end(), 1);
  const std::array<Times, 4> reads = {ReadTimes<1>(array), ReadTimes<2>(array), ReadTimes<4>(array),
                                      ReadTimes<8>(array)};
  const double fastest_s = std::ranges::min(reads, {}, &Times::fastest).fastest;
  const double sustained_s = std::ranges::min(reads, {}, &Times::median).median;
  const auto half = static_cast<int64_t>(array.size() / 2);
  const Times copies = Sweep(half, [&](int64_t begin, int64_t end) {
    std::memcpy(array.data() + half + begin, array.data() + begin,
                static_cast<size_t>(end - begin) * sizeof(uint64_t));
  });
  const double gb = static_cast<double>(num_bytes) * 1e-9;
  return {{"read_gb_s", gb / fastest_s},
          {"sustained_read_gb_s", gb / sustained_s},
          {"copy_gb_s", gb / copies.fastest}};
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
    best = std::max(best, flop * 1e-9 / TimesOf([&] { linear.Forward(x, y); }).fastest);
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
  for (const auto& [name, dtype] :
       {std::pair("bf16", at::kBFloat16), std::pair("fp32", at::kFloat)}) {
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
