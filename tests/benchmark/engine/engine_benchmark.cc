// How fast the engine serves a closed loop of clients, without gRPC: tokens per second, step times
// and times to the first token.
//
//   engine_benchmark --model FOLDER [--adapters 8] [--rank 16] [--concurrency 16] [--requests 64]
//       [--prompt_tokens 128] [--output_tokens 64] [--shared_prefix 0] [--threads 2] [--warmup 0]
//       [--device cpu]
//
// Adapters are random LoRA deltas on every linear layer, dealt out to the requests in turn; with 0
// of them all requests are for the base. Prompts are random; the first `shared_prefix` tokens are
// the same for all. Prints a table, then one line of JSON.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "adapters/kernels/parallel.h"
#include "server/engine/engine.h"
#include "server/model/decoder_runner.h"
#include "server/model/kv_cache.h"
#include "server/model/model.h"
#include "tests/benchmark/engine/closed_loop.h"

ABSL_FLAG(std::string, model, "", "Hugging Face model folder");
ABSL_FLAG(int64_t, adapters, 8, "random LoRA adapters; 0: base requests only");
ABSL_FLAG(int64_t, rank, 16, "rank of each adapter");
ABSL_FLAG(int64_t, concurrency, 16, "requests in flight");
ABSL_FLAG(int64_t, requests, 64, "requests in all");
ABSL_FLAG(int64_t, warmup, 0, "requests before them, whose tokens do not count");
ABSL_FLAG(int64_t, prompt_tokens, 128, "tokens of each prompt");
ABSL_FLAG(int64_t, output_tokens, 64, "tokens of each answer");
ABSL_FLAG(int64_t, shared_prefix, 0, "leading prompt tokens that all requests share");
ABSL_FLAG(int64_t, max_batch_tokens, 512, "token budget of a step");
ABSL_FLAG(int64_t, prefill_chunk_tokens, 16, "tokens of a prompt in a step that decodes too");
ABSL_FLAG(int64_t, kv_mib, 512, "KV memory in MiB");
ABSL_FLAG(int, threads, 2, "threads of the kernels");
ABSL_FLAG(std::string, device, "cpu", "as tenon-server's");
ABSL_FLAG(bool, cuda_graphs, true, "as tenon-server's");

namespace tenon {
namespace {

constexpr int64_t kBlockSize = 16;

std::shared_ptr<const AdapterSelection> SelectionFor(int64_t index) {
  const int64_t num_adapters = absl::GetFlag(FLAGS_adapters);
  return num_adapters == 0 ? std::make_shared<AdapterSelection>()
                           : SelectionOf(absl::StrCat("adapter-", index % num_adapters));
}

LoopOptions MakeLoopOptions(int64_t vocab_size) {
  LoopOptions options;
  options.vocab_size = vocab_size;
  options.concurrency = absl::GetFlag(FLAGS_concurrency);
  options.requests = absl::GetFlag(FLAGS_requests);
  options.prompt_tokens = absl::GetFlag(FLAGS_prompt_tokens);
  options.output_tokens = absl::GetFlag(FLAGS_output_tokens);
  options.shared_prefix = absl::GetFlag(FLAGS_shared_prefix);
  options.selection = SelectionFor;
  return options;
}

LoopOptions WarmupOf(LoopOptions options) {
  options.requests = absl::GetFlag(FLAGS_warmup);
  options.concurrency = std::min(options.concurrency, options.requests);
  ++options.seed;
  return options;
}

/// By nearest rank: one of the values, never below the fraction asked for.
double Percentile(std::vector<double> values, double fraction) {
  if (values.empty()) {
    return 0;
  }
  std::sort(values.begin(), values.end());
  const double rank = std::ceil(fraction * static_cast<double>(values.size()));
  return values[static_cast<size_t>(rank) - 1];
}

nlohmann::json Summary(const std::vector<double>& milliseconds) {
  return {{"p50", Percentile(milliseconds, 0.5)},
          {"p90", Percentile(milliseconds, 0.9)},
          {"p99", Percentile(milliseconds, 0.99)}};
}

/// Times of the steps by kind, in milliseconds. Filled on the engine's thread.
struct StepTimes {
  std::vector<double> decode, mixed;  // mixed: at least one prefill token
};

void Print(const std::vector<RequestTimes>& times, const StepTimes& steps,
           const EngineStats& stats) {
  absl::Time begin = absl::InfiniteFuture(), end = absl::InfinitePast();
  std::vector<double> ttft, per_token;
  const double num_gaps = std::max<double>(1, absl::GetFlag(FLAGS_output_tokens) - 1);
  for (const RequestTimes& t : times) {
    begin = std::min(begin, t.submitted);
    end = std::max(end, t.finished);
    ttft.push_back(absl::ToDoubleMilliseconds(t.first_token - t.submitted));
    per_token.push_back(absl::ToDoubleMilliseconds(t.finished - t.first_token) / num_gaps);
  }
  const double seconds = absl::ToDoubleSeconds(end - begin);
  nlohmann::json result = {
      {"adapters", absl::GetFlag(FLAGS_adapters)},
      {"rank", absl::GetFlag(FLAGS_rank)},
      {"concurrency", absl::GetFlag(FLAGS_concurrency)},
      {"requests", absl::GetFlag(FLAGS_requests)},
      {"prompt_tokens", absl::GetFlag(FLAGS_prompt_tokens)},
      {"output_tokens", absl::GetFlag(FLAGS_output_tokens)},
      {"threads", absl::GetFlag(FLAGS_threads)},
      {"device", absl::GetFlag(FLAGS_device)},
      {"seconds", seconds},
      {"output_tokens_per_s", static_cast<double>(stats.generated_tokens) / seconds},
      {"prompt_tokens_per_s", static_cast<double>(stats.prompt_tokens) / seconds},
      {"cached_prompt_tokens", stats.cached_prompt_tokens},
      {"preemptions", stats.num_preemptions},
      {"steps", stats.num_steps},
      {"replayed_steps", stats.num_replays},
      {"ttft_ms", Summary(ttft)},
      {"time_per_output_token_ms", Summary(per_token)},
      {"decode_step_ms", Summary(steps.decode)},
      {"mixed_step_ms", Summary(steps.mixed)}};
  std::printf("%-26s %10.1f\n%-26s %10.1f\n%-26s %10ld\n", "output tokens/s",
              result["output_tokens_per_s"].get<double>(), "prompt tokens/s",
              result["prompt_tokens_per_s"].get<double>(), "steps", stats.num_steps);
  std::printf("%-26s %10s %10s %10s\n", "milliseconds", "p50", "p90", "p99");
  for (const char* name :
       {"ttft_ms", "time_per_output_token_ms", "decode_step_ms", "mixed_step_ms"}) {
    const nlohmann::json& row = result[name];
    std::printf("%-26s %10.2f %10.2f %10.2f\n", name, row["p50"].get<double>(),
                row["p90"].get<double>(), row["p99"].get<double>());
  }
  std::printf("%s\n", result.dump().c_str());
}

/// What was counted after `before`.
EngineStats Since(const EngineStats& before, EngineStats now) {
  now.generated_tokens -= before.generated_tokens;
  now.prompt_tokens -= before.prompt_tokens;
  now.cached_prompt_tokens -= before.cached_prompt_tokens;
  now.num_preemptions -= before.num_preemptions;
  now.num_steps -= before.num_steps;
  now.num_replays -= before.num_replays;
  return now;
}

absl::Status RunBenchmark() {
  SetNumKernelThreads(absl::GetFlag(FLAGS_threads));
  ModelOptions model_options;
  if (absl::Status status = SelectDevice(absl::GetFlag(FLAGS_device), model_options);
      !status.ok()) {
    return status;
  }
  absl::StatusOr<Model> model = LoadModel(absl::GetFlag(FLAGS_model), model_options);
  if (!model.ok()) {
    return model.status();
  }
  const int64_t max_context =
      absl::GetFlag(FLAGS_prompt_tokens) + absl::GetFlag(FLAGS_output_tokens);
  EngineOptions options;
  options.kv_block_size = kBlockSize;
  options.kv_num_blocks = KvCache::NumBlocks(model->config, kBlockSize, model->dtype,
                                             absl::GetFlag(FLAGS_kv_mib) << 20);
  options.scheduler.max_sequences = absl::GetFlag(FLAGS_concurrency);
  options.scheduler.max_batch_tokens =
      std::max(absl::GetFlag(FLAGS_max_batch_tokens), options.scheduler.max_sequences);
  options.scheduler.prefill_chunk_tokens = absl::GetFlag(FLAGS_prefill_chunk_tokens);
  options.scheduler.max_context_tokens = max_context;
  options.max_queued_sequences = absl::GetFlag(FLAGS_requests);
  StepTimes steps;
  options.on_step = [&steps](const StepStats& step) {
    (step.num_prefill_tokens > 0 ? steps.mixed : steps.decode)
        .push_back(absl::ToDoubleMilliseconds(step.run));
  };
  absl::StatusOr<std::unique_ptr<DecoderRunner>> runner =
      DecoderRunner::Create(model->decoder, options.kv_num_blocks, kBlockSize, max_context);
  if (!runner.ok()) {
    return runner.status();
  }
  if (!absl::GetFlag(FLAGS_cuda_graphs)) {
    (*runner)->set_use_graphs(false);
  }
  if (DecodeGraphs* const graphs = (*runner)->graphs(); graphs != nullptr) {
    graphs->set_on_problem([](const std::string& problem) {
      std::fprintf(stderr, "no CUDA graphs: %s\n", problem.c_str());
    });
  }
  options.scheduler.prefix_cache = (*runner)->prefix_sharing_is_exact();
  AdapterCache cache(int64_t{8} << 30, [&](const AdapterInfo&) {
    return absl::StatusOr<std::shared_ptr<const CompiledAdapter>>(
        RandomAdapter(*model, absl::GetFlag(FLAGS_rank)));
  });
  for (int64_t i = 0; i < absl::GetFlag(FLAGS_adapters); ++i) {
    cache.Insert(absl::StrCat("adapter-", i), RandomAdapter(*model, absl::GetFlag(FLAGS_rank)));
  }
  absl::StatusOr<std::unique_ptr<Engine>> engine =
      Engine::Create(options, *std::move(runner), &cache, absl::Now);
  if (!engine.ok()) {
    return engine.status();
  }
  LoopOptions loop_options = MakeLoopOptions(model->config.vocab_size);
  // Lives until the engine has stopped, which may still be telling it of its last event.
  ClosedLoop warmup(engine->get(), WarmupOf(loop_options));
  if (absl::Status status = warmup.Run(); !status.ok()) {
    return status;
  }
  const EngineStats before = (*engine)->stats();
  ClosedLoop loop(engine->get(), std::move(loop_options));
  absl::Status status = loop.Run();
  (*engine)->Stop();
  if (status.ok()) {
    Print(loop.times(), steps, Since(before, (*engine)->stats()));
  }
  return status;
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
