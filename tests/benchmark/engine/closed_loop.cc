#include "tests/benchmark/engine/closed_loop.h"

#include <ATen/ops/randn.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace tenon {

std::shared_ptr<const CompiledAdapter> RandomAdapter(const Model& model, int64_t rank) {
  auto adapter = std::make_shared<CompiledAdapter>(model.base.num_layers);
  const at::TensorOptions options = at::TensorOptions().dtype(model.dtype);
  for (const auto& [name, shape] : model.base.modules) {
    if (shape.site >= Site::kAttentionNorm) {
      continue;
    }
    // As an upload is compiled: `up` laid out for the kernels.
    SiteDelta site;
    site.low_rank = *LowRankDelta::Create(at::randn({rank, shape.in_features}, options),
                                          at::randn({shape.out_features, rank}, options), 1e-3f);
    adapter->set_delta(shape.layer, shape.site, std::move(site));
  }
  adapter->Compact();
  return model.device.is_cpu() ? adapter : adapter->OnDevice(model.device);
}

std::shared_ptr<const AdapterSelection> SelectionOf(const std::string& name) {
  AdapterInfo info;
  info.id = {"bench", name, 1};
  info.digest = name;
  const AdapterHandle handle(std::make_shared<const AdapterInfo>(std::move(info)));
  return std::make_shared<AdapterSelection>(std::vector<WeightedAdapter>{{handle, 1.0f}});
}

ClosedLoop::ClosedLoop(Engine* engine, LoopOptions options)
    : engine_(engine),
      options_(std::move(options)),
      random_(options_.seed),
      shared_(RandomTokens(options_.shared_prefix)) {}

absl::Status ClosedLoop::Run() {
  times_.resize(options_.requests);
  streams_.resize(options_.requests);
  for (int64_t i = 0; i < options_.concurrency; ++i) {
    if (absl::Status status = SubmitNext(); !status.ok()) {
      return status;
    }
  }
  for (int64_t num_ended = 0; num_ended < options_.requests;) {
    const int64_t index = AwaitReadable();
    while (const std::optional<GenerationEvent> event = streams_[index]->Pop()) {
      const FinishEvent* finish = std::get_if<FinishEvent>(&*event);
      if (finish == nullptr) {
        times_[index].first_token = std::min(times_[index].first_token, absl::Now());
        continue;
      }
      times_[index].finished = absl::Now();
      ++num_ended;
      if (absl::Status status = finish->status.ok() ? SubmitNext() : finish->status; !status.ok()) {
        return status;
      }
    }
  }
  return absl::OkStatus();
}

absl::Duration ClosedLoop::elapsed() const {
  absl::Time begin = absl::InfiniteFuture(), end = absl::InfinitePast();
  for (const RequestTimes& times : times_) {
    begin = std::min(begin, times.submitted);
    end = std::max(end, times.finished);
  }
  return end - begin;
}

std::vector<int32_t> ClosedLoop::RandomTokens(int64_t count) {
  std::vector<int32_t> tokens(count);
  std::uniform_int_distribution<int32_t> any(0, static_cast<int32_t>(options_.vocab_size - 1));
  std::generate(tokens.begin(), tokens.end(), [&] { return any(random_); });
  return tokens;
}

absl::Status ClosedLoop::SubmitNext() {
  if (num_submitted_ == options_.requests) {
    return absl::OkStatus();
  }
  const int64_t index = num_submitted_++;
  GenerationRequest request;
  request.request_id = absl::StrCat("request-", index);
  request.tenant = "bench";
  request.prompt = shared_;
  const std::vector<int32_t> tail =
      RandomTokens(options_.prompt_tokens - static_cast<int64_t>(shared_.size()));
  request.prompt.insert(request.prompt.end(), tail.begin(), tail.end());
  request.selection = options_.selection(index);
  request.sampling.temperature = 0.0f;
  request.sampling.max_tokens = static_cast<int32_t>(options_.output_tokens);
  request.stream = streams_[index] = std::make_shared<TokenStream>(64);
  request.stream->set_on_readable([this, index] {
    absl::MutexLock lock(&mutex_);
    readable_.push_back(index);
  });
  times_[index].submitted = absl::Now();
  return engine_->Submit(std::move(request));
}

int64_t ClosedLoop::AwaitReadable() {
  absl::MutexLock lock(&mutex_);
  const auto any = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !readable_.empty(); };
  mutex_.Await(absl::Condition(&any));
  const int64_t index = readable_.front();
  readable_.pop_front();
  return index;
}

}  // namespace tenon
