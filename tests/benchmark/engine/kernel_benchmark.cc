// Times the CPU kernels next to their ATen references, in one run: on a shared machine only the
// ratio means something.
//
//   kernel_benchmark [gemm|low_rank|attention|elementwise ...]
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "adapters/kernels/cpu_isa.h"
#include "adapters/kernels/low_rank.h"
#include "adapters/kernels/parallel.h"
#include "server/kernels/activation.h"
#include "server/kernels/attention.h"
#include "server/kernels/linear.h"
#include "server/kernels/norm.h"
#include "server/kernels/rope.h"

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
  std::printf("%-52s %9.1f us %7.1f GFLOP/s %6.1f GB/s | ATen %9.1f us | x%.2f\n", name.c_str(),
              fast_s * 1e6, flop / fast_s * 1e-9, bytes / fast_s * 1e-9, reference_s * 1e6,
              reference_s / fast_s);
  std::fflush(stdout);
}

const char* TypeName(at::ScalarType dtype) { return dtype == at::kFloat ? "fp32" : "bf16"; }

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
  std::snprintf(name, sizeof(name), "linear %s rows %3ld  %ld -> %ld", TypeName(dtype),
                static_cast<long>(rows), static_cast<long>(in), static_cast<long>(out));
  Report(
      name, 2.0 * static_cast<double>(rows * in * out), static_cast<double>(bytes),
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

// 32 rows, four for each of eight adapters of rank 16, at one site; and one row alone.
void BenchmarkLowRank(int64_t in, int64_t out, int64_t num_adapters, int64_t rows_each,
                      at::ScalarType dtype) {
  constexpr int64_t kRank = 16;
  const auto options = at::TensorOptions().dtype(dtype);
  std::vector<LowRankDelta> deltas;
  for (int64_t i = 0; i < num_adapters; ++i) {
    deltas.push_back(*LowRankDelta::Create(at::randn({kRank, in}, options),
                                           at::randn({out, kRank}, options), 1));
  }
  std::vector<LowRankTerm> terms;
  for (int64_t i = 0; i < num_adapters; ++i) {
    terms.push_back({i * rows_each, (i + 1) * rows_each, &deltas[static_cast<size_t>(i)], 1e-6f});
  }
  const int64_t rows = num_adapters * rows_each;
  const at::Tensor x = at::randn({rows, in}, options), y = at::randn({rows, out}, options);
  const std::string name = std::string("low_rank ") + TypeName(dtype) + " " +
                           std::to_string(num_adapters) + " x " + std::to_string(rows_each) +
                           " rows " + std::to_string(in) + " -> " + std::to_string(out);
  const auto weights = static_cast<double>(num_adapters * kRank * (in + out));
  Report(
      name, 2.0 * weights * static_cast<double>(rows_each),
      weights * static_cast<double>(c10::elementSize(dtype)), [&] { ApplyLowRank(x, terms, y); },
      [&] { ApplyLowRankReference(x, terms, y); });
}

// A product with a low-rank update in it, next to the product alone.
void BenchmarkUpdate(int64_t in, int64_t out, int64_t rows, int64_t num_adapters,
                     at::ScalarType dtype) {
  constexpr int64_t kRank = 16;
  const auto options = at::TensorOptions().dtype(dtype);
  const Linear base = *Linear::Create({at::randn({out, in}, options)}, {}, KernelKind::kCpu);
  std::vector<LowRankDelta> deltas;
  for (int64_t i = 0; i < num_adapters; ++i) {
    deltas.push_back(*LowRankDelta::Create(at::randn({kRank, in}, options),
                                           at::randn({out, kRank}, options), 1));
  }
  std::vector<LowRankUpdate::Term> terms;
  for (int64_t i = 0; i < num_adapters; ++i) {
    terms.push_back({{i * rows / num_adapters, (i + 1) * rows / num_adapters,
                      &deltas[static_cast<size_t>(i)], 1e-6f},
                     0});
  }
  const at::Tensor x = at::randn({rows, in}, options), y = at::empty({rows, out}, options);
  const double with_s = SecondsPerCall([&] {
    const LowRankUpdate update(x, terms);
    base.Forward(x, y, update.updates());
  });
  const double alone_s = SecondsPerCall([&] { base.Forward(x, y); });
  std::printf(
      "update %s %4ld rows of %2ld adapters, %ld -> %ld: %9.1f us | product alone %9.1f us | "
      "x%.2f\n",
      TypeName(dtype), static_cast<long>(rows), static_cast<long>(num_adapters),
      static_cast<long>(in), static_cast<long>(out), with_s * 1e6, alone_s * 1e6, with_s / alone_s);
  std::fflush(stdout);
}

void BenchmarkLowRanks() {
  for (const at::ScalarType dtype : {at::kBFloat16, at::kFloat}) {
    BenchmarkLowRank(576, 576, 8, 4, dtype);
    BenchmarkLowRank(576, 1536, 8, 4, dtype);
    BenchmarkLowRank(1536, 576, 8, 4, dtype);
    BenchmarkLowRank(576, 576, 1, 1, dtype);
    BenchmarkLowRank(576, 576, 32, 1, dtype);
    BenchmarkLowRank(576, 576, 1, 256, dtype);
    for (const int64_t adapters : {1, 8, 32}) {
      BenchmarkUpdate(768, 4096, 32, adapters, dtype);
      BenchmarkUpdate(768, 4096, 1024, adapters, dtype);
      BenchmarkUpdate(2048, 768, 32, adapters, dtype);
      BenchmarkUpdate(2048, 768, 1024, adapters, dtype);
    }
  }
}

// `sequences` sequences whose last `tokens` of `context` tokens are computed.
void BenchmarkAttention(int64_t sequences, int64_t tokens, int64_t context, int64_t heads,
                        int64_t kv_heads, at::ScalarType dtype) {
  constexpr int64_t kBlockSize = 16, kHeadDim = 64;
  const auto options = at::TensorOptions().dtype(dtype);
  const int64_t blocks_each = (context + kBlockSize - 1) / kBlockSize;
  const KvCacheShape shape{sequences * blocks_each, kBlockSize, kv_heads, kHeadDim};
  const at::Tensor k = at::randn(shape.keys(), options), v = at::randn(shape.values(), options);
  std::vector<int32_t> blocks(static_cast<size_t>(shape.num_blocks));
  for (size_t i = 0; i < blocks.size(); ++i) {
    blocks[i] = static_cast<int32_t>(i);
  }
  std::vector<AttentionRow> rows;
  for (int64_t i = 0; i < sequences; ++i) {
    rows.push_back({i * tokens, tokens, context - tokens,
                    std::span(blocks).subspan(static_cast<size_t>(i * blocks_each),
                                              static_cast<size_t>(blocks_each))});
  }
  const at::Tensor q = at::randn({sequences * tokens, heads, kHeadDim}, options);
  const at::Tensor out = at::empty({sequences * tokens, heads, kHeadDim}, options);
  char name[96];
  std::snprintf(name, sizeof(name), "attention %s %ld x %ld tokens of %ld, %ld/%ld heads",
                TypeName(dtype), static_cast<long>(sequences), static_cast<long>(tokens),
                static_cast<long>(context), static_cast<long>(heads), static_cast<long>(kv_heads));
  const double seen = static_cast<double>(context) - static_cast<double>(tokens - 1) / 2;
  Report(
      name, 4.0 * static_cast<double>(sequences * tokens * heads * kHeadDim) * seen,
      static_cast<double>(k.nbytes() + v.nbytes()),
      [&] { PagedAttention(q, k, v, rows, {0.125f}, out); },
      [&] { PagedAttentionReference(q, k, v, rows, {0.125f}, out); });
}

void BenchmarkAttentions() {
  for (const at::ScalarType dtype : {at::kBFloat16, at::kFloat}) {
    for (const auto& [heads, kv_heads] : {std::pair<int64_t, int64_t>{9, 3}, {12, 12}}) {
      BenchmarkAttention(1, 1, 512, heads, kv_heads, dtype);
      BenchmarkAttention(32, 1, 512, heads, kv_heads, dtype);
      BenchmarkAttention(1, 256, 256, heads, kv_heads, dtype);
      BenchmarkAttention(1, 256, 1024, heads, kv_heads, dtype);
    }
  }
}

void BenchmarkElementwise(int64_t rows, at::ScalarType dtype) {
  const auto options = at::TensorOptions().dtype(dtype);
  const std::string suffix = std::string(" ") + TypeName(dtype) + " rows " + std::to_string(rows);
  const auto bytes = [dtype](int64_t elements) {
    return static_cast<double>(elements) * static_cast<double>(c10::elementSize(dtype));
  };
  const at::Tensor x = at::randn({rows, 576}, options), residual = at::randn({rows, 576}, options);
  const Norm norm = Norm::Make(NormKind::kRms, 1e-5f, at::randn({576}, options), {});
  const at::Tensor y = at::empty({rows, 576}, options);
  Report(
      "add_rms_norm 576" + suffix, 0, bytes(4 * rows * 576),
      [&] { AddNormalize(x, residual, norm, y); },
      [&] { AddNormalizeReference(x, residual, norm, y); });
  const at::Tensor gate_up = at::randn({rows, 3072}, options);
  const at::Tensor gated = at::empty({rows, 1536}, options);
  Report(
      "silu_mul 1536" + suffix, 0, bytes(3 * rows * 1536),
      [&] { Gate(gate_up, Activation::kSilu, gated); },
      [&] { GateReference(gate_up, Activation::kSilu, gated); });
  const at::Tensor heads = at::randn({rows, 12, 64}, options);
  // A rotation proper: applied over and over it must neither grow nor vanish.
  const at::Tensor cos = at::full({rows, 32}, 0.8f), sin = at::full({rows, 32}, 0.6f);
  const at::Tensor positions = at::arange(rows, at::TensorOptions().dtype(at::kLong));
  Report(
      "rope 12 x 64" + suffix, 0, bytes(2 * rows * 768),
      [&] { ApplyRope(heads, cos, sin, positions); },
      [&] { ApplyRopeReference(heads, cos, sin, positions); });
}

}  // namespace
}  // namespace tenon

int main(int argc, char** argv) {
  const std::vector<std::string> wanted(argv + 1, argv + argc);
  const auto runs = [&](const char* name) {
    return wanted.empty() || std::find(wanted.begin(), wanted.end(), name) != wanted.end();
  };
  std::printf("%d threads, %s\n", static_cast<int>(tenon::NumKernelThreads()),
              tenon::IsaName(tenon::ActiveIsa()));
  if (runs("gemm")) {
    tenon::BenchmarkLinears();
  }
  if (runs("low_rank")) {
    tenon::BenchmarkLowRanks();
  }
  if (runs("attention")) {
    tenon::BenchmarkAttentions();
  }
  if (runs("elementwise")) {
    for (const at::ScalarType dtype : {at::kBFloat16, at::kFloat}) {
      for (const int64_t rows : {1, 32, 256}) {
        tenon::BenchmarkElementwise(rows, dtype);
      }
    }
  }
  return 0;
}
