// What merging a hot adapter gains: tokens per second with it merged, with it unmerged, and of the
// bare base, side by side in interleaved rounds.
//
//   merge_benchmark --model FOLDER [--rank 16] [--concurrency 16] [--requests 32]
//       [--prompt_tokens 32] [--output_tokens 32] [--rounds 3] [--adapters 1,8,32]
//       [--shares 50,90,100] [--dtype auto] [--threads 2]
//
// `share` percent of the requests are for the hot adapter; the others take turns over the other
// adapters, or are for the base when there are none. Random LoRAs on every linear layer. Prints
// medians, the part of the tokens that ran merged, and how long merging and unmerging took.

#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "adapters/kernels/parallel.h"
#include "server/engine/merge_tier.h"
#include "server/model/decoder_runner.h"
#include "server/model/kv_cache.h"
#include "server/model/model.h"
#include "tests/benchmark/engine/closed_loop.h"

ABSL_FLAG(std::string, model, "", "Hugging Face model folder");
ABSL_FLAG(std::string, dtype, "auto", "auto, fp32 or bf16");
ABSL_FLAG(int64_t, rank, 16, "rank of each adapter");
ABSL_FLAG(int64_t, concurrency, 16, "requests in flight");
ABSL_FLAG(int64_t, requests, 32, "requests of a round");
ABSL_FLAG(int64_t, prompt_tokens, 32, "tokens of each prompt");
ABSL_FLAG(int64_t, output_tokens, 32, "tokens of each answer");
ABSL_FLAG(int64_t, rounds, 3, "rounds of each kind");
ABSL_FLAG(std::vector<std::string>, adapters, (std::vector<std::string>{"1", "8", "32"}),
          "numbers of adapters");
ABSL_FLAG(std::vector<std::string>, shares, (std::vector<std::string>{"50", "90", "100"}),
          "percent of the requests that are for the hot one");
ABSL_FLAG(int, threads, 2, "threads of the kernels");
ABSL_FLAG(bool, always_merged, false, "Use merged weights in mixed steps whatever that costs.");

namespace tenon {
namespace {

constexpr int64_t kBlockSize = 16;
constexpr char kMergedAdapter[] = "merged";
enum class Kind { kBase, kUnmerged, kMerged };

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

// A model, its engine and the tiers, for all rounds.
class Bench {
 public:
  absl::Status Start() {
    ModelOptions model_options;
    if (absl::GetFlag(FLAGS_dtype) != "auto") {
      model_options.dtype = absl::GetFlag(FLAGS_dtype) == "fp32" ? at::kFloat : at::kBFloat16;
    }
    absl::StatusOr<Model> model = LoadModel(absl::GetFlag(FLAGS_model), model_options);
    if (!model.ok()) {
      return model.status();
    }
    model_ = *std::move(model);
    cache_ = std::make_unique<AdapterCache>(int64_t{8} << 30, [this](const AdapterInfo&) {
      return absl::StatusOr<std::shared_ptr<const CompiledAdapter>>(
          RandomAdapter(model_, absl::GetFlag(FLAGS_rank)));
    });
    MergeTier::Options tier_options;
    tier_options.budget_bytes = int64_t{64} << 30;
    tier_options.policy.min_tokens = int64_t{1} << 60;  // rounds say what is merged
    tier_ = std::make_unique<MergeTier>(tier_options, model_.decoder, cache_.get());
    const int64_t context = absl::GetFlag(FLAGS_prompt_tokens) + absl::GetFlag(FLAGS_output_tokens);
    EngineOptions options;
    options.kv_block_size = kBlockSize;
    options.kv_num_blocks = absl::GetFlag(FLAGS_concurrency) * (context / kBlockSize + 2);
    options.scheduler.max_sequences = absl::GetFlag(FLAGS_concurrency);
    options.scheduler.max_context_tokens = context;
    options.scheduler.prefix_cache = false;  // rounds ask the same prompts
    options.max_queued_sequences = absl::GetFlag(FLAGS_requests);
    options.merge_tier = tier_.get();
    absl::StatusOr<std::unique_ptr<DecoderRunner>> runner =
        DecoderRunner::Create(model_.decoder, options.kv_num_blocks, kBlockSize, context);
    if (!runner.ok()) {
      return runner.status();
    }
    if (absl::GetFlag(FLAGS_always_merged)) {
      MergeCosts costs;
      costs.delta_overhead_ns = 1e12;
      (*runner)->set_merge_costs(costs);
    }
    options.on_step = [this](const StepStats& step) {
      if (step.num_prefill_tokens == 0 && step.num_rows == absl::GetFlag(FLAGS_concurrency)) {
        absl::MutexLock lock(&mutex_);
        decode_ms_.push_back(absl::ToDoubleMilliseconds(step.run));
      }
    };
    absl::StatusOr<std::unique_ptr<Engine>> engine =
        Engine::Create(options, *std::move(runner), cache_.get(), absl::Now);
    if (!engine.ok()) {
      return engine.status();
    }
    engine_ = *std::move(engine);
    return absl::OkStatus();
  }

  // Time that it took.
  absl::StatusOr<absl::Duration> SetMode(MergeMode mode) {
    absl::Notification done;
    absl::Status outcome;
    const absl::Time begin = absl::Now();
    tier_->SetMode(SelectionOf(kMergedAdapter), mode, [&](absl::Status status) {
      outcome = std::move(status);
      done.Notify();
    });
    done.WaitForNotification();
    if (!outcome.ok()) {
      return outcome;
    }
    return absl::Now() - begin;
  }

  struct Result {
    double tokens_per_s = 0;
    double merged_part = 0;         // of all tokens
    std::vector<double> decode_ms;  // steps in which every place decodes
  };
  absl::StatusOr<Result> Round(Kind kind, int64_t num_adapters, int64_t share, uint64_t seed) {
    LoopOptions options;
    options.vocab_size = model_.config.vocab_size;
    options.concurrency = absl::GetFlag(FLAGS_concurrency);
    options.requests = absl::GetFlag(FLAGS_requests);
    options.prompt_tokens = absl::GetFlag(FLAGS_prompt_tokens);
    options.output_tokens = absl::GetFlag(FLAGS_output_tokens);
    options.seed = seed;
    options.selection = [=](int64_t index) -> std::shared_ptr<const AdapterSelection> {
      // Bresenham's line: the hot ones are spread evenly.
      const bool is_hot = (index + 1) * share / 100 > index * share / 100;
      if (kind == Kind::kBase || (!is_hot && num_adapters == 1)) {
        return std::make_shared<const AdapterSelection>();
      }
      // The hot one of unmerged rounds is another of the same shape, so that nothing is merged and
      // unmerged in between.
      const char* const hot = kind == Kind::kMerged ? kMergedAdapter : "unmerged";
      return SelectionOf(is_hot ? hot : absl::StrCat("adapter-", index % (num_adapters - 1)));
    };
    const EngineStats before = engine_->stats();
    ClosedLoop loop(engine_.get(), std::move(options));
    if (absl::Status status = loop.Run(); !status.ok()) {
      return status;
    }
    const EngineStats after = engine_->stats();
    absl::MutexLock lock(&mutex_);
    std::vector<double> decode_ms = std::exchange(decode_ms_, {});
    const double generated =
        static_cast<double>(absl::GetFlag(FLAGS_requests) * absl::GetFlag(FLAGS_output_tokens));
    const double all = static_cast<double>(
        absl::GetFlag(FLAGS_requests) *
        (absl::GetFlag(FLAGS_prompt_tokens) + absl::GetFlag(FLAGS_output_tokens) - 1));
    return Result{generated / absl::ToDoubleSeconds(loop.elapsed()),
                  static_cast<double>(after.merged_tokens - before.merged_tokens) / all,
                  std::move(decode_ms)};
  }

 private:
  absl::Mutex mutex_;
  std::vector<double> decode_ms_ ABSL_GUARDED_BY(mutex_);
  Model model_;
  std::unique_ptr<AdapterCache> cache_;
  std::unique_ptr<MergeTier> tier_;
  std::unique_ptr<Engine> engine_;
};

absl::Status RunCell(Bench& bench, int64_t num_adapters, int64_t share) {
  std::map<Kind, std::vector<double>> speeds, steps;
  std::vector<double> merged_parts;
  for (int64_t round = 0; round <= absl::GetFlag(FLAGS_rounds); ++round) {
    for (const Kind kind : {Kind::kBase, Kind::kUnmerged, Kind::kMerged}) {
      const absl::StatusOr<Bench::Result> result =
          bench.Round(kind, num_adapters, share, static_cast<uint64_t>(round));
      if (!result.ok()) {
        return result.status();
      }
      if (round > 0) {  // the first warms up
        speeds[kind].push_back(result->tokens_per_s);
        steps[kind].insert(steps[kind].end(), result->decode_ms.begin(), result->decode_ms.end());
      }
      if (kind == Kind::kMerged) {
        merged_parts.push_back(result->merged_part);
      }
    }
  }
  const double base = Median(speeds[Kind::kBase]);
  std::printf("%8ld %6ld%% %9.1f %9.1f %9.1f %11.3f %11.3f %7.0f%% %8.2f %8.2f %8.2f\n",
              num_adapters, share, base, Median(speeds[Kind::kUnmerged]),
              Median(speeds[Kind::kMerged]), Median(speeds[Kind::kUnmerged]) / base,
              Median(speeds[Kind::kMerged]) / base, 100 * Median(merged_parts),
              Median(steps[Kind::kBase]), Median(steps[Kind::kUnmerged]),
              Median(steps[Kind::kMerged]));
  std::fflush(stdout);
  return absl::OkStatus();
}

absl::Status RunBenchmark() {
  SetNumKernelThreads(absl::GetFlag(FLAGS_threads));
  Bench bench;
  if (absl::Status status = bench.Start(); !status.ok()) {
    return status;
  }
  const absl::StatusOr<absl::Duration> merging = bench.SetMode(MergeMode::kAlways);
  if (!merging.ok()) {
    return merging.status();
  }
  std::printf(
      "merged in %.0f ms\noutput tokens/s, medians of %ld rounds\n"
      "%8s %7s %9s %9s %9s %11s %11s %8s %s\n",
      absl::ToDoubleMilliseconds(*merging), absl::GetFlag(FLAGS_rounds), "adapters", "share",
      "base", "unmerged", "merged", "unmerged/b", "merged/b", "merged",
      "  median decode step, ms: base, unmerged, merged");
  std::fflush(stdout);
  for (const std::string& adapters : absl::GetFlag(FLAGS_adapters)) {
    for (const std::string& share : absl::GetFlag(FLAGS_shares)) {
      int64_t num_adapters = 0, percent = 0;
      if (!absl::SimpleAtoi(adapters, &num_adapters) || !absl::SimpleAtoi(share, &percent) ||
          num_adapters < 1 || percent < 1 || percent > 100) {
        return absl::InvalidArgumentError(absl::StrCat(adapters, " adapters at ", share, " %"));
      }
      if (absl::Status status = RunCell(bench, num_adapters, percent); !status.ok()) {
        return status;
      }
    }
  }
  const absl::StatusOr<absl::Duration> unmerging = bench.SetMode(MergeMode::kNever);
  if (unmerging.ok()) {
    std::printf("unmerged in %.2f ms\n", absl::ToDoubleMilliseconds(*unmerging));
  }
  return unmerging.status();
}

}  // namespace
}  // namespace tenon

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  if (absl::Status status = tenon::RunBenchmark(); !status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  return 0;
}
