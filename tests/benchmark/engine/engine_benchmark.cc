// How fast the engine serves a closed loop of clients, without gRPC: tokens per second, step times
// and times to the first token.
//
//   engine_benchmark --model FOLDER [--adapters 8] [--rank 16] [--concurrency 16] [--requests 64]
//       [--prompt_tokens 128] [--output_tokens 64] [--shared_prefix 0] [--threads 2]
//
// Adapters are random LoRA deltas on every linear layer, dealt out to the requests in turn; with 0
// of them all requests are for the base. Prompts are random; the first `shared_prefix` tokens are
// the same for all. Prints a table, then one line of JSON.
#include <ATen/Parallel.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <deque>
#include <nlohmann/json.hpp>
#include <random>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "server/engine/engine.h"
#include "server/model/decoder_runner.h"
#include "server/model/kv_cache.h"
#include "server/model/model.h"

ABSL_FLAG(std::string, model, "", "Hugging Face model folder");
ABSL_FLAG(int64_t, adapters, 8, "random LoRA adapters; 0: base requests only");
ABSL_FLAG(int64_t, rank, 16, "rank of each adapter");
ABSL_FLAG(int64_t, concurrency, 16, "requests in flight");
ABSL_FLAG(int64_t, requests, 64, "requests in all");
ABSL_FLAG(int64_t, prompt_tokens, 128, "tokens of each prompt");
ABSL_FLAG(int64_t, output_tokens, 64, "tokens of each answer");
ABSL_FLAG(int64_t, shared_prefix, 0, "leading prompt tokens that all requests share");
ABSL_FLAG(int64_t, max_batch_tokens, 512, "token budget of a step");
ABSL_FLAG(int64_t, kv_mib, 512, "KV memory in MiB");
ABSL_FLAG(int, threads, 2, "LibTorch threads");

namespace tenon {
namespace {

constexpr int64_t kBlockSize = 16;

/// A LoRA of the given rank on every linear layer; small, so that the model goes on making sense.
std::shared_ptr<const CompiledAdapter> RandomAdapter(const Model& model, int64_t rank) {
  auto adapter = std::make_shared<CompiledAdapter>(model.base.num_layers);
  const at::TensorOptions options = at::TensorOptions().dtype(model.dtype);
  for (const auto& [name, shape] : model.base.modules) {
    if (shape.site >= Site::kAttentionNorm) {
      continue;
    }
    SiteDelta site;
    LowRankDelta& delta = site.low_rank;
    delta.down = at::randn({rank, shape.in_features}, options);
    delta.up = at::randn({shape.out_features, rank}, options);
    delta.scaling = 1e-3f;
    adapter->set_delta(shape.layer, shape.site, std::move(site));
  }
  return adapter;
}

/// What one request went through.
struct RequestTimes {
  absl::Time submitted;
  absl::Time first_token = absl::InfiniteFuture();
  absl::Time finished;
  absl::Status status;
};

/// Keeps `concurrency` requests in flight until all have ended. Events are read on the thread that
/// calls Run; the engine's thread only puts the stream's number in a queue.
class ClosedLoop {
 public:
  ClosedLoop(Engine* engine, int64_t vocab_size)
      : engine_(engine),
        vocab_size_(vocab_size),
        num_requests_(absl::GetFlag(FLAGS_requests)),
        shared_(RandomTokens(absl::GetFlag(FLAGS_shared_prefix))) {}

  absl::Status Run() {
    times_.resize(num_requests_);
    streams_.resize(num_requests_);
    for (int64_t i = 0; i < absl::GetFlag(FLAGS_concurrency); ++i) {
      if (absl::Status status = SubmitNext(); !status.ok()) {
        return status;
      }
    }
    for (int64_t num_ended = 0; num_ended < num_requests_;) {
      const int64_t index = AwaitReadable();
      while (const std::optional<GenerationEvent> event = streams_[index]->Pop()) {
        const FinishEvent* finish = std::get_if<FinishEvent>(&*event);
        if (finish == nullptr) {
          times_[index].first_token = std::min(times_[index].first_token, absl::Now());
          continue;
        }
        times_[index].finished = absl::Now();
        ++num_ended;
        if (absl::Status status = finish->status.ok() ? SubmitNext() : finish->status;
            !status.ok()) {
          return status;
        }
      }
    }
    return absl::OkStatus();
  }

  const std::vector<RequestTimes>& times() const { return times_; }

 private:
  std::vector<int32_t> RandomTokens(int64_t count) {
    std::vector<int32_t> tokens(count);
    std::uniform_int_distribution<int32_t> any(0, static_cast<int32_t>(vocab_size_ - 1));
    std::generate(tokens.begin(), tokens.end(), [&] { return any(random_); });
    return tokens;
  }

  static std::shared_ptr<const AdapterSelection> SelectionFor(int64_t index) {
    const int64_t num_adapters = absl::GetFlag(FLAGS_adapters);
    if (num_adapters == 0) {
      return std::make_shared<AdapterSelection>();
    }
    AdapterInfo info;
    info.id = {"bench", absl::StrCat("adapter-", index % num_adapters), 1};
    info.digest = info.id.name;
    const AdapterHandle handle(std::make_shared<const AdapterInfo>(std::move(info)));
    return std::make_shared<AdapterSelection>(std::vector<WeightedAdapter>{{handle, 1.0f}});
  }

  /// Nothing when all have been submitted.
  absl::Status SubmitNext() {
    if (num_submitted_ == num_requests_) {
      return absl::OkStatus();
    }
    const int64_t index = num_submitted_++;
    GenerationRequest request;
    request.request_id = absl::StrCat("request-", index);
    request.tenant = "bench";
    request.prompt = shared_;
    const std::vector<int32_t> tail =
        RandomTokens(absl::GetFlag(FLAGS_prompt_tokens) - static_cast<int64_t>(shared_.size()));
    request.prompt.insert(request.prompt.end(), tail.begin(), tail.end());
    request.selection = SelectionFor(index);
    request.sampling.temperature = 0.0f;
    request.sampling.max_tokens = static_cast<int32_t>(absl::GetFlag(FLAGS_output_tokens));
    request.stream = streams_[index] = std::make_shared<TokenStream>(64);
    request.stream->set_on_readable([this, index] {
      absl::MutexLock lock(&mutex_);
      readable_.push_back(index);
    });
    times_[index].submitted = absl::Now();
    return engine_->Submit(std::move(request));
  }

  int64_t AwaitReadable() {
    absl::MutexLock lock(&mutex_);
    const auto any = [&] { return !readable_.empty(); };
    mutex_.Await(absl::Condition(&any));
    const int64_t index = readable_.front();
    readable_.pop_front();
    return index;
  }

  Engine* const engine_;
  const int64_t vocab_size_;
  const int64_t num_requests_;
  std::mt19937_64 random_{1};
  const std::vector<int32_t> shared_;
  int64_t num_submitted_ = 0;
  std::vector<RequestTimes> times_;
  std::vector<std::shared_ptr<TokenStream>> streams_;
  absl::Mutex mutex_;
  std::deque<int64_t> readable_ ABSL_GUARDED_BY(mutex_);
};

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
      {"seconds", seconds},
      {"output_tokens_per_s", static_cast<double>(stats.generated_tokens) / seconds},
      {"prompt_tokens_per_s", static_cast<double>(stats.prompt_tokens) / seconds},
      {"cached_prompt_tokens", stats.cached_prompt_tokens},
      {"preemptions", stats.num_preemptions},
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

absl::Status RunBenchmark() {
  at::set_num_threads(absl::GetFlag(FLAGS_threads));
  absl::StatusOr<Model> model = LoadModel(absl::GetFlag(FLAGS_model), {});
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
  ClosedLoop loop(engine->get(), model->config.vocab_size);
  absl::Status status = loop.Run();
  (*engine)->Stop();
  if (status.ok()) {
    Print(loop.times(), steps, (*engine)->stats());
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
