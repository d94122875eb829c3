// Generation through the real binary.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cctype>
#include <chrono>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/integration/server_fixture.h"

namespace tenon {
namespace {

constexpr char kGreedy[] =
    "sampling { temperature: 0 } stopping { max_tokens: 24 ignore_eos: true } "
    "output { token_ids: true }";

std::vector<int> Ids(const v1::Sample& sample) {
  return {sample.token_ids().begin(), sample.token_ids().end()};
}

class GenerationTest : public ServerTest {
 protected:
  void SetUp() override { Start(); }

  double Metric(const std::string& name) { return MetricValue(server_->HttpGet("/metrics"), name); }
  // Until the metrics have `line`; the server must come to it by itself.
  void AwaitMetric(const std::string& line) {
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    while (server_->HttpGet("/metrics").find(line) == std::string::npos) {
      ASSERT_LT(absl::Now(), deadline) << line;
    }
  }
  // Until the samples of that name sum to `value`.
  void AwaitMetricValue(const std::string& name, double value) {
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    while (Metric(name) != value) {
      ASSERT_LT(absl::Now(), deadline) << name << " is " << Metric(name) << ", not " << value;
    }
  }
  void AwaitIdle() {
    AwaitMetric("\ntenon_sequences_running 0\n");
    AwaitMetric("\ntenon_sequences_waiting 0\n");
    EXPECT_EQ(Metric("tenon_kv_blocks_used"), 0);
  }
};

TEST_F(GenerationTest, StreamAndUnaryGiveTheSameAnswer) {
  const std::string request = absl::StrCat("prompt: 'hello world' ", kGreedy);
  const v1::GenerateOnceResponse once = Generate(request);
  const Joined stream = Stream(request);
  ASSERT_TRUE(stream.status.ok()) << stream.status.error_message();
  ASSERT_EQ(once.samples_size(), 1);
  EXPECT_EQ(stream.samples.at(0).text(), once.samples(0).text());
  EXPECT_EQ(Ids(stream.samples.at(0)), Ids(once.samples(0)));
  EXPECT_EQ(once.samples(0).token_ids_size(), 24);
  const v1::Finish& finish = once.samples(0).finish();
  EXPECT_EQ(finish.reason(), v1::FINISH_REASON_MAX_TOKENS);
  EXPECT_EQ(finish.usage().completion_tokens(), 24);
  EXPECT_GT(finish.usage().prompt_tokens(), 0);
  EXPECT_FALSE(finish.request_id().empty());
  EXPECT_EQ(finish.adapters_size(), 0);
}

TEST_F(GenerationTest, RequestIdIsEchoed) {
  const auto response = Generate("prompt: 'a' request_id: 'my-id' stopping { max_tokens: 1 }");
  EXPECT_EQ(response.samples(0).finish().request_id(), "my-id");
}

TEST_F(GenerationTest, SeedDecidesTheAnswer) {
  const char kRequest[] =
      "prompt: 'hello' sampling { seed: 7 } stopping { max_tokens: 16 ignore_eos: true } "
      "output { token_ids: true }";
  EXPECT_EQ(Ids(Generate(kRequest).samples(0)), Ids(Generate(kRequest).samples(0)));
}

TEST_F(GenerationTest, SamplesDifferAndEachHasItsEnd) {
  const Joined stream = Stream(
      "prompt: 'hello' sampling { n: 4 seed: 1 } "
      "stopping { max_tokens: 16 ignore_eos: true } output { token_ids: true }");
  ASSERT_TRUE(stream.status.ok());
  ASSERT_EQ(stream.samples.size(), 4u);
  std::set<std::vector<int>> distinct;
  for (const auto& [index, sample] : stream.samples) {
    EXPECT_EQ(sample.token_ids_size(), 16) << index;
    EXPECT_TRUE(sample.has_finish()) << index;
    distinct.insert(Ids(sample));
  }
  EXPECT_GT(distinct.size(), 1u);
}

TEST_F(GenerationTest, TokensInAnswerAsTextIn) {
  grpc::ClientContext context;
  v1::TokenizeResponse tokens;
  ASSERT_TRUE(
      generation_
          ->Tokenize(&context, ParseProto<v1::TokenizeRequest>("text: 'hello world'"), &tokens)
          .ok());
  ASSERT_GT(tokens.ids_size(), 0);
  EXPECT_EQ(tokens.tokens_size(), tokens.ids_size());
  std::string ids;
  for (const int id : tokens.ids()) {
    absl::StrAppend(&ids, " ids: ", id);
  }
  EXPECT_EQ(Ids(Generate(absl::StrCat("tokens {", ids, "} ", kGreedy)).samples(0)),
            Ids(Generate(absl::StrCat("prompt: 'hello world' ", kGreedy)).samples(0)));

  grpc::ClientContext back;
  v1::DetokenizeRequest request;
  *request.mutable_ids() = tokens.ids();
  v1::DetokenizeResponse text;
  ASSERT_TRUE(generation_->Detokenize(&back, request, &text).ok());
  EXPECT_EQ(text.text(), "hello world");
}

TEST_F(GenerationTest, StopStringEndsTheAnswerBeforeIt) {
  const v1::Sample whole = Generate(absl::StrCat("prompt: 'hello world' ", kGreedy)).samples(0);
  // The first ASCII pair that the model says anyway.
  size_t at = 1;
  while (at + 2 < whole.text().size() &&
         (!isalpha(whole.text()[at]) || !isalpha(whole.text()[at + 1]) ||
          whole.text().find(whole.text().substr(at, 2)) != at)) {
    ++at;
  }
  const std::string stop = whole.text().substr(at, 2);
  SCOPED_TRACE(absl::StrCat(whole.text(), " | ", stop));
  auto request = ParseProto<v1::GenerateRequest>(absl::StrCat("prompt: 'hello world' ", kGreedy));
  request.mutable_stopping()->add_stop(stop);
  std::string text;
  ASSERT_TRUE(google::protobuf::TextFormat::PrintToString(request, &text));
  const Joined stream = Stream(text);
  ASSERT_TRUE(stream.status.ok());
  const v1::Sample& stopped = stream.samples.at(0);
  EXPECT_EQ(stopped.text(), whole.text().substr(0, at));
  EXPECT_EQ(stopped.finish().reason(), v1::FINISH_REASON_STOP_STRING);
  EXPECT_EQ(stopped.finish().stop_string(), stop);
  EXPECT_EQ(stopped.finish().usage().completion_tokens(), stopped.token_ids_size());
  EXPECT_LT(stopped.token_ids_size(), 24);
  request.mutable_stopping()->set_include_stop(true);
  ASSERT_TRUE(google::protobuf::TextFormat::PrintToString(request, &text));
  EXPECT_EQ(Stream(text).samples.at(0).text(), whole.text().substr(0, at + 2));
}

TEST_F(GenerationTest, StopTokenEndsTheAnswerWithoutItsText) {
  const v1::Sample whole = Generate(absl::StrCat("prompt: 'hello world' ", kGreedy)).samples(0);
  const auto response =
      Generate(absl::StrCat("prompt: 'hello world' sampling { temperature: 0 } "
                            "stopping { max_tokens: 24 ignore_eos: true stop_token_ids: ",
                            whole.token_ids(0), " } output { token_ids: true }"));
  EXPECT_EQ(response.samples(0).text(), "");
  EXPECT_EQ(response.samples(0).finish().reason(), v1::FINISH_REASON_STOP_TOKEN);
  EXPECT_EQ(Ids(response.samples(0)), std::vector<int>{whole.token_ids(0)});
}

TEST_F(GenerationTest, LogprobsAreThereForEachTokenAndForThePrompt) {
  const auto response = Generate(
      "prompt: 'hello world' sampling { temperature: 0 } "
      "stopping { max_tokens: 4 ignore_eos: true } output { logprobs: 3 prompt_logprobs: 1 }");
  const v1::Sample& sample = response.samples(0);
  ASSERT_EQ(sample.logprobs_size(), 4);
  for (const v1::TokenLogprobs& logprobs : sample.logprobs()) {
    ASSERT_EQ(logprobs.top_size(), 3);
    EXPECT_EQ(logprobs.chosen().id(), logprobs.top(0).id()) << "greedy";
    EXPECT_LE(logprobs.chosen().logprob(), 0.0f);
    EXPECT_GE(logprobs.top(0).logprob(), logprobs.top(1).logprob());
  }
  EXPECT_EQ(response.prompt_logprobs_size(), sample.finish().usage().prompt_tokens() - 1);
  EXPECT_EQ(sample.token_ids_size(), 0) << "not asked for";
}

TEST_F(GenerationTest, LongAnswerEndsWhereTheContextDoes) {
  const auto response = Generate(
      "prompt: 'hello' sampling { temperature: 0 } "
      "stopping { max_tokens: 256 ignore_eos: true } output { token_ids: true }");
  EXPECT_EQ(response.samples(0).finish().reason(), v1::FINISH_REASON_CONTEXT_LENGTH);
}

TEST_F(GenerationTest, AdaptersInOneBatchAnswerAsAlone) {
  const std::vector<std::string> folders = {"plain-qv", "rslora", "mlp-rank-16", "all-linear"};
  std::vector<std::string> requests = {absl::StrCat("prompt: 'hello world' ", kGreedy)};
  for (const std::string& folder : folders) {
    UploadTiny(folder, folder);
    requests.push_back(absl::StrCat("prompt: 'hello world' adapter: '", folder, "' ", kGreedy));
  }
  std::vector<std::vector<int>> alone;
  for (const std::string& request : requests) {
    alone.push_back(Ids(Generate(request).samples(0)));
  }
  EXPECT_GT(std::set<std::vector<int>>(alone.begin(), alone.end()).size(), 1u);
  constexpr int kRounds = 8;
  std::vector<std::thread> threads;
  std::vector<std::vector<int>> together(requests.size() * kRounds);
  for (size_t i = 0; i < together.size(); ++i) {
    threads.emplace_back([&, i] {
      const Joined stream = Stream(requests[i % requests.size()]);
      if (stream.status.ok()) {
        together[i] = Ids(stream.samples.at(0));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (size_t i = 0; i < together.size(); ++i) {
    EXPECT_EQ(together[i], alone[i % requests.size()]) << requests[i % requests.size()];
  }
}

// Each sequence has a prompt and a length of its own. Alone they run on one server, together on a
// fresh one, whose adapters are cold and whose prefix cache is empty.
TEST_F(GenerationTest, ThirtyTwoSequencesOverEightAdaptersAnswerAsAlone) {
  const std::vector<std::string> folders = {"plain-qv",    "rslora",      "patterns",
                                            "some-layers", "stored-bf16", "mlp-rank-16",
                                            "all-linear",  "rank-3"};
  std::vector<std::string> requests;
  for (int i = 0; i < 32; ++i) {
    const size_t adapter = i % (folders.size() + 1);
    if (i < static_cast<int>(folders.size())) {
      UploadTiny(folders[i], folders[i]);
    }
    requests.push_back(absl::StrCat(
        "prompt: '", i, " times ", std::string(i % 7, 'a'), " hello world'", " adapter: '",
        adapter == folders.size() ? "" : folders[adapter],
        "' sampling { temperature: ", i % 2 == 0 ? 0 : 1, " seed: ", i,
        " } stopping { max_tokens: ", 8 + i, " ignore_eos: true } output { token_ids: true }"));
  }
  std::vector<std::vector<int>> alone;
  for (const std::string& request : requests) {
    alone.push_back(Ids(Generate(request).samples(0)));
  }
  server_.reset();
  Start();
  const double tokens_before = Metric("tenon_generated_tokens_total");  // the start's own
  const double steps_before = Metric("tenon_steps_total");
  std::vector<std::vector<int>> together(requests.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < requests.size(); ++i) {
    threads.emplace_back([&, i] {
      const Joined stream = Stream(requests[i]);
      if (stream.status.ok()) {
        together[i] = Ids(stream.samples.at(0));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  size_t num_tokens = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(together[i].size(), 8 + i) << requests[i];
    EXPECT_EQ(together[i], alone[i]) << requests[i];
    num_tokens += together[i].size();
  }
  AwaitMetricValue("tenon_generated_tokens_total", tokens_before + static_cast<double>(num_tokens));
  EXPECT_LT(Metric("tenon_steps_total") - steps_before, num_tokens / 2.0)
      << "they did not share steps";
}

TEST_F(GenerationTest, CancelledStreamGivesItsMemoryBack) {
  grpc::ClientContext context;
  auto reader = generation_->Generate(
      &context, ParseProto<v1::GenerateRequest>(
                    "prompt: 'a' sampling { n: 16 } "
                    "stopping { max_tokens: 250 ignore_eos: true } output { logprobs: 20 }"));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  context.TryCancel();
  while (reader->Read(&message)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  AwaitIdle();
  AwaitMetric(R"(tenon_requests_total{method="Generate",outcome="cancelled"} 1)");
}

TEST_F(GenerationTest, DeadlineEndsTheRequest) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(1));
  v1::GenerateOnceResponse response;
  const grpc::Status status = generation_->GenerateOnce(
      &context,
      ParseProto<v1::GenerateRequest>("prompt: 'a' sampling { n: 16 } "
                                      "stopping { max_tokens: 250 ignore_eos: true }"),
      &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  AwaitIdle();
}

TEST_F(GenerationTest, SlowReaderHoldsUpOnlyItself) {
  grpc::ClientContext context;
  auto slow = generation_->Generate(
      &context, ParseProto<v1::GenerateRequest>(
                    "prompt: 'a' sampling { n: 16 } "
                    "stopping { max_tokens: 250 ignore_eos: true } output { logprobs: 20 }"));
  v1::GenerateResponse message;
  ASSERT_TRUE(slow->Read(&message));
  for (int i = 0; i < 5; ++i) {  // while `slow` reads nothing
    EXPECT_EQ(Generate(absl::StrCat("prompt: 'b' ", kGreedy)).samples(0).token_ids_size(), 24);
  }
  int num_tokens = message.logprobs_size();
  while (slow->Read(&message)) {
    num_tokens += message.logprobs_size();
  }
  EXPECT_TRUE(slow->Finish().ok());
  EXPECT_EQ(num_tokens, 16 * 250);
}

TEST_F(GenerationTest, ModelSaysWhatItIs) {
  grpc::ClientContext context;
  v1::GetModelResponse model;
  ASSERT_TRUE(generation_->GetModel(&context, {}, &model).ok());
  EXPECT_EQ(model.model_type(), "llama");
  EXPECT_EQ(model.dtype(), "fp32");
  EXPECT_EQ(model.device(), "cpu");
  EXPECT_GT(model.num_parameters(), 0);
  EXPECT_EQ(model.digest().size(), 64u);
  EXPECT_GT(model.max_context_tokens(), 0);
}

struct ErrorCase {
  const char* request;
  grpc::StatusCode code;
  const char* reason;
  const char* subject;
};

TEST_F(GenerationTest, ErrorsCarryTheirDetails) {
  const std::vector<ErrorCase> cases = {
      {"", grpc::StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "input"},
      {"prompt: 'a' sampling { top_p: nan }", grpc::StatusCode::INVALID_ARGUMENT, "INVALID_FIELD",
       "sampling.top_p"},
      {"prompt: 'a' sampling { n: 17 }", grpc::StatusCode::INVALID_ARGUMENT, "INVALID_FIELD",
       "sampling.n"},
      {"prompt: 'a' stopping { max_tokens: 0 }", grpc::StatusCode::INVALID_ARGUMENT,
       "INVALID_FIELD", "stopping.max_tokens"},
      {"tokens { ids: 1000000 }", grpc::StatusCode::INVALID_ARGUMENT, "INVALID_FIELD",
       "tokens.ids[0]"},
      {"prompt: 'a' adapter: '../x'", grpc::StatusCode::INVALID_ARGUMENT, "INVALID_FIELD",
       "adapter"},
      {"prompt: 'a' adapter: 'nobody'", grpc::StatusCode::NOT_FOUND, "ADAPTER_NOT_FOUND", "nobody"},
      {"prompt: 'a' adapter: 'nobody@3'", grpc::StatusCode::NOT_FOUND, "ADAPTER_NOT_FOUND",
       "nobody@3"},
  };
  for (const ErrorCase& test : cases) {
    SCOPED_TRACE(test.request);
    const grpc::Status once = StatusOf(test.request);
    const grpc::Status stream = Stream(test.request).status;
    for (const grpc::Status& status : {once, stream}) {
      EXPECT_EQ(status.error_code(), test.code);
      const auto info = FindDetail<google::rpc::ErrorInfo>(status);
      ASSERT_TRUE(info.has_value());
      EXPECT_EQ(info->reason(), test.reason);
      EXPECT_EQ(info->domain(), "tenon.dev");
      if (test.code == grpc::StatusCode::NOT_FOUND) {
        EXPECT_EQ(FindDetail<google::rpc::ResourceInfo>(status)->resource_name(), test.subject);
      } else {
        EXPECT_EQ(FindDetail<google::rpc::BadRequest>(status)->field_violations(0).field(),
                  test.subject);
      }
    }
  }
}

TEST_F(GenerationTest, PromptBeyondTheContextIsAPrecondition) {
  const grpc::Status status = StatusOf(absl::StrCat("prompt: '", std::string(5000, 'x'), "'"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  const auto failure = FindDetail<google::rpc::PreconditionFailure>(status);
  ASSERT_TRUE(failure.has_value());
  EXPECT_EQ(failure->violations(0).type(), "PROMPT_TOO_LONG");
}

TEST_F(GenerationTest, FullQueueRefusesWithARetryTime) {
  server_.reset();
  Start({"--max-queued=4", "--max-sequences=1"});
  const grpc::Status status = StatusOf("prompt: 'a' sampling { n: 16 }");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(FindDetail<google::rpc::QuotaFailure>(status).has_value());
  EXPECT_TRUE(FindDetail<google::rpc::RetryInfo>(status).has_value());
}

TEST_F(GenerationTest, MetricsCountWhatHappened) {
  // A step and a call are counted after their last token has gone out, the warm-up's one token too.
  AwaitMetric("\ntenon_generated_tokens_total 1\n");
  Generate(absl::StrCat("prompt: 'hello' ", kGreedy));
  Stream(absl::StrCat("prompt: 'hello' ", kGreedy));
  AwaitMetric("\ntenon_generated_tokens_total 49\n");
  AwaitMetric(R"(tenon_requests_total{method="GenerateOnce",outcome="ok"} 1)");
  AwaitMetric(R"(tenon_requests_total{method="Generate",outcome="ok"} 1)");
  for (const char* histogram : {"tenon_time_to_first_token_seconds", "tenon_inter_token_seconds",
                                "tenon_request_seconds"}) {
    AwaitMetricValue(absl::StrCat(histogram, "_count"), 2);
  }
  AwaitMetric("vllm:num_requests_waiting 0");
  AwaitMetric("vllm:lora_requests_info{");
  EXPECT_GT(Metric("tenon_kv_blocks_total"), 0);
}

}  // namespace
}  // namespace tenon
