// What the residency calls promise, through the real binary.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tenon/v1/tenants.grpc.pb.h"
#include "tests/integration/residency_fixture.h"

namespace tenon {
namespace {

using Stub = v1::ResidencyService::Stub;
using ::testing::HasSubstr;

constexpr char kMergedBytes[] = "--merged-bytes=10000000";

class ResidencyCallsTest : public ResidencyTest {};

TEST_F(ResidencyCallsTest, AdapterGoesFromStoreToDeviceAndBack) {
  StartResidency();
  UploadTiny("plain-qv", "fr");
  EXPECT_EQ(ResidencyOf("fr").state(), v1::RESIDENCY_STATE_DEVICE) << "an upload brings it";
  Restart();
  EXPECT_EQ(ResidencyOf("fr").state(), v1::RESIDENCY_STATE_STORED);
  v1::AdapterResidency residency;
  ASSERT_TRUE(Call(&Stub::LoadAdapter, "fr", &residency).ok());
  EXPECT_EQ(residency.state(), v1::RESIDENCY_STATE_DEVICE);
  EXPECT_GT(residency.device_bytes(), 0);
  EXPECT_TRUE(residency.has_load_time());
  EXPECT_EQ(Metric("tenon_adapter_loads_total"), 1);
  EXPECT_EQ(Metric("tenon_host_adapters"), 1);
  ASSERT_TRUE(Call(&Stub::UnloadAdapter, "fr", &residency).ok());
  EXPECT_EQ(residency.state(), v1::RESIDENCY_STATE_STORED);
  EXPECT_EQ(Metric("tenon_adapters_resident"), 0);
}

TEST_F(ResidencyCallsTest, EvictedAdapterComesBackFromTheHostTier) {
  StartResidency();
  UploadVariant("all-linear", "one", 1);
  UploadVariant("all-linear", "two", 2);
  const int64_t nbytes = ResidencyOf("one").device_bytes();
  Restart({absl::StrCat("--adapter-device-bytes=", nbytes * 3 / 2)});
  for (const char* name : {"one", "two", "one"}) {
    ASSERT_TRUE(Call(&Stub::LoadAdapter, name).ok());
  }
  EXPECT_EQ(ResidencyOf("two").state(), v1::RESIDENCY_STATE_HOST);
  const v1::ResidencyTotals totals = Residency().totals();
  EXPECT_EQ(totals.loads(), 3);
  EXPECT_EQ(totals.evictions(), 2);
  EXPECT_EQ(totals.host_hits(), 1);
  EXPECT_EQ(totals.host_misses(), 2);
}

TEST_F(ResidencyCallsTest, PinnedAdapterStaysAndPinsAreBounded) {
  StartResidency();
  for (int i = 0; i < 4; ++i) {
    UploadVariant("all-linear", absl::StrCat("a", i), i);
  }
  const int64_t nbytes = ResidencyOf("a0").device_bytes();
  Restart({absl::StrCat("--adapter-device-bytes=", nbytes * 5 / 2)});
  v1::AdapterResidency residency;
  ASSERT_TRUE(Call(&Stub::PinAdapter, "a0", &residency).ok());
  EXPECT_TRUE(residency.pinned());
  EXPECT_EQ(residency.state(), v1::RESIDENCY_STATE_DEVICE);
  for (const char* name : {"a1", "a2", "a3"}) {
    EXPECT_TRUE(StatusOf(absl::StrCat("adapter: '", name, "' prompt: 'hello'")).ok());
  }
  EXPECT_EQ(ResidencyOf("a0").state(), v1::RESIDENCY_STATE_DEVICE);
  const grpc::Status refused = Call(&Stub::PinAdapter, "a1");
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("more than half of the budget"));
  ASSERT_TRUE(Call(&Stub::UnpinAdapter, "a0", &residency).ok());
  EXPECT_FALSE(residency.pinned());
  EXPECT_TRUE(Call(&Stub::PinAdapter, "a1").ok());
}

TEST_F(ResidencyCallsTest, BadCallsAreRefusedByName) {
  StartResidency();
  UploadTiny("plain-qv", "fr");
  EXPECT_EQ(Call(&Stub::LoadAdapter, "nobody").error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Call(&Stub::PinAdapter, "").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(SetMergeMode("fr", v1::MERGE_MODE_UNSPECIFIED).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  const grpc::Status off = SetMergeMode("fr", v1::MERGE_MODE_ALWAYS);
  EXPECT_EQ(off.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(off.error_message(), HasSubstr("--merged-bytes is 0"));
}

TEST_F(ResidencyCallsTest, DeletedAdapterLeavesEveryTier) {
  StartResidency({kMergedBytes});
  UploadTiny("plain-qv", "fr");
  ASSERT_TRUE(Call(&Stub::PinAdapter, "fr").ok());
  ASSERT_TRUE(SetMergeMode("fr", v1::MERGE_MODE_ALWAYS).ok());
  EXPECT_GT(Metric("tenon_merged_bytes"), 0);
  grpc::ClientContext context;
  v1::DeleteAdapterRequest request;
  request.set_adapter("fr");
  v1::DeleteAdapterResponse response;
  ASSERT_TRUE(adapters_->DeleteAdapter(&context, request, &response).ok());
  EXPECT_EQ(Metric("tenon_merged_bytes"), 0);
  EXPECT_EQ(Metric("tenon_adapter_pinned_bytes"), 0);
  EXPECT_EQ(Metric("tenon_adapter_resident_bytes"), 0);
  EXPECT_EQ(Metric("tenon_host_adapters"), 0);
}

// --- what is kept ---

TEST_F(ResidencyCallsTest, PinsAndMergeModesSurviveAKill) {
  StartResidency({kMergedBytes});
  UploadTiny("plain-qv", "kept");
  UploadTiny("all-linear", "hot");
  UploadTiny("rslora", "plain");
  UploadTiny("rank-3", "free");
  ASSERT_TRUE(Call(&Stub::PinAdapter, "kept").ok());
  ASSERT_TRUE(SetMergeMode("hot", v1::MERGE_MODE_ALWAYS).ok());
  ASSERT_TRUE(SetMergeMode("plain", v1::MERGE_MODE_NEVER).ok());
  KillAndRestart({kMergedBytes});
  // Nobody asks for them: the start does.
  EXPECT_TRUE(Becomes("kept", v1::RESIDENCY_STATE_DEVICE));
  EXPECT_TRUE(Becomes("hot", v1::RESIDENCY_STATE_MERGED));
  EXPECT_TRUE(ResidencyOf("kept").pinned());
  EXPECT_EQ(ResidencyOf("hot").merge_mode(), v1::MERGE_MODE_ALWAYS);
  EXPECT_EQ(ResidencyOf("plain").merge_mode(), v1::MERGE_MODE_NEVER);
  EXPECT_EQ(ResidencyOf("free").state(), v1::RESIDENCY_STATE_STORED);

  ASSERT_TRUE(Call(&Stub::UnpinAdapter, "kept").ok());
  ASSERT_TRUE(Call(&Stub::UnloadAdapter, "hot").ok());
  ASSERT_TRUE(Call(&Stub::UnloadAdapter, "plain").ok());
  EXPECT_EQ(ResidencyOf("plain").merge_mode(), v1::MERGE_MODE_AUTO);
  Restart({kMergedBytes});
  for (const char* name : {"kept", "hot", "plain", "free"}) {
    const v1::AdapterResidency residency = ResidencyOf(name);
    EXPECT_EQ(residency.state(), v1::RESIDENCY_STATE_STORED) << name;
    EXPECT_EQ(residency.merge_mode(), v1::MERGE_MODE_AUTO) << name;
    EXPECT_FALSE(residency.pinned()) << name;
  }
}

TEST_F(ResidencyCallsTest, DeletedVersionTakesItsPinAndAPinStaysWithItsVersion) {
  StartResidency({kMergedBytes});
  UploadTiny("plain-qv", "fr");
  ASSERT_TRUE(Call(&Stub::PinAdapter, "fr@1").ok());
  ASSERT_TRUE(SetMergeMode("fr@1", v1::MERGE_MODE_NEVER).ok());
  UploadTiny("rslora", "fr");
  KillAndRestart({kMergedBytes});
  std::vector<int64_t> pinned;
  const v1::GetResidencyResponse all = Residency();
  for (const v1::AdapterResidency& residency : all.adapters()) {
    if (residency.pinned()) {
      pinned.push_back(residency.version());
    }
  }
  EXPECT_THAT(pinned, testing::ElementsAre(1));
  grpc::ClientContext context;
  v1::DeleteAdapterResponse response;
  ASSERT_TRUE(adapters_
                  ->DeleteAdapter(&context, ParseProto<v1::DeleteAdapterRequest>("adapter: 'fr'"),
                                  &response)
                  .ok());
  UploadTiny("plain-qv", "fr");  // the very bytes again
  KillAndRestart({kMergedBytes});
  EXPECT_FALSE(ResidencyOf("fr").pinned());
  EXPECT_EQ(ResidencyOf("fr").merge_mode(), v1::MERGE_MODE_AUTO);
  EXPECT_EQ(ResidencyOf("fr").state(), v1::RESIDENCY_STATE_STORED);
}

TEST_F(ResidencyCallsTest, WhatTheBudgetsRefuseAtAStartIsKeptForTheNextOne) {
  StartResidency({kMergedBytes});
  UploadTiny("all-linear", "hot");
  ASSERT_TRUE(Call(&Stub::PinAdapter, "hot").ok());
  ASSERT_TRUE(SetMergeMode("hot", v1::MERGE_MODE_ALWAYS).ok());
  const int64_t nbytes = ResidencyOf("hot").device_bytes();
  Restart({absl::StrCat("--adapter-device-bytes=", nbytes * 3 / 2)});
  EXPECT_FALSE(ResidencyOf("hot").pinned()) << "more than half of the budget";
  EXPECT_TRUE(StatusOf("adapter: 'hot' prompt: 'hello'").ok());
  Restart({kMergedBytes});
  EXPECT_TRUE(Becomes("hot", v1::RESIDENCY_STATE_MERGED));
  EXPECT_TRUE(ResidencyOf("hot").pinned());
}

TEST_F(ResidencyCallsTest, EachChangeOfResidencyIsAudited) {
  StartResidency();
  UploadTiny("plain-qv", "fr");
  ASSERT_TRUE(Call(&Stub::LoadAdapter, "fr").ok());
  ASSERT_TRUE(Call(&Stub::PinAdapter, "fr").ok());
  EXPECT_FALSE(SetMergeMode("fr", v1::MERGE_MODE_ALWAYS).ok()) << "--merged-bytes is 0";
  ASSERT_TRUE(SetMergeMode("fr", v1::MERGE_MODE_NEVER).ok());
  ASSERT_TRUE(Call(&Stub::UnpinAdapter, "fr@1").ok());
  ASSERT_TRUE(Call(&Stub::UnloadAdapter, "fr").ok());
  EXPECT_FALSE(Call(&Stub::PinAdapter, "nobody").ok());
  Residency();  // changes nothing
  const auto admin = v1::TenantService::NewStub(server_->NewChannel(server_->admin_address()));
  grpc::ClientContext context;
  v1::ListAuditEntriesRequest request;
  request.set_tenant("default");
  v1::ListAuditEntriesResponse response;
  ASSERT_TRUE(admin->ListAuditEntries(&context, request, &response).ok());
  std::vector<std::string> lines;
  for (const v1::AuditEntry& entry : response.entries()) {
    lines.push_back(absl::StrCat(entry.action(), " ", entry.object(), " ", entry.outcome()));
  }
  lines.resize(8);  // newest first; before them is the start
  EXPECT_EQ(response.entries(0).actor(), "local");
  EXPECT_THAT(lines,
              testing::ElementsAre("PinAdapter nobody not_found", "UnloadAdapter fr@1 ok",
                                   "UnpinAdapter fr@1 ok", "SetMergeMode fr@1 ok",
                                   "SetMergeMode fr@1 resource_exhausted", "PinAdapter fr@1 ok",
                                   "LoadAdapter fr@1 ok", "UploadAdapter fr@1 ok"));
}

// --- merging ---

TEST_F(ResidencyCallsTest, TokensAreTheSameBeforeDuringAndAfterAMerge) {
  StartResidency({kMergedBytes, "--dtype=fp32"});
  UploadTiny("all-linear", "hot");
  UploadTiny("rslora", "other");
  std::vector<v1::GenerateRequest> requests;
  for (int i = 0; i < 12; ++i) {
    const char* adapter = i % 3 == 0 ? "other" : "hot";
    requests.push_back(GreedyRequest(i == 5 ? "" : adapter, absl::StrCat("hello world ", i), 60));
  }
  const std::vector<absl::Duration> at_once(requests.size());
  const std::vector<RequestOutcome> before = StreamAll(channel_, requests, at_once);
  // Merged, unmerged and merged again while the same requests run.
  std::thread changes([this] {
    for (const v1::MergeMode mode :
         {v1::MERGE_MODE_ALWAYS, v1::MERGE_MODE_NEVER, v1::MERGE_MODE_ALWAYS}) {
      EXPECT_TRUE(SetMergeMode("hot", mode).ok());
    }
  });
  const std::vector<RequestOutcome> during = StreamAll(channel_, requests, at_once);
  changes.join();
  v1::AdapterResidency residency = ResidencyOf("hot");
  EXPECT_EQ(residency.state(), v1::RESIDENCY_STATE_MERGED);
  EXPECT_GT(residency.merged_bytes(), 0);
  const std::vector<RequestOutcome> merged = StreamAll(channel_, requests, at_once);
  const RequestOutcome alone = StreamAll(channel_, {requests[1]}, {absl::ZeroDuration()})[0];
  EXPECT_GT(Metric("tenon_merged_tokens_total"), 0);
  ASSERT_TRUE(SetMergeMode("hot", v1::MERGE_MODE_NEVER, &residency).ok());
  EXPECT_EQ(residency.state(), v1::RESIDENCY_STATE_DEVICE);
  EXPECT_EQ(residency.merged_bytes(), 0);
  const std::vector<RequestOutcome> after = StreamAll(channel_, requests, at_once);
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_EQ(before[i].tokens.size(), 60u) << i;
    for (const auto* round : {&before, &during, &merged, &after}) {
      EXPECT_TRUE((*round)[i].status.ok()) << (*round)[i].status.error_message();
      EXPECT_EQ((*round)[i].tokens, before[i].tokens) << i;
    }
  }
  EXPECT_EQ(alone.tokens, before[1].tokens);
}

TEST_F(ResidencyCallsTest, ManySwitchesUnderStreamsFailNothingAndLeaveNothing) {
  constexpr int kSwitches = 60;
  StartResidency({kMergedBytes, "--dtype=fp32"});
  UploadTiny("all-linear", "hot");
  std::vector<v1::GenerateRequest> requests;
  for (int i = 0; i < 8; ++i) {
    requests.push_back(GreedyRequest(i == 5 ? "" : "hot", absl::StrCat("hello world ", i), 60));
  }
  const std::vector<absl::Duration> at_once(requests.size());
  const std::vector<RequestOutcome> expected = StreamAll(channel_, requests, at_once);
  std::atomic<bool> switched = false;
  std::thread changes([&] {
    for (int i = 0; i < kSwitches; ++i) {
      const grpc::Status status =
          SetMergeMode("hot", i % 2 == 0 ? v1::MERGE_MODE_ALWAYS : v1::MERGE_MODE_NEVER);
      EXPECT_TRUE(status.ok()) << status.error_message();
      // Some tokens on these weights before the next switch.
      const double tokens = Metric("tenon_generated_tokens_total");
      while (Metric("tenon_generated_tokens_total") < tokens + 20) {
        absl::SleepFor(absl::Milliseconds(1));
      }
    }
    switched = true;
  });
  int num_streams = 0, num_failed = 0, num_wrong = 0;
  while (!switched) {
    const std::vector<RequestOutcome> during = StreamAll(channel_, requests, at_once);
    for (size_t i = 0; i < requests.size(); ++i, ++num_streams) {
      num_failed += !during[i].status.ok();
      num_wrong += during[i].tokens != expected[i].tokens;
    }
  }
  changes.join();
  std::printf("%d streams over %d switches: %d failed, %d with other tokens\n", num_streams,
              kSwitches, num_failed, num_wrong);
  EXPECT_EQ(num_failed, 0);
  EXPECT_EQ(num_wrong, 0);
  EXPECT_GT(Metric("tenon_merged_tokens_total"), 0);
  EXPECT_EQ(Metric("tenon_merged_bytes"), 0);
  EXPECT_EQ(ResidencyOf("hot").merged_bytes(), 0);
}

TEST_F(ResidencyCallsTest, MergeOverTheBudgetIsRefusedAndOverridesTakeRoomFromNobody) {
  StartResidency({kMergedBytes});
  UploadTiny("all-linear", "one");
  UploadTiny("mlp-rank-16", "two");
  v1::AdapterResidency residency;
  ASSERT_TRUE(SetMergeMode("one", v1::MERGE_MODE_ALWAYS, &residency).ok());
  const int64_t nbytes = residency.merged_bytes();
  Restart({absl::StrCat("--merged-bytes=", nbytes)});
  ASSERT_TRUE(SetMergeMode("one", v1::MERGE_MODE_ALWAYS).ok());
  const grpc::Status refused = SetMergeMode("two", v1::MERGE_MODE_ALWAYS, &residency);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ResidencyOf("two").merge_mode(), v1::MERGE_MODE_AUTO);
  ASSERT_TRUE(SetMergeMode("one", v1::MERGE_MODE_AUTO).ok());
  EXPECT_EQ(ResidencyOf("one").state(), v1::RESIDENCY_STATE_MERGED) << "auto keeps the state";
  ASSERT_TRUE(SetMergeMode("two", v1::MERGE_MODE_ALWAYS).ok()) << "an override comes before auto";
  EXPECT_EQ(ResidencyOf("one").state(), v1::RESIDENCY_STATE_DEVICE);
  EXPECT_EQ(ResidencyOf("two").state(), v1::RESIDENCY_STATE_MERGED);
}

TEST_F(ResidencyCallsTest, HotAdapterIsMergedByItself) {
  StartResidency({kMergedBytes, "--dtype=fp32"});
  UploadTiny("all-linear", "hot");
  const v1::GenerateRequest request = GreedyRequest("hot", "hello world", 100);
  const std::vector<int> expected =
      StreamAll(channel_, {request}, {absl::ZeroDuration()})[0].tokens;
  const absl::Time give_up = absl::Now() + absl::Minutes(2);
  while (Metric("tenon_merged_selections") == 0 && absl::Now() < give_up) {
    EXPECT_EQ(StreamAll(channel_, {request}, {absl::ZeroDuration()})[0].tokens, expected);
  }
  EXPECT_EQ(ResidencyOf("hot").state(), v1::RESIDENCY_STATE_MERGED);
  EXPECT_EQ(StreamAll(channel_, {request}, {absl::ZeroDuration()})[0].tokens, expected);
}

}  // namespace
}  // namespace tenon
