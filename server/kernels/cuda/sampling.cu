// The choice of a token, behind adjustments of single logits. It needs no sort: a block has one row
// of logits. Thresholds are found bit by bit, with a pass over the row for each bit; sums are in
// double and in one order.
#include "server/kernels/cuda/tables.cuh"

namespace tenon::cuda {
namespace {

constexpr int kThreads = 512;

// Sums over a block, in one order; every thread gets them. The last barrier lets the next one
// write.
template <typename T>
__device__ T BlockTotal(T value) {
  __shared__ T parts[kThreads];
  parts[threadIdx.x] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) {
      parts[threadIdx.x] += parts[threadIdx.x + half];
    }
    __syncthreads();
  }
  const T total = parts[0];
  __syncthreads();
  return total;
}

// What the threads in front of this one have in all.
template <typename T>
__device__ T BlockBefore(T value) {
  __shared__ T parts[kThreads];
  parts[threadIdx.x] = value;
  __syncthreads();
  if (threadIdx.x == 0) {
    T sum = 0;
    for (int i = 0; i < kThreads; ++i) {
      const T own = parts[i];
      parts[i] = sum;
      sum += own;
    }
  }
  __syncthreads();
  const T before = parts[threadIdx.x];
  __syncthreads();
  return before;
}

// Unsigned integers in the order of the floats: the larger logit has the larger key. No key is 0.
__device__ uint32_t KeyOf(float logit) {
  const uint32_t bits = BitsOfFloat(logit == 0.0f ? 0.0f : logit);  // -0 equals 0
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// One row of logits, and each thread's part of it: consecutive tokens, so that the order of threads
// is that of tokens.
struct Row {
  const float* logits;
  int begin, end;
  float best;
  float temperature;

  __device__ uint32_t Key(int token) const { return KeyOf(logits[token]); }
  __device__ bool IsMasked(int token) const { return logits[token] == -INFINITY; }
  __device__ float Weight(int token) const { return expf((logits[token] - best) / temperature); }

  // Of the unmasked tokens with a key of at least `least`.
  __device__ int Count(uint32_t least) const {
    int count = 0;
    for (int i = begin; i < end; ++i) {
      count += Key(i) >= least && !IsMasked(i) ? 1 : 0;
    }
    return BlockTotal(count);
  }
  __device__ double Mass(uint32_t least) const {
    double mass = 0;
    for (int i = begin; i < end; ++i) {
      mass += Key(i) >= least && !IsMasked(i) ? Weight(i) : 0.0f;
    }
    return BlockTotal(mass);
  }
};

// The largest key for which `enough`, which holds for 1 and, from some key on, no more.
template <typename Enough>
__device__ uint32_t LargestKey(Enough enough) {
  uint32_t key = 0;
  for (int bit = 31; bit >= 0; --bit) {
    const uint32_t longer = key | (1u << bit);
    key = enough(longer) ? longer : key;
  }
  return key;
}

// What top_k and top_p leave: keys above `least`, and the first `num_least` tokens with that key.
struct Kept {
  uint32_t least;
  int num_least;
};

__device__ Kept Filter(const Row& row, const RowSampling& sampling, int vocab_size) {
  Kept kept = {0, vocab_size};
  if (sampling.top_k > 0 && sampling.top_k < vocab_size) {
    kept.least = LargestKey([&](uint32_t key) { return row.Count(key) >= sampling.top_k; });
  }
  if (sampling.top_p < 1.0f) {
    const double target = static_cast<double>(sampling.top_p) * row.Mass(kept.least);
    const uint32_t above_k = kept.least;
    const uint32_t least = LargestKey([&](uint32_t key) { return row.Mass(key) >= target; });
    kept.least = least > above_k ? least : above_k;
    const double above = row.Mass(kept.least + 1);
    const double with = row.Mass(kept.least);
    const int ties = row.Count(kept.least) - row.Count(kept.least + 1);
    const double each = ties > 0 ? (with - above) / ties : 0.0;
    const double wanted = each > 0.0 ? ceil((target - above) / each) : ties;
    kept.num_least = wanted < 1.0 ? 1 : wanted > ties ? ties : static_cast<int>(wanted);
  }
  return kept;
}

// Calls keep(token, weight) for this thread's tokens that are left, in order.
template <typename Keep>
__device__ void ForEachKept(const Row& row, const Kept& kept, float min_p, int ties_before,
                            Keep keep) {
  int ties = ties_before;
  for (int i = row.begin; i < row.end; ++i) {
    const uint32_t key = row.Key(i);
    const bool tie = key == kept.least;
    ties += tie ? 1 : 0;
    const float weight = row.Weight(i);
    if (!row.IsMasked(i) && (key > kept.least || (tie && ties <= kept.num_least)) &&
        weight >= min_p) {
      keep(i, weight);
    }
  }
}

__device__ void Draw(const Row& row, const RowSampling& sampling, int vocab_size,
                     SampledRow* result) {
  const Kept kept = Filter(row, sampling, vocab_size);
  int own_ties = 0;
  for (int i = row.begin; i < row.end; ++i) {
    own_ties += row.Key(i) == kept.least ? 1 : 0;
  }
  const int ties = BlockBefore(own_ties);
  double own_mass = 0;
  int last = -1;
  ForEachKept(row, kept, sampling.min_p, ties, [&](int token, float weight) {
    own_mass += weight;
    last = token;
  });
  const double before = BlockBefore(own_mass);
  const double target = sampling.uniform * BlockTotal(own_mass);
  // The first token at which the mass exceeds the target; the last one when rounding lets none do
  // so.
  __shared__ int firsts[kThreads], lasts[kThreads];
  int first = vocab_size;
  double cumulative = before;
  ForEachKept(row, kept, sampling.min_p, ties, [&](int token, float weight) {
    cumulative += weight;
    first = first == vocab_size && cumulative > target ? token : first;
  });
  firsts[threadIdx.x] = first;
  lasts[threadIdx.x] = last;
  __syncthreads();
  if (threadIdx.x == 0) {
    int chosen = vocab_size, fallback = -1;
    for (int thread = 0; thread < kThreads; ++thread) {
      chosen = firsts[thread] < chosen ? firsts[thread] : chosen;
      fallback = lasts[thread] > fallback ? lasts[thread] : fallback;
    }
    *result = {chosen < vocab_size ? chosen : fallback, SampledStatus::kOk};
  }
}

__global__ void SampleRow(SampleCall call) {
  const RowSampling sampling = call.rows[blockIdx.x];
  const float* const logits = call.logits + blockIdx.x * call.stride;
  const int share = (call.vocab_size + kThreads - 1) / kThreads;
  Row row;
  row.logits = logits;
  row.begin = static_cast<int>(threadIdx.x) * share;
  row.end = row.begin + share < call.vocab_size ? row.begin + share : call.vocab_size;
  row.temperature = sampling.temperature;
  __shared__ float largest[kThreads];
  __shared__ int largest_token[kThreads];
  float best = -INFINITY;
  int best_token = call.vocab_size, bad = 0;
  for (int i = row.begin; i < row.end; ++i) {
    bad += logits[i] <= 3.4028234663852886e38f ? 0 : 1;  // NaN and +inf
    if (logits[i] > best) {
      best = logits[i];
      best_token = i;
    }
  }
  bad = BlockTotal(bad);
  largest[threadIdx.x] = best;
  largest_token[threadIdx.x] = best_token;
  __syncthreads();
  for (int thread = 0; thread < kThreads; ++thread) {
    if (largest[thread] > best || (largest[thread] == best && largest_token[thread] < best_token)) {
      best = largest[thread];
      best_token = largest_token[thread];
    }
  }
  __syncthreads();
  SampledRow* const result = call.results + blockIdx.x;
  if (bad > 0 || best == -INFINITY) {
    if (threadIdx.x == 0) {
      *result = {-1, bad > 0 ? SampledStatus::kBadLogits : SampledStatus::kNoToken};
    }
    return;
  }
  row.best = best;
  if (sampling.temperature == 0.0f) {
    if (threadIdx.x == 0) {
      *result = {best_token, SampledStatus::kOk};
    }
    return;
  }
  Draw(row, sampling, call.vocab_size, result);
}

// The product is rounded, as on the CPU, before anything is subtracted from it.
__global__ void AdjustLogit(AdjustCall call) {
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i >= call.num_entries) {
    return;
  }
  const LogitAdjustment entry = call.entries[i];
  float* const logit = call.logits + entry.row * call.stride + entry.token;
  const float biased = *logit + entry.bias;
  const float repeated =
      biased < 0.0f ? __fmul_rn(biased, entry.repetition) : biased / entry.repetition;
  *logit = repeated - entry.penalty;
}

}  // namespace

const char* RunAdjust(const AdjustCall& call, void* stream) {
  if (call.num_entries > 0) {
    const int blocks = (call.num_entries + kThreads - 1) / kThreads;
    TENON_LAUNCH(AdjustLogit, blocks, kThreads, stream, call);
  }
  return LaunchProblem();
}

const char* RunSample(const SampleCall& call, void* stream) {
  if (call.num_rows > 0) {
    TENON_LAUNCH(SampleRow, call.num_rows, kThreads, stream, call);
  }
  return LaunchProblem();
}

}  // namespace tenon::cuda
