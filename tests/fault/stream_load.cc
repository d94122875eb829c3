#include "tests/fault/stream_load.h"

#include <grpcpp/client_context.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace tenon {
namespace {

v1::GenerateRequest MakeRequest(const std::string& adapter, const std::string& prompt,
                                int32_t num_tokens) {
  v1::GenerateRequest request;
  request.set_adapter(adapter);
  request.set_prompt(prompt);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_tokens(num_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_output()->set_token_ids(true);
  return request;
}

}  // namespace

StreamLoad::StreamLoad(std::shared_ptr<grpc::Channel> channel, Options options,
                       const SoloAnswers* solo)
    : channel_(std::move(channel)), options_(std::move(options)), solo_(solo) {
  for (int i = 0; i < options_.num_streams; ++i) {
    threads_.emplace_back([this, i] { RunStream(i); });
  }
}

StreamLoad::~StreamLoad() { Finish(); }

void StreamLoad::Finish() {
  stopping_ = true;
  for (std::thread& thread : threads_) {
    if (thread.joinable()) {
      thread.join();
    }
  }
}

StreamCounts StreamLoad::counts() const {
  absl::MutexLock lock(&mutex_);
  return counts_;
}

std::vector<double> StreamLoad::TakeGaps() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(gaps_, {});
}

std::vector<int32_t> StreamLoad::Ask(v1::GenerationService::Stub& stub, const std::string& adapter,
                                     const std::string& prompt, int32_t num_tokens) {
  grpc::ClientContext context;
  v1::GenerateOnceResponse response;
  const grpc::Status status =
      stub.GenerateOnce(&context, MakeRequest(adapter, prompt, num_tokens), &response);
  if (!status.ok() || response.samples_size() != 1) {
    return {};
  }
  return {response.samples(0).token_ids().begin(), response.samples(0).token_ids().end()};
}

void StreamLoad::RunStream(int index) {
  const auto stub = v1::GenerationService::NewStub(channel_);
  for (size_t turn = index; !stopping_; ++turn) {
    std::vector<double> gaps;
    RunOnce(*stub, options_.adapters[turn % options_.adapters.size()],
            options_.prompts[turn / options_.adapters.size() % options_.prompts.size()], gaps);
    absl::MutexLock lock(&mutex_);
    gaps_.insert(gaps_.end(), gaps.begin(), gaps.end());
  }
}

void StreamLoad::RunOnce(v1::GenerationService::Stub& stub, const std::string& adapter,
                         const std::string& prompt, std::vector<double>& gaps) {
  grpc::ClientContext context;
  const auto reader = stub.Generate(&context, MakeRequest(adapter, prompt, options_.num_tokens));
  v1::GenerateResponse message;
  std::vector<int32_t> tokens;
  v1::Finish finish;
  absl::Time last = absl::InfinitePast();
  while (reader->Read(&message)) {
    const absl::Time now = absl::Now();
    if (last != absl::InfinitePast()) {
      gaps.push_back(absl::ToDoubleMilliseconds(now - last));
    }
    last = now;
    tokens.insert(tokens.end(), message.token_ids().begin(), message.token_ids().end());
    if (message.has_finish()) {
      finish = message.finish();
    }
  }
  Judge(reader->Finish(), prompt, tokens, finish);
}

void StreamLoad::Judge(const grpc::Status& status, const std::string& prompt,
                       const std::vector<int32_t>& tokens, const v1::Finish& finish) {
  std::string trouble;
  int64_t StreamCounts::* count = &StreamCounts::finished;
  if (!status.ok()) {
    count = &StreamCounts::failed;
    trouble = absl::StrCat("status ", status.error_code(), ": ", status.error_message());
  } else if (finish.adapters_size() != 1 ||
             static_cast<int32_t>(tokens.size()) != options_.num_tokens) {
    count = &StreamCounts::dropped;
    trouble = absl::StrCat(tokens.size(), " tokens and ", finish.adapters_size(), " adapters");
  } else {
    const v1::ServedAdapter& served = finish.adapters(0);
    const auto solo = solo_->find({served.digest(), prompt});
    if (solo == solo_->end()) {
      count = &StreamCounts::unknown;
      trouble = absl::StrCat("no solo run of ", served.name(), "@", served.version());
    } else if (solo->second != tokens) {
      count = &StreamCounts::wrong;
      trouble = absl::StrCat(served.name(), "@", served.version(), " differs from its solo run");
    }
  }
  absl::MutexLock lock(&mutex_);
  ++(counts_.*count);
  if (counts_.first_trouble.empty()) {
    counts_.first_trouble = trouble;
  }
}

double Quantile(std::vector<double> samples, double share) {
  if (samples.empty()) {
    return 0;
  }
  const auto at =
      samples.begin() + static_cast<int64_t>(share * static_cast<double>(samples.size() - 1));
  std::nth_element(samples.begin(), at, samples.end());
  return *at;
}

}  // namespace tenon
