// What an upload must show before it goes live, through the real binary.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "tests/integration/server_fixture.h"
#include "tests/integration/version_calls.h"

namespace tenon {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr char kAsk[] =
    "prompt: 'hello' adapter: 'ref' sampling { temperature: 0 } stopping { max_tokens: 8 "
    "ignore_eos: true } output { token_ids: true logprobs: 0 }";

class UploadAcceptanceTest : public ServerTest {
 protected:
  void SetUp() override {
    Start();
    UploadTiny("all-linear", "ref");  // what the probes should find: the same bytes as fr's
    const auto answer = Generate(kAsk);
    tokens_ = {answer.samples(0).token_ids().begin(), answer.samples(0).token_ids().end()};
    text_ = answer.samples(0).text();
  }

  grpc::Status UploadWith(const std::string& probes, const std::string& folder = "all-linear",
                          v1::UploadAdapterResponse* response = nullptr) {
    return UploadFiles(probes, TinyAdapterFiles(folder), response);
  }
  grpc::Status UploadFiles(const std::string& probes,
                           const std::map<std::string, std::string>& files,
                           v1::UploadAdapterResponse* response = nullptr) {
    auto messages = UploadMessages("fr", files);
    *messages[0].mutable_header() = ParseProto<v1::UploadHeader>("name: 'fr' " + probes);
    v1::UploadAdapterResponse ignored;
    return Upload(messages, response == nullptr ? &ignored : response);
  }
  std::string TokensProbe(const std::vector<int32_t>& tokens) {
    return absl::StrCat("probes { name: 'greeting' prompt: 'hello' expected_tokens { ids: [",
                        absl::StrJoin(tokens, ","), "] } } ");
  }
  std::vector<std::string> Names() {
    std::vector<std::string> names;
    for (const v1::Adapter& adapter : List()) {
      names.push_back(adapter.name());
    }
    return names;
  }

  std::vector<int32_t> tokens_;
  std::string text_;
};

TEST_F(UploadAcceptanceTest, ReportOfThePassedProbesIsKept) {
  v1::UploadAdapterResponse response;
  const grpc::Status status =
      UploadWith(absl::StrCat(TokensProbe(tokens_),
                              "probes { prompt: 'hello' max_loss { tokens { ids: ", tokens_[0],
                              " } loss: 20 } "
                              "}"),
                 "all-linear", &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_TRUE(response.adapter().acceptance().passed());
  server_.reset();
  Start();
  const auto read = VersionCalls(adapters_.get()).Get("fr");
  ASSERT_TRUE(read.status.ok());
  const v1::AcceptanceReport& report = read.response.adapter().acceptance();
  EXPECT_TRUE(report.passed());
  ASSERT_EQ(report.results_size(), 3);
  EXPECT_EQ(report.results(0).name(), "forward pass");
  EXPECT_EQ(report.results(1).name(), "greeting");
  EXPECT_TRUE(report.results(2).has_loss());
  EXPECT_GT(report.time().seconds(), 0);
}

TEST_F(UploadAcceptanceTest, FailingProbeIsNeverVisible) {
  std::vector<int32_t> wrong = tokens_;
  wrong.back() = (wrong.back() + 1) % 300;
  // A watcher sees the upload in no state at all, and the probe's answer in no list.
  Watcher watcher(adapters_.get());
  watcher.Next();
  const grpc::Status status = UploadWith(TokensProbe(wrong));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(FindDetail<google::rpc::ErrorInfo>(status)->reason(), "ACCEPTANCE_FAILED");
  EXPECT_THAT(status.error_message(), HasSubstr("greeting: expected token"));
  EXPECT_THAT(Names(), testing::ElementsAre("ref"));
  EXPECT_EQ(StatusOf("prompt: 'a' adapter: 'fr'").error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(StatusOf("prompt: 'a' adapter: 'fr@1'").error_code(), grpc::StatusCode::NOT_FOUND);
  UploadTiny("plain-qv", "fr");
  EXPECT_EQ(watcher.Next().names(0).versions(0).version(), 1) << "no number was used up";
}

TEST_F(UploadAcceptanceTest, FailingProbeLeavesTheServedVersion) {
  UploadTiny("plain-qv", "fr");
  EXPECT_FALSE(UploadWith("probes { prompt: 'hello' expected_text: 'never that' }").ok());
  const auto answer = Generate("prompt: 'a' adapter: 'fr' stopping { max_tokens: 1 }");
  EXPECT_EQ(answer.samples(0).finish().adapters(0).version(), 1);
  EXPECT_THAT(Names(), SizeIs(2));
}

TEST_F(UploadAcceptanceTest, TextAndLossAreJudgedOnTheAdapter) {
  const std::string text = text_.substr(0, 3);
  EXPECT_TRUE(UploadFiles("", TinyAdapterFiles("plain-qv")).ok());
  v1::UploadHeader header;
  header.set_name("it");
  v1::Probe& probe = *header.add_probes();
  probe.set_prompt("hello");
  probe.set_expected_text(text);
  auto messages = UploadMessages("it", TinyAdapterFiles("all-linear"));
  *messages[0].mutable_header() = header;
  v1::UploadAdapterResponse response;
  const grpc::Status status = Upload(messages, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_FALSE(
      UploadWith("probes { prompt: 'hello' max_loss { text: 'zzz' loss: 0.0001 } }", "rank-1")
          .ok());
}

// Finite weights that are far too large: no file check can know what they do in the model.
TEST_F(UploadAcceptanceTest, AdapterWhoseForwardPassIsNotFiniteIsRefused) {
  std::map<std::string, std::string> files = TinyAdapterFiles("all-linear");
  std::string& weights = files["adapter_model.safetensors"];
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, weights.data(), sizeof(header_bytes));
  const float huge = 1e17f;
  for (size_t at = 8 + header_bytes; at + sizeof(huge) <= weights.size(); at += sizeof(huge)) {
    std::memcpy(weights.data() + at, &huge, sizeof(huge));
  }
  const grpc::Status status = UploadFiles("", files);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION) << status.error_message();
  EXPECT_EQ(FindDetail<google::rpc::ErrorInfo>(status)->reason(), "ACCEPTANCE_FAILED");
  EXPECT_THAT(Names(), testing::ElementsAre("ref"));
  EXPECT_TRUE(StatusOf(kAsk).ok()) << "others are served";
}

TEST_F(UploadAcceptanceTest, BadProbesAreRefusedBeforeTheFiles) {
  const grpc::Status status = UploadWith("probes { prompt: 'hello' }");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(FindDetail<google::rpc::BadRequest>(status)->field_violations(0).field(),
            "header.probes[0]");
}

// An acceptance takes its place in the batch; an alias does not wait for it.
TEST_F(UploadAcceptanceTest, RollbackWaitsForNoAcceptance) {
  UploadTiny("plain-qv", "swap");
  UploadTiny("rslora", "swap");
  std::string probes;
  for (int i = 0; i < 32; ++i) {
    absl::StrAppend(&probes, "probes { prompt: 'hello' expected_text: '", std::string(200, 'x'),
                    "' } ");
  }
  std::atomic<bool> uploaded = false;
  std::thread upload([&] {
    EXPECT_EQ(UploadWith(probes).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    uploaded = true;
  });
  int changes = 0;
  while (!uploaded) {
    VersionCalls calls(adapters_.get());
    changes += calls.Promote("name: 'swap' version: 1").status.ok();
    changes += calls.Promote("name: 'swap' version: 2").status.ok();
  }
  upload.join();
  EXPECT_GT(changes, 2);
}

TEST_F(UploadAcceptanceTest, CancelledUploadEndsItsProbes) {
  auto messages = UploadMessages("fr", TinyAdapterFiles("all-linear"));
  for (int i = 0; i < 32; ++i) {
    v1::Probe& probe = *messages[0].mutable_header()->add_probes();
    probe.set_prompt("hello");
    probe.set_expected_text(std::string(220, 'x'));
  }
  grpc::ClientContext context;
  v1::UploadAdapterResponse response;
  auto writer = adapters_->UploadAdapter(&context, &response);
  for (const v1::UploadAdapterRequest& message : messages) {
    ASSERT_TRUE(writer->Write(message));
  }
  context.TryCancel();
  EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::CANCELLED);
  // Its 32 probes end at the next step, not after their 7000 tokens.
  double running = -1;
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (running != 0 && absl::Now() < deadline) {
    running = MetricValue(server_->HttpGet("/metrics"), "tenon_sequences_running");
  }
  EXPECT_EQ(running, 0);
  EXPECT_THAT(Names(), testing::ElementsAre("ref"));
  UploadTiny("all-linear", "fr");
  EXPECT_THAT(Names(), SizeIs(2));
}

}  // namespace
}  // namespace tenon
