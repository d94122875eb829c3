// Adapters and the engine: nobody waits for somebody else's load.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "tests/server/engine/engine_fixture.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class EngineAdapterTest : public EngineTest {
 protected:
  void SubmitFor(Reader& reader, std::shared_ptr<const AdapterSelection> selection,
                 std::vector<int32_t> prompt, int32_t max_tokens, int32_t num_samples = 1) {
    GenerationRequest request = Request(reader, std::move(prompt), max_tokens);
    request.selection = std::move(selection);
    request.num_samples = num_samples;
    ASSERT_TRUE(engine_->Submit(std::move(request)).ok());
  }
};

TEST_F(EngineAdapterTest, LoadDoesNotStallOtherRequests) {
  load_ = [&](const AdapterInfo&) {
    load_gate_.WaitForNotificationWithTimeout(kPatience);
    return absl::OkStatus();
  };
  Reader cold, base;
  SubmitFor(cold, Select("fr"), {1}, 3);
  Submit(base, {10}, 50);
  EXPECT_EQ(base.ReadAll().tokens[0].size(), 50u);
  EXPECT_FALSE(cold.stream()->Pop().has_value());
  EXPECT_THAT(engine_->stats().waiting_adapters, ElementsAre("acme/fr@1"));
  clock_.Advance(absl::Seconds(7));
  load_gate_.Notify();
  const Reader::Result result = cold.ReadAll();
  EXPECT_THAT(result.tokens[0], ElementsAre(2, 3, 4));
  EXPECT_EQ(result.finishes[0].timings.adapter_wait, absl::Seconds(7));
  EXPECT_EQ(result.finishes[0].timings.queue, absl::ZeroDuration());
}

TEST_F(EngineAdapterTest, VirtualTokensStayComputedWhileTheirAdapterIsOnTheDevice) {
  EngineOptions options = Options();
  options.kv_num_blocks = 32;
  Make(options);
  AdapterInfo info;
  info.id = {"acme", "soft", 1};
  info.digest = "soft";
  info.num_virtual_tokens = 10;
  const auto soft = std::make_shared<AdapterSelection>(std::vector<WeightedAdapter>{
      {AdapterHandle(std::make_shared<const AdapterInfo>(info)), 1.0f}});
  std::atomic<int64_t> num_computed = 0;
  script_.watch = [&](const Batch& batch, std::span<const ResolvedSelection>) {
    num_computed += batch.num_context_tokens;
  };
  int32_t first = 100;
  const auto use = [&] {
    Reader reader;
    SubmitFor(reader, soft, {++first}, 2);
    EXPECT_TRUE(reader.ReadAll().finishes[0].status.ok());
    return num_computed.load();
  };
  const auto flood = [&] {
    for (int i = 0; i < 8; ++i) {
      Reader reader;
      Submit(reader, std::vector<int32_t>(40, first += 10), 2);
      reader.ReadAll();
    }
  };
  EXPECT_EQ(use(), 10);
  flood();
  EXPECT_EQ(use(), 10) << "found, whatever came in between";
  cache_.Evict("soft");
  flood();
  EXPECT_EQ(use(), 20) << "gone with the adapter";
  flood();
  EXPECT_EQ(use(), 20);
}

TEST_F(EngineAdapterTest, EachSegmentRunsWithItsAdapters) {
  absl::Mutex mutex;
  std::vector<std::pair<std::string, size_t>> seen;  // selection key, number of adapters
  std::vector<float> weights;
  script_.watch = [&](const Batch& batch, std::span<const ResolvedSelection> adapters) {
    ASSERT_EQ(adapters.size(), batch.segments.size());
    for (size_t i = 0; i < adapters.size(); ++i) {
      ASSERT_EQ(adapters[i].adapters.size(), batch.segments[i].selection->adapters().size());
      for (const ResolvedAdapter& adapter : adapters[i].adapters) {
        ASSERT_NE(adapter.adapter, nullptr);
        absl::MutexLock lock(&mutex);
        weights.push_back(adapter.weight);
      }
    }
  };
  Reader both, base;
  const auto composed = std::make_shared<AdapterSelection>(
      std::vector<WeightedAdapter>{{HandleOf("fr"), 0.25f}, {HandleOf("polite"), 0.75f}});
  SubmitFor(both, composed, {1}, 1);
  Submit(base, {1}, 1);
  both.ReadAll();
  base.ReadAll();
  absl::MutexLock lock(&mutex);
  EXPECT_THAT(weights, ElementsAre(0.25f, 0.75f));
}

TEST_F(EngineAdapterTest, FailedLoadEndsTheRequestsThatNeedIt) {
  load_ = [&](const AdapterInfo& info) {
    load_gate_.WaitForNotificationWithTimeout(kPatience);
    return info.id.name == "broken" ? absl::DataLossError("blob does not match its digest")
                                    : absl::OkStatus();
  };
  Reader one, two, good;
  SubmitFor(one, Select("broken"), {1}, 3, 2);
  SubmitFor(two, Select("broken"), {1}, 3);
  SubmitFor(good, Select("fr"), {1}, 3);
  load_gate_.Notify();
  for (const FinishEvent& end : one.ReadAll(2).finishes) {
    EXPECT_EQ(end.reason, FinishReason::kError);
    EXPECT_EQ(end.status.code(), absl::StatusCode::kDataLoss);
  }
  EXPECT_EQ(two.ReadAll().finishes[0].status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(good.ReadAll().tokens[0].size(), 3u);
}

TEST_F(EngineAdapterTest, RequestsForOneColdAdapterLoadItOnce) {
  std::vector<std::unique_ptr<Reader>> readers;
  script_.Hold();
  for (int i = 0; i < 20; ++i) {
    readers.push_back(std::make_unique<Reader>());
    SubmitFor(*readers.back(), Select("fr"), {i}, 2);
  }
  script_.AllowAll();
  for (const std::unique_ptr<Reader>& reader : readers) {
    EXPECT_EQ(reader->ReadAll().tokens[0].size(), 2u);
  }
  EXPECT_EQ(cache_.stats().loads, 1);
}

TEST_F(EngineAdapterTest, CancelEndsARequestThatWaitsForItsAdapter) {
  load_ = [&](const AdapterInfo&) {
    load_gate_.WaitForNotificationWithTimeout(kPatience);
    return absl::OkStatus();
  };
  Reader reader;
  SubmitFor(reader, Select("fr"), {1}, 3);
  reader.stream()->CancelAll(FinishReason::kCancelled);
  EXPECT_EQ(reader.ReadAll().finishes[0].reason, FinishReason::kCancelled);
  load_gate_.Notify();
  Reader after;  // the adapter is resident and nobody's
  SubmitFor(after, Select("fr"), {1}, 3);
  EXPECT_EQ(after.ReadAll().tokens[0].size(), 3u);
}

TEST_F(EngineAdapterTest, EvictedAdapterStaysWithTheStreamThatUsesIt) {
  Reader reader(1);
  SubmitFor(reader, Select("fr"), {1}, 5);
  reader.NextToken();
  cache_.Evict("fr");
  EXPECT_EQ(reader.ReadAll().tokens[0].size(), 4u);
  EXPECT_EQ(cache_.stats().loads, 1);
}

TEST_F(EngineAdapterTest, StatsNameRunningAdaptersSortedAndOnce) {
  for (const char* name : {"fr", "de"}) {
    cache_.Insert(name, std::make_shared<const CompiledAdapter>(1));
  }
  script_.Hold();
  Reader one, two, three, base;
  SubmitFor(one, Select("fr"), {1}, 3);
  script_.AwaitStep(1);
  SubmitFor(two, Select("de"), {1}, 3);
  SubmitFor(three, Select("fr"), {2}, 3);
  Submit(base, {1}, 3);
  script_.AllowSteps(2);
  script_.AwaitStep(3);  // the stats are those of the boundary before it
  EXPECT_THAT(engine_->stats().running_adapters, ElementsAre("acme/de@1", "acme/fr@1"));
  EXPECT_THAT(engine_->stats().waiting_adapters, IsEmpty());
  script_.AllowAll();
  engine_->Drain(absl::InfiniteFuture());
  EXPECT_THAT(engine_->stats().running_adapters, IsEmpty());
}

TEST_F(EngineAdapterTest, LoadThatEndsAfterTheEngineIsHarmless) {
  load_ = [&](const AdapterInfo&) {
    load_gate_.WaitForNotificationWithTimeout(kPatience);
    return absl::OkStatus();
  };
  Reader reader;
  SubmitFor(reader, Select("fr"), {1}, 3);
  engine_.reset();
  EXPECT_EQ(reader.ReadAll().finishes[0].status.code(), absl::StatusCode::kUnavailable);
  load_gate_.Notify();
}

// A selection whose adapter stands for `num_virtual_tokens` in front.
std::shared_ptr<const AdapterSelection> SelectContext(const std::string& name,
                                                      int64_t num_virtual_tokens) {
  AdapterInfo info;
  info.id = {"acme", name, 1};
  info.digest = name;
  info.num_virtual_tokens = num_virtual_tokens;
  return std::make_shared<AdapterSelection>(std::vector<WeightedAdapter>{
      {AdapterHandle(std::make_shared<const AdapterInfo>(std::move(info))), 1.0f}});
}

TEST_F(EngineAdapterTest, ContextIsComputedOnceWithItsAdapters) {
  absl::Mutex mutex;
  int64_t num_context_tokens = 0;
  script_.watch = [&](const Batch& batch, std::span<const ResolvedSelection> adapters) {
    ASSERT_EQ(adapters.size(), batch.segments.size() + batch.contexts.size());
    absl::MutexLock lock(&mutex);
    num_context_tokens += batch.num_context_tokens;
    for (size_t i = 0; i < batch.contexts.size(); ++i) {
      ASSERT_EQ(adapters[batch.segments.size() + i].adapters.size(), 1u);
      ASSERT_NE(adapters[batch.segments.size() + i].adapters[0].adapter, nullptr);
    }
  };
  std::vector<std::unique_ptr<Reader>> readers;
  for (int i = 0; i < 8; ++i) {
    readers.push_back(std::make_unique<Reader>());
    SubmitFor(*readers.back(), SelectContext("prefix", 21), {i}, 3);  // more than a step's tokens
  }
  for (const std::unique_ptr<Reader>& reader : readers) {
    EXPECT_EQ(reader->ReadAll().tokens[0].size(), 3u);
  }
  absl::MutexLock lock(&mutex);
  EXPECT_EQ(num_context_tokens, 21);
}

TEST_F(EngineAdapterTest, FailedContextEndsThoseThatNeedIt) {
  script_.edit = [](const Batch& batch, StepOutput& output) {
    for (const ContextRow& row : batch.contexts) {
      output.context_status.push_back(row.context->selection()->key().substr(0, 3) == "bad"
                                          ? absl::FailedPreconditionError("not on this model")
                                          : absl::OkStatus());
    }
    return absl::OkStatus();
  };
  script_.Hold();
  Reader bad, bad_too, good, base;
  SubmitFor(bad, SelectContext("bad", 2), {1}, 3, 2);
  SubmitFor(bad_too, SelectContext("bad", 2), {2}, 3);
  SubmitFor(good, SelectContext("good", 2), {1}, 3);
  Submit(base, {1}, 3);
  script_.AllowAll();
  for (const FinishEvent& end : bad.ReadAll(2).finishes) {
    EXPECT_EQ(end.status.code(), absl::StatusCode::kFailedPrecondition);
  }
  EXPECT_EQ(bad_too.ReadAll().finishes[0].status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(good.ReadAll().tokens[0], ElementsAre(2, 3, 4));
  EXPECT_THAT(base.ReadAll().tokens[0], ElementsAre(2, 3, 4));
}

TEST_F(EngineAdapterTest, StepThatFailsEndsThoseThatWaitForItsContext) {
  script_.edit = [](const Batch&, StepOutput&) { return absl::InternalError("out of luck"); };
  Reader reader;
  SubmitFor(reader, SelectContext("prefix", 40), {1}, 3);  // the first step has no row
  EXPECT_EQ(reader.ReadAll().finishes[0].status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(engine_->stats().kv_blocks_used, 0);
}

TEST_F(EngineAdapterTest, VirtualTokensCountInTheMemoryOfARequest) {
  Reader reader;
  GenerationRequest request = Request(reader, {1}, 4);
  request.selection = SelectContext("prefix", 4095);
  const absl::Status status = engine_->Submit(std::move(request));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
}

// A selection of adapters of `kibibytes` each; the fixture's cache holds 1024.
std::shared_ptr<const AdapterSelection> SelectLarge(const std::vector<std::string>& names,
                                                    int64_t kibibytes) {
  std::vector<WeightedAdapter> adapters;
  for (const std::string& name : names) {
    AdapterInfo info;
    info.id = {"acme", name, 1};
    info.digest = name;
    info.resident_bytes = kibibytes << 10;
    adapters.push_back({AdapterHandle(std::make_shared<const AdapterInfo>(std::move(info))), 1.0f});
  }
  return std::make_shared<const AdapterSelection>(std::move(adapters));
}

TEST_F(EngineAdapterTest, RequestWithoutRoomWaitsWhileOthersGoOn) {
  script_.Hold();
  Reader first, waiting, joining, base;
  SubmitFor(first, SelectLarge({"a"}, 600), {1}, 4);
  SubmitFor(waiting, SelectLarge({"b"}, 600), {1}, 3);
  SubmitFor(joining, SelectLarge({"a"}, 600), {10}, 2);
  Submit(base, {20}, 2);
  script_.AllowAll();
  EXPECT_THAT(base.ReadAll().tokens[0], ElementsAre(21, 22));
  EXPECT_THAT(joining.ReadAll().tokens[0], ElementsAre(11, 12));
  EXPECT_THAT(first.ReadAll().tokens[0], ElementsAre(2, 3, 4, 5));
  EXPECT_THAT(waiting.ReadAll().tokens[0], ElementsAre(2, 3, 4));
  EXPECT_EQ(cache_.stats().loads, 2);
}

TEST_F(EngineAdapterTest, SelectionThatNeverFitsIsRefusedAndHoldsNothing) {
  Reader reader;
  SubmitFor(reader, SelectLarge({"a", "b"}, 600), {1}, 3);
  const FinishEvent end = reader.ReadAll().finishes[0];
  EXPECT_EQ(end.status.code(), absl::StatusCode::kResourceExhausted) << end.status;
  EXPECT_EQ(cache_.stats().held_bytes, 0);
  EXPECT_EQ(cache_.stats().loads, 0);
}

TEST_F(EngineAdapterTest, TwoThatNeedEachOthersAdaptersBothFinish) {
  Reader one, two, three;
  SubmitFor(one, SelectLarge({"a", "b"}, 500), {1}, 3);
  SubmitFor(two, SelectLarge({"b", "c"}, 500), {1}, 3);
  SubmitFor(three, SelectLarge({"c", "a"}, 500), {1}, 3);
  for (Reader* reader : {&one, &two, &three}) {
    EXPECT_THAT(reader->ReadAll().tokens[0], ElementsAre(2, 3, 4));
  }
  engine_->Stop();
  EXPECT_EQ(cache_.stats().held_bytes, 0);
}

TEST_F(EngineAdapterTest, CancelledRequestGivesItsPlaceInLineAway) {
  script_.Hold();
  Reader first, cancelled, next;
  SubmitFor(first, SelectLarge({"a"}, 600), {1}, 1000);
  SubmitFor(cancelled, SelectLarge({"b"}, 600), {1}, 3);
  SubmitFor(next, SelectLarge({"c"}, 400), {1}, 3);  // has room, but is not first in line
  cancelled.stream()->CancelAll(FinishReason::kCancelled);
  script_.AllowAll();
  EXPECT_THAT(next.ReadAll().tokens[0], ElementsAre(2, 3, 4));
  first.stream()->CancelAll(FinishReason::kCancelled);
  first.ReadAll();
}

TEST_F(EngineAdapterTest, EndOfTheLastUserMakesRoomWithoutAnotherStep) {
  Reader first, waiting;
  script_.Hold();
  SubmitFor(first, SelectLarge({"a"}, 600), {1}, 100);
  SubmitFor(waiting, SelectLarge({"b"}, 600), {1}, 3);
  script_.AllowSteps(2);
  first.NextToken();
  first.stream()->CancelAll(FinishReason::kCancelled);
  script_.AllowAll();
  EXPECT_THAT(waiting.ReadAll().tokens[0], ElementsAre(2, 3, 4));
}

// A hot adapter whose users never end all at once does not keep a cold one out.
TEST_F(EngineAdapterTest, ColdAdapterGetsItsTurnAmongUsersOfAHotOne) {
  std::vector<std::unique_ptr<Reader>> hot;
  const auto submit_hot = [&] {
    hot.push_back(std::make_unique<Reader>());
    SubmitFor(*hot.back(), SelectLarge({"hot"}, 600), {1}, 20);
  };
  submit_hot();
  submit_hot();
  Reader cold;
  SubmitFor(cold, SelectLarge({"cold"}, 600), {1}, 2);
  bool done = false;
  for (size_t ended = 0; ended < 200 && !done; ++ended) {
    submit_hot();  // one comes for each that ends
    hot[ended]->ReadAll();
    clock_.Advance(absl::Milliseconds(50));
    engine_->Wake();
    while (const std::optional<GenerationEvent> event = cold.stream()->Pop()) {
      done = done || std::holds_alternative<FinishEvent>(*event);
    }
  }
  EXPECT_TRUE(done) << "the cold request was starved";
}

}  // namespace
}  // namespace tenon
