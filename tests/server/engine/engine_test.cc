#include "server/engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>

#include "adapters/base/errors.h"
#include "tests/server/engine/engine_fixture.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST_F(EngineTest, StreamsTokensInOrderAndThenTheEnd) {
  Reader reader;
  Submit(reader, {10, 11}, 3);
  const Reader::Result result = reader.ReadAll();
  EXPECT_THAT(result.tokens[0], ElementsAre(12, 13, 14));
  EXPECT_EQ(result.finishes[0].reason, FinishReason::kMaxTokens);
  EXPECT_TRUE(result.finishes[0].status.ok());
  EXPECT_EQ(result.finishes[0].num_prompt_tokens, 2);
  EXPECT_EQ(result.finishes[0].num_generated_tokens, 3);
  EXPECT_FALSE(reader.stream()->Pop().has_value());
}

TEST_F(EngineTest, StopTokenIsMarkedAndCounted) {
  Reader reader;
  GenerationRequest request = Request(reader, {10}, 8);
  request.sampling.stop_token_ids = {12};
  ASSERT_TRUE(engine_->Submit(std::move(request)).ok());
  EXPECT_FALSE(reader.NextToken().is_stop);
  EXPECT_TRUE(reader.NextToken().is_stop);
  const Reader::Result end = reader.ReadAll();
  EXPECT_EQ(end.finishes[0].reason, FinishReason::kStopToken);
  EXPECT_EQ(end.finishes[0].num_generated_tokens, 2);
}

TEST_F(EngineTest, SamplesShareThePromptAndDrawFromTheirOwnSeeds) {
  std::map<int32_t, uint64_t> seeds;
  script_.watch = [&](const Batch& batch, std::span<const ResolvedSelection>) {
    for (const BatchRow& row : batch.rows) {
      seeds[row.sequence->sample_index()] = row.sequence->sampling().seed;
    }
  };
  Reader reader;
  std::vector<int32_t> prompt(10, 5);
  GenerationRequest request = Request(reader, prompt, 2);
  request.num_samples = 3;
  request.sampling.seed = 70;
  ASSERT_TRUE(engine_->Submit(std::move(request)).ok());
  const Reader::Result result = reader.ReadAll(3);
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(result.tokens[i], ElementsAre(6, 7));
    EXPECT_EQ(result.finishes[i].num_cached_tokens, i == 0 ? 0 : 8);
  }
  engine_->Stop();
  EXPECT_THAT(seeds, ElementsAre(testing::Pair(0, 70), testing::Pair(1, 71), testing::Pair(2, 72)));
}

TEST_F(EngineTest, CancelFreesBlocksAtTheNextStep) {
  script_.Hold();
  Reader reader;
  Submit(reader, {1, 2, 3, 4, 5}, 1000);
  script_.AllowSteps(1);
  script_.AwaitStep(2);
  reader.stream()->CancelAll(FinishReason::kCancelled);
  script_.AllowAll();
  const Reader::Result result = reader.ReadAll();
  EXPECT_EQ(result.tokens[0].size(), 2u);  // the step that ran, and none after it
  EXPECT_EQ(result.finishes[0].reason, FinishReason::kCancelled);
  EXPECT_EQ(result.finishes[0].status.code(), absl::StatusCode::kCancelled);
  engine_->Drain(absl::InfiniteFuture());
  EXPECT_EQ(script_.num_steps(), 2);
  EXPECT_EQ(engine_->stats().kv_blocks_used, 0);
}

TEST_F(EngineTest, CancelWakesAnIdleEngine) {
  Reader reader(1);
  Submit(reader, {1}, 1000);
  reader.NextToken();  // wakes, fills again, and then nobody reads
  reader.stream()->CancelAll(FinishReason::kCancelled);
  const Reader::Result result = reader.ReadAll();
  EXPECT_EQ(result.finishes[0].reason, FinishReason::kCancelled);
}

TEST_F(EngineTest, StopStringEndsOneSampleAsASuccess) {
  Reader reader;
  GenerationRequest request = Request(reader, {1}, 20);
  request.num_samples = 2;
  script_.Hold();
  ASSERT_TRUE(engine_->Submit(std::move(request)).ok());
  script_.AwaitStep(1);
  reader.stream()->CancelSample(1, FinishReason::kStopString);
  script_.AllowAll();
  const Reader::Result result = reader.ReadAll(2);
  EXPECT_EQ(result.finishes[0].reason, FinishReason::kMaxTokens);
  EXPECT_EQ(result.tokens[0].size(), 20u);
  EXPECT_EQ(result.finishes[1].reason, FinishReason::kStopString);
  EXPECT_TRUE(result.finishes[1].status.ok());
  EXPECT_LE(result.tokens[1].size(), 1u);
}

TEST_F(EngineTest, DeadlineEndsARunningRequest) {
  script_.Hold();
  Reader reader;
  GenerationRequest request = Request(reader, {1}, 1000);
  request.deadline = clock_.Now() + absl::Seconds(5);
  ASSERT_TRUE(engine_->Submit(std::move(request)).ok());
  script_.AllowSteps(1);
  script_.AwaitStep(2);
  clock_.Advance(absl::Seconds(5));
  script_.AllowAll();
  const Reader::Result result = reader.ReadAll();
  EXPECT_EQ(result.tokens[0].size(), 2u);
  EXPECT_EQ(result.finishes[0].reason, FinishReason::kDeadline);
  EXPECT_EQ(result.finishes[0].status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(EngineTest, DeadlineThatHasPassedNeverRuns) {
  Reader reader;
  GenerationRequest request = Request(reader, {1}, 1000);
  request.deadline = clock_.Now() - absl::Seconds(1);
  ASSERT_TRUE(engine_->Submit(std::move(request)).ok());
  EXPECT_EQ(reader.ReadAll().finishes[0].reason, FinishReason::kDeadline);
  EXPECT_EQ(script_.num_steps(), 0);
}

// Nothing else wakes the engine here: the reader is silent and the clock is the real one.
TEST_F(EngineTest, IdleEngineWakesForTheNearestDeadline) {
  engine_ =
      *Engine::Create(Options(), std::make_unique<ScriptedRunner>(&script_), &cache_, absl::Now);
  Reader reader(1);
  GenerationRequest request = Request(reader, {1}, 1000);
  request.deadline = absl::Now() + absl::Milliseconds(20);
  ASSERT_TRUE(engine_->Submit(std::move(request)).ok());
  engine_->Drain(absl::Now() + kPatience);
  const Reader::Result result = reader.ReadAll();
  EXPECT_EQ(result.finishes[0].reason, FinishReason::kDeadline);
  EXPECT_EQ(result.tokens[0].size(), 1u);
}

TEST_F(EngineTest, FullStreamPausesThatRequestAlone) {
  std::atomic<int> num_slow_rows = 0;
  script_.watch = [&](const Batch& batch, std::span<const ResolvedSelection>) {
    for (const BatchRow& row : batch.rows) {
      num_slow_rows += row.sequence->tokens()[0] == 1 ? 1 : 0;
    }
  };
  Reader slow(4), fast;
  Submit(slow, {1}, 20);
  Submit(fast, {100}, 500);
  EXPECT_EQ(fast.ReadAll().tokens[0].size(), 500u);
  EXPECT_EQ(num_slow_rows, 4);
  const Reader::Result result = slow.ReadAll();  // reading is what lets it go on
  EXPECT_EQ(result.tokens[0].size(), 20u);
  EXPECT_EQ(result.tokens[0].back(), 21);
  EXPECT_EQ(result.finishes[0].reason, FinishReason::kMaxTokens);
}

TEST_F(EngineTest, FullQueueRefusesWithARetryTime) {
  EngineOptions options = Options();
  options.max_queued_sequences = 2;
  Make(options);
  script_.Hold();
  Reader first, second, third;
  Submit(first, {1}, 1);
  script_.AwaitStep(1);
  ASSERT_TRUE(engine_->Submit(Request(second, {1}, 1)).ok());
  GenerationRequest many = Request(third, {1}, 1);
  many.num_samples = 2;
  const absl::Status refused = engine_->Submit(std::move(many));
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  const std::optional<ErrorDetail> detail = GetErrorDetail(refused);
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->reason, "QUEUE_FULL");
  EXPECT_GT(detail->retry_after, absl::ZeroDuration());
  script_.AllowAll();
  second.ReadAll();
  EXPECT_FALSE(third.stream()->Pop().has_value());
}

TEST_F(EngineTest, RequestThatCanNeverFitIsRefused) {
  Reader reader;
  const absl::Status refused = engine_->Submit(Request(reader, {1}, 256 * 4 + 1));
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetErrorDetail(refused)->reason, "KV_CAPACITY");
  EXPECT_EQ(GetErrorDetail(refused)->retry_after, absl::ZeroDuration());
}

TEST_F(EngineTest, DrainRefusesNewRequestsAndLetsRunningOnesFinish) {
  script_.Hold();
  Reader reader, late;
  Submit(reader, {1}, 5);
  engine_->Drain(clock_.Now());
  const absl::Status refused = engine_->Submit(Request(late, {1}, 1));
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(GetErrorDetail(refused)->reason, "DRAINING");
  script_.AllowAll();
  engine_->Drain(absl::InfiniteFuture());
  EXPECT_EQ(engine_->stats().generated_tokens, 5);
  EXPECT_EQ(reader.ReadAll().tokens[0].size(), 5u);
}

TEST_F(EngineTest, DrainGivesUpAtItsDeadline) {
  script_.Hold();
  Reader reader;
  Submit(reader, {1}, 5);
  engine_->Drain(clock_.Now());
  script_.AllowAll();
  EXPECT_EQ(reader.ReadAll().finishes[0].reason, FinishReason::kMaxTokens);
}

TEST_F(EngineTest, StopEndsWhatIsLeftWithUnavailable) {
  EngineOptions options = Options();
  options.scheduler.max_sequences = 1;
  Make(options);
  script_.Hold();
  Reader running(1), queued(1), late;  // full after one token: they cannot end by themselves
  Submit(running, {1}, 1000);
  script_.AwaitStep(1);
  Submit(queued, {1}, 1000);
  script_.AllowAll();
  engine_->Stop();
  for (Reader* reader : {&running, &queued}) {
    const FinishEvent end = reader->ReadAll().finishes[0];
    EXPECT_EQ(end.reason, FinishReason::kError);
    EXPECT_EQ(end.status.code(), absl::StatusCode::kUnavailable);
  }
  EXPECT_EQ(engine_->Submit(Request(late, {1}, 1)).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(engine_->stats().kv_blocks_used, 0);
  engine_->Stop();  // again is nothing
}

TEST_F(EngineTest, FailedStepEndsTheRequestsThatWereInIt) {
  EngineOptions options = Options();
  options.scheduler.max_sequences = 1;
  Make(options);
  script_.edit = [](const Batch& batch, StepOutput&) {
    return batch.rows[0].sequence->tokens()[0] == 66 ? absl::InternalError("no such kernel")
                                                     : absl::OkStatus();
  };
  Reader bad, good;
  Submit(bad, {66}, 5);
  Submit(good, {1}, 5);
  const FinishEvent end = bad.ReadAll().finishes[0];
  EXPECT_EQ(end.reason, FinishReason::kError);
  EXPECT_EQ(end.status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(end.status.message()), testing::HasSubstr("no such kernel"));
  EXPECT_EQ(good.ReadAll().tokens[0].size(), 5u);
  engine_->Drain(absl::InfiniteFuture());
  EXPECT_EQ(engine_->stats().kv_blocks_used, 0);
}

TEST_F(EngineTest, FailedRowEndsThatRequestAlone) {
  script_.Hold();
  script_.edit = [](const Batch& batch, StepOutput& output) {
    for (const BatchRow& row : batch.rows) {
      const bool bad = row.sequence->tokens().back() == 67;
      output.row_status.push_back(bad ? absl::InternalError("logits are NaN") : absl::OkStatus());
    }
    return absl::OkStatus();
  };
  Reader bad, good;
  Submit(bad, {66}, 5);
  Submit(good, {1}, 5);
  script_.AllowAll();
  const Reader::Result result = bad.ReadAll();
  EXPECT_THAT(result.tokens[0], ElementsAre(67));
  EXPECT_EQ(result.finishes[0].status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(good.ReadAll().tokens[0], ElementsAre(2, 3, 4, 5, 6));
}

TEST_F(EngineTest, MissingTokensAreAnErrorOfTheStep) {
  script_.edit = [](const Batch&, StepOutput& output) {
    output.sampled.clear();
    return absl::OkStatus();
  };
  Reader reader;
  Submit(reader, {1}, 5);
  EXPECT_EQ(reader.ReadAll().finishes[0].status.code(), absl::StatusCode::kInternal);
}

TEST_F(EngineTest, PromptLogprobsAreSentOnceBeforeTheFirstToken) {
  script_.edit = [](const Batch& batch, StepOutput& output) {
    for (const BatchRow& row : batch.rows) {
      std::vector<SampledToken>& scores = output.prompt_logprobs.emplace_back();
      const int64_t end = row.first_token + row.num_tokens;
      for (int64_t i = row.first_token + 1; i <= end && i < row.sequence->num_prompt_tokens();
           ++i) {
        scores.push_back({.token = row.sequence->tokens()[i], .logprob = -1, .top_logprobs = {}});
      }
    }
    return absl::OkStatus();
  };
  Reader reader;
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < 40; ++i) {  // three chunks of at most 16
    prompt.push_back(i);
  }
  GenerationRequest request = Request(reader, prompt, 2);
  request.num_samples = 2;
  request.sampling.prompt_logprobs = 0;
  ASSERT_TRUE(engine_->Submit(std::move(request)).ok());
  const GenerationEvent first = reader.Next();
  ASSERT_TRUE(std::holds_alternative<PromptEvent>(first));
  const std::vector<SampledToken>& scores = std::get<PromptEvent>(first).prompt_logprobs;
  ASSERT_EQ(scores.size(), 39u);
  for (int32_t i = 0; i < 39; ++i) {
    EXPECT_EQ(scores[i].token, i + 1);
  }
  EXPECT_THAT(reader.ReadAll(2).prompts, IsEmpty());
}

TEST_F(EngineTest, CallbacksSeeEveryStepAndEveryEnd) {
  int64_t num_prefill = 0, num_decode = 0;
  std::vector<absl::StatusCode> ends;
  EngineOptions options = Options();
  options.on_step = [&](const StepStats& step) {
    num_prefill += step.num_prefill_tokens;
    num_decode += step.num_decode_tokens;
  };
  options.on_finish = [&](const Sequence&, const absl::Status& status) {
    ends.push_back(status.code());
  };
  Make(options);
  Reader reader;
  Submit(reader, {1, 2, 3}, 4);
  reader.ReadAll();
  engine_->Stop();
  EXPECT_EQ(num_prefill, 3);
  EXPECT_EQ(num_decode, 3);
  EXPECT_THAT(ends, ElementsAre(absl::StatusCode::kOk));
}

TEST_F(EngineTest, StatsCountTokensOnce) {
  Reader first, second;
  const std::vector<int32_t> prompt(9, 5);
  Submit(first, prompt, 4);
  first.ReadAll();
  Submit(second, prompt, 4);
  second.ReadAll();
  engine_->Drain(absl::InfiniteFuture());
  const EngineStats stats = engine_->stats();
  EXPECT_EQ(stats.prompt_tokens, 18);
  EXPECT_EQ(stats.cached_prompt_tokens, 8);
  EXPECT_EQ(stats.generated_tokens, 8);
  EXPECT_EQ(stats.num_steps, 8);
  EXPECT_EQ(stats.num_running, 0);
  EXPECT_EQ(stats.kv_blocks_total, 256);
  EXPECT_GT(stats.kv_blocks_cached, 0);
}

TEST_F(EngineTest, StreamsMayOutliveTheEngine) {
  Reader reader;
  Submit(reader, {1}, 2);
  reader.NextToken();
  engine_.reset();
  reader.stream()->CancelAll(FinishReason::kCancelled);
  while (reader.stream()->Pop().has_value()) {
  }
}

TEST_F(EngineTest, CreateRefusesOptionsThatContradictEachOther) {
  const auto code = [&](const std::function<void(EngineOptions&)>& change) {
    EngineOptions options = Options();
    change(options);
    return Engine::Create(options, std::make_unique<ScriptedRunner>(&script_), &cache_, absl::Now)
        .status()
        .code();
  };
  constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(code([](EngineOptions& o) { o.scheduler.max_batch_tokens = 7; }), kInvalid);
  EXPECT_EQ(code([](EngineOptions& o) { o.scheduler.max_sequences = 0; }), kInvalid);
  EXPECT_EQ(code([](EngineOptions& o) { o.scheduler.max_context_tokens = 0; }), kInvalid);
  EXPECT_EQ(code([](EngineOptions& o) { o.kv_num_blocks = 0; }), kInvalid);
  EXPECT_EQ(code([](EngineOptions& o) { o.kv_block_size = 0; }), kInvalid);
  EXPECT_EQ(code([](EngineOptions& o) { o.max_queued_sequences = 0; }), kInvalid);
}

// One row a step, each of a second; requests of one token.
EngineOptions OneASecond(EngineOptions options, StepScript& script, FakeClock& clock) {
  options.scheduler.max_sequences = 1;
  options.scheduler.max_batch_tokens = 1;
  script.edit = [&clock](const Batch&, StepOutput&) {
    clock.Advance(absl::Seconds(1));
    return absl::OkStatus();
  };
  return options;
}

TEST_F(EngineTest, RequestThatCannotStartInTimeIsRefusedAtOnce) {
  Make(OneASecond(Options(), script_, clock_));
  script_.Hold();
  std::vector<std::unique_ptr<Reader>> readers;
  for (int i = 0; i < 20; ++i) {
    readers.push_back(std::make_unique<Reader>());
    Submit(*readers.back(), {1}, 1);
  }
  script_.AllowSteps(10);  // one start a second: the engine knows by now
  readers[9]->ReadAll();
  script_.AwaitStep(11);
  Reader late, patient, other;
  GenerationRequest request = Request(late, {1}, 1);
  request.deadline = clock_.Now() + absl::Seconds(3);
  ASSERT_TRUE(engine_->Submit(std::move(request)).ok());
  request = Request(patient, {1}, 1);
  request.deadline = clock_.Now() + absl::Seconds(60);
  ASSERT_TRUE(engine_->Submit(std::move(request)).ok());
  request = Request(other, {1}, 1);
  request.tenant = "globex";  // stands in nobody's queue
  request.deadline = clock_.Now() + absl::Seconds(6);
  ASSERT_TRUE(engine_->Submit(std::move(request)).ok());
  script_.AllowSteps(2);  // the one in progress, and the one at whose end the refusal is told
  const FinishEvent refused = late.ReadAll().finishes[0];
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kResourceExhausted) << refused.status;
  const std::optional<ErrorDetail> detail = GetErrorDetail(refused.status);
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->reason, "DEADLINE_UNREACHABLE");
  EXPECT_GE(detail->retry_after, absl::Seconds(5));
  EXPECT_LE(detail->retry_after, absl::Seconds(12));
  script_.AllowAll();
  EXPECT_TRUE(patient.ReadAll().finishes[0].status.ok());
  EXPECT_TRUE(other.ReadAll().finishes[0].status.ok());
}

TEST_F(EngineTest, DeviceTimeIsSharedByCost) {
  EngineOptions options = Options();
  script_.edit = [this](const Batch&, StepOutput&) {
    clock_.Advance(absl::Seconds(1));
    return absl::OkStatus();
  };
  Make(options);
  script_.Hold();
  Reader warm_up, one, two;
  Submit(warm_up, {1}, 1);
  script_.AwaitStep(1);  // so that the other two begin together
  Submit(one, {1, 2, 3}, 1);
  Submit(two, {1}, 2);
  script_.AllowAll();
  EXPECT_EQ(warm_up.ReadAll().finishes[0].device_time, absl::Seconds(1));
  EXPECT_EQ(one.ReadAll().finishes[0].device_time, absl::Seconds(0.75));
  EXPECT_EQ(two.ReadAll().finishes[0].device_time, absl::Seconds(1.25)) << "and a step alone";
}

TEST_F(EngineTest, RequestBeyondItsTenantsKvLimitIsRefused) {
  Reader reader;
  GenerationRequest request = Request(reader, std::vector<int32_t>(100, 1), 100);
  request.share.kv_percent = 10;  // of 256 blocks of 4 tokens
  const absl::Status refused = engine_->Submit(std::move(request));
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetErrorDetail(refused)->reason, "KV_PERCENT");
}

}  // namespace
}  // namespace tenon
