// Versions, aliases, splits, histories and watching through the real binary.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/integration/server_fixture.h"
#include "tests/integration/version_calls.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

class VersionsTest : public ServerTest {
 protected:
  void SetUp() override { Start(); }

  VersionCalls calls() { return VersionCalls(adapters_.get()); }
  // fr@1, fr@2, fr@3; latest is 3.
  void UploadThree() {
    for (const char* folder : {"plain-qv", "rslora", "all-linear"}) {
      UploadTiny(folder, "fr");
    }
  }
  grpc::Status UploadWith(const std::string& header, const std::string& folder,
                          v1::UploadAdapterResponse* response = nullptr) {
    auto messages = UploadMessages("fr", TinyAdapterFiles(folder));
    *messages[0].mutable_header() = ParseProto<v1::UploadHeader>(header);
    v1::UploadAdapterResponse ignored;
    return Upload(messages, response == nullptr ? &ignored : response);
  }
  // The version that answers a request for `adapter`.
  int64_t Served(const std::string& adapter, const std::string& routing_key = "") {
    const auto response =
        Generate(absl::StrCat("prompt: 'a' adapter: '", adapter, "' routing_key: '", routing_key,
                              "' stopping { max_tokens: 1 }"));
    return response.samples(0).finish().adapters(0).version();
  }
};

TEST_F(VersionsTest, PromoteIsSeenByTheNextRequestAndAfterAKill) {
  UploadThree();
  EXPECT_EQ(Served("fr"), 3);
  const auto promoted = calls().Promote("name: 'fr' version: 1");
  ASSERT_TRUE(promoted.status.ok()) << promoted.status.error_message();
  EXPECT_EQ(promoted.response.change().from(), 3);
  EXPECT_EQ(promoted.response.change().to(), 1);
  EXPECT_EQ(promoted.response.change().alias(), "latest");
  EXPECT_EQ(promoted.response.change().actor(), "local");
  EXPECT_EQ(promoted.response.generation(), 4);
  EXPECT_EQ(Served("fr"), 1);
  EXPECT_EQ(Served("fr@3"), 3);
  server_->Signal(SIGKILL);
  server_->Wait();
  Start();
  EXPECT_EQ(Served("fr"), 1);
}

TEST_F(VersionsTest, StreamEndsOnTheVersionThatItBeganWith) {
  UploadThree();
  grpc::ClientContext context;
  auto reader = generation_->Generate(
      &context, ParseProto<v1::GenerateRequest>("prompt: 'a' adapter: 'fr' sampling { temperature: "
                                                "0 } stopping { max_tokens: 200 ignore_eos: true "
                                                "} output { token_ids: true }"));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  std::vector<int32_t> tokens(message.token_ids().begin(), message.token_ids().end());
  EXPECT_TRUE(calls().Promote("name: 'fr' version: 1").status.ok());
  EXPECT_TRUE(calls().Delete("adapter: 'fr@3' force: true").status.ok());
  EXPECT_EQ(Served("fr"), 1);
  v1::Finish finish;
  while (reader->Read(&message)) {
    tokens.insert(tokens.end(), message.token_ids().begin(), message.token_ids().end());
    finish = message.finish();
  }
  EXPECT_TRUE(reader->Finish().ok());
  ASSERT_EQ(finish.adapters_size(), 1);
  EXPECT_EQ(finish.adapters(0).version(), 3);
  UploadTiny("all-linear", "other");
  const auto solo = Generate(
      "prompt: 'a' adapter: 'other' sampling { temperature: 0 } stopping { max_tokens: 200 "
      "ignore_eos: true } output { token_ids: true }");
  EXPECT_EQ(tokens, std::vector<int32_t>(solo.samples(0).token_ids().begin(),
                                         solo.samples(0).token_ids().end()));
}

TEST_F(VersionsTest, PromoteThatLostItsRaceSaysWhereTheAliasIs) {
  UploadThree();
  const grpc::Status lost = calls().Promote("name: 'fr' version: 1 expected_version: 2").status;
  EXPECT_EQ(lost.error_code(), grpc::StatusCode::ABORTED);
  const auto info = FindDetail<google::rpc::ErrorInfo>(lost);
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->reason(), "ALIAS_MOVED");
  EXPECT_EQ(info->metadata().at("current_version"), "3");
  EXPECT_EQ(Served("fr"), 3);
  EXPECT_TRUE(calls().Promote("name: 'fr' version: 1 expected_version: 3").status.ok());
}

TEST_F(VersionsTest, AliasesAreNamedInRequestsAndLists) {
  UploadThree();
  ASSERT_TRUE(calls().Promote("name: 'fr' alias: 'stable' version: 1").status.ok());
  ASSERT_TRUE(calls().Promote("name: 'fr' alias: 'canary' from_alias: 'latest'").status.ok());
  EXPECT_EQ(Served("fr@stable"), 1);
  EXPECT_EQ(Served("fr@canary"), 3);
  EXPECT_THAT(List()[0].aliases(), ElementsAre("stable"));
  EXPECT_THAT(List()[2].aliases(), ElementsAre("canary", "latest"));
  ASSERT_TRUE(calls().Promote("name: 'fr' alias: 'canary' remove: true").status.ok());
  const grpc::Status gone = StatusOf("prompt: 'a' adapter: 'fr@canary'");
  EXPECT_EQ(gone.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(gone.error_message(), HasSubstr("it has latest = 3, stable = 1"));
}

TEST_F(VersionsTest, RollbackStepsBackAndEnds) {
  UploadThree();
  EXPECT_EQ(calls().Rollback("name: 'fr' expected_version: 3").response.change().to(), 2);
  EXPECT_EQ(Served("fr"), 2);
  EXPECT_EQ(calls().Rollback("name: 'fr'").response.change().to(), 1);
  const grpc::Status end = calls().Rollback("name: 'fr'").status;
  EXPECT_EQ(end.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(FindDetail<google::rpc::ErrorInfo>(end)->reason(), "NO_EARLIER_VERSION");
  EXPECT_EQ(calls().Rollback("name: 'none'").status.error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(VersionsTest, HistorySaysWhoAndWhatNewestFirst) {
  UploadThree();
  ASSERT_TRUE(calls().Rollback("name: 'fr'").status.ok());
  const auto history = calls().History("name: 'fr' max_changes: 2");
  ASSERT_TRUE(history.status.ok());
  ASSERT_EQ(history.response.changes_size(), 2);
  EXPECT_EQ(history.response.changes(0).action(), v1::ALIAS_ACTION_ROLLBACK);
  EXPECT_EQ(history.response.changes(0).from(), 3);
  EXPECT_EQ(history.response.changes(0).to(), 2);
  EXPECT_EQ(history.response.changes(0).actor(), "local");
  EXPECT_GT(history.response.changes(0).time().seconds(), 0);
  EXPECT_EQ(history.response.changes(1).action(), v1::ALIAS_ACTION_UPLOAD);
  EXPECT_EQ(calls().History("name: 'none'").status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(calls().History("name: 'fr' max_changes: 1001").status.error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(VersionsTest, UploadPromotesWhatItsHeaderSays) {
  UploadTiny("plain-qv", "fr");
  v1::UploadAdapterResponse response;
  ASSERT_TRUE(UploadWith("name: 'fr' alias: 'canary'", "rslora", &response).ok());
  EXPECT_THAT(response.adapter().aliases(), ElementsAre("canary"));
  EXPECT_EQ(Served("fr"), 1);
  ASSERT_TRUE(UploadWith("name: 'fr' no_promote: true", "all-linear", &response).ok());
  EXPECT_THAT(response.adapter().aliases(), IsEmpty());
  EXPECT_EQ(response.generation(), 3);
  EXPECT_EQ(Served("fr@3"), 3);
  const grpc::Status lost = UploadWith("name: 'fr' expected_version: 2", "rank-1");
  EXPECT_EQ(lost.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(List().size(), 3u);
  EXPECT_EQ(UploadWith("name: 'fr' alias: 'a' no_promote: true", "rank-1").error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(VersionsTest, VersionInUseIsDeletedByForceOnly) {
  UploadThree();
  const grpc::Status used = calls().Delete("adapter: 'fr@3'").status;
  EXPECT_EQ(used.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(FindDetail<google::rpc::ErrorInfo>(used)->reason(), "VERSION_IN_USE");
  EXPECT_TRUE(calls().Delete("adapter: 'fr@2'").status.ok());
  EXPECT_TRUE(calls().Delete("adapter: 'fr@3' force: true").status.ok());
  EXPECT_EQ(Served("fr"), 1) << "back over the version that is gone";
  EXPECT_EQ(calls().Delete("adapter: 'fr@latest'").status.error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(VersionsTest, SplitSendsCallersToTheirSideForGood) {
  UploadThree();
  ASSERT_TRUE(calls().Promote("name: 'fr' alias: 'canary' version: 1").status.ok());
  const auto split = calls().Split("name: 'fr' arms { alias: 'canary' percent: 50 }");
  ASSERT_TRUE(split.status.ok()) << split.status.error_message();
  EXPECT_EQ(split.response.arms(0).percent(), 50);
  std::map<std::string, int64_t> sides;
  int on_canary = 0;
  for (int i = 0; i < 40; ++i) {
    const std::string user = absl::StrCat("user-", i);
    sides[user] = Served("fr", user);
    on_canary += sides[user] == 1;
  }
  EXPECT_GT(on_canary, 8);
  EXPECT_LT(on_canary, 32);
  server_->Signal(SIGKILL);
  server_->Wait();
  Start();
  for (const auto& [user, version] : sides) {
    EXPECT_EQ(Served("fr", user), version) << user;
  }
  EXPECT_EQ(Served("fr@latest", "user-1"), 3);
  ASSERT_TRUE(calls().Split("name: 'fr'").status.ok());
  for (const auto& [user, version] : sides) {
    EXPECT_EQ(Served("fr", user), 3);
  }
  for (const char* bad : {"name: 'fr' arms { alias: 'canary' percent: 0 }",
                          "name: 'fr' arms { alias: 'canary' percent: nan }",
                          "name: 'fr' arms { alias: 'canary' percent: 101 }",
                          "name: '' arms { alias: 'canary' percent: 5 }"}) {
    EXPECT_EQ(calls().Split(bad).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << bad;
  }
}

TEST_F(VersionsTest, AnswersSayWhichVersionAndByWhichWay) {
  UploadThree();
  ASSERT_TRUE(calls().Promote("name: 'fr' alias: 'canary' version: 1").status.ok());
  const auto way = [this](const std::string& what, const std::string& user = "") {
    const std::string request =
        absl::StrCat(what, " prompt: 'a' routing_key: '", user, "' stopping { max_tokens: 1 }");
    const v1::Finish finish = Generate(request).samples(0).finish();
    const Joined streamed = Stream(request);
    std::string text;
    for (const v1::ServedAdapter& served : finish.adapters()) {
      absl::StrAppend(&text, text.empty() ? "" : " + ", served.name(), "@", served.version(), " ",
                      served.alias(), served.by_split() ? " by split" : "");
    }
    EXPECT_EQ(streamed.samples.at(0).finish().adapters_size(), finish.adapters_size());
    for (int i = 0; i < finish.adapters_size(); ++i) {
      EXPECT_EQ(streamed.samples.at(0).finish().adapters(i).SerializeAsString(),
                finish.adapters(i).SerializeAsString())
          << "a stream says the same";
    }
    return text;
  };
  EXPECT_EQ(way("adapter: 'fr'"), "fr@3 latest");
  EXPECT_EQ(way("adapter: 'fr@canary'"), "fr@1 canary");
  EXPECT_EQ(way("adapter: 'fr@2'"), "fr@2 ");
  EXPECT_EQ(way(""), "") << "the base model";
  EXPECT_EQ(way("adapters { adapter: 'fr@2' } adapters { adapter: 'fr' weight: 0 }"),
            "fr@2  + fr@3 latest");
  ASSERT_TRUE(calls().Split("name: 'fr' arms { alias: 'canary' percent: 50 }").status.ok());
  std::set<std::string> ways;
  for (int i = 0; i < 40; ++i) {
    ways.insert(way("adapter: 'fr'", absl::StrCat("user-", i)));
  }
  EXPECT_THAT(ways, testing::ElementsAre("fr@1 canary by split", "fr@3 latest by split"));
  EXPECT_EQ(way("adapter: 'fr@latest'", "user-1"), "fr@3 latest");
}

TEST_F(VersionsTest, RequestIdChoosesWithoutARoutingKey) {
  UploadThree();
  ASSERT_TRUE(calls().Promote("name: 'fr' alias: 'canary' version: 1").status.ok());
  ASSERT_TRUE(calls().Split("name: 'fr' arms { alias: 'canary' percent: 50 }").status.ok());
  const auto served = [&](const std::string& id) {
    return Generate(absl::StrCat("prompt: 'a' adapter: 'fr' request_id: '", id,
                                 "' stopping { max_tokens: 1 }"))
        .samples(0)
        .finish()
        .adapters(0)
        .version();
  };
  for (int i = 0; i < 10; ++i) {
    const std::string id = absl::StrCat("id-", i);
    EXPECT_EQ(served(id), Served("fr", id)) << "the same function of either";
  }
}

TEST_F(VersionsTest, WatchSendsTheSetAndThenEveryChange) {
  UploadThree();
  Watcher watcher(adapters_.get());
  v1::WatchAdaptersResponse message = watcher.Next();
  EXPECT_TRUE(message.reset());
  EXPECT_TRUE(message.complete());
  EXPECT_EQ(message.generation(), 3);
  ASSERT_EQ(message.names_size(), 1);
  EXPECT_EQ(message.names(0).versions_size(), 3);
  EXPECT_EQ(message.names(0).aliases().at("latest"), 3);

  ASSERT_TRUE(calls().Promote("name: 'fr' version: 1").status.ok());
  message = watcher.Next();
  EXPECT_FALSE(message.reset());
  EXPECT_EQ(message.generation(), 4);
  EXPECT_EQ(message.names(0).aliases().at("latest"), 1);

  UploadTiny("plain-qv", "de");
  message = watcher.Next();
  ASSERT_EQ(message.names_size(), 1) << "what did not change is not sent";
  EXPECT_EQ(message.names(0).name(), "de");

  ASSERT_TRUE(calls().Delete("adapter: 'fr'").status.ok());
  message = watcher.Next();
  EXPECT_THAT(message.removed(), ElementsAre("fr"));
  EXPECT_EQ(message.names_size(), 0);
}

TEST_F(VersionsTest, WatchThatKnowsTheStateIsSentWhatFollowsOnly) {
  UploadThree();
  Watcher watcher(adapters_.get(), /*after_generation=*/3);
  v1::WatchAdaptersResponse message = watcher.Next();
  EXPECT_FALSE(message.reset());
  EXPECT_TRUE(message.complete());
  EXPECT_EQ(message.names_size(), 0);
  ASSERT_TRUE(calls().Promote("name: 'fr' version: 1").status.ok());
  EXPECT_EQ(watcher.Next().names(0).aliases().at("latest"), 1);
  Watcher late(adapters_.get(), /*after_generation=*/3);
  EXPECT_TRUE(late.Next().reset()) << "it has missed something";
}

TEST_F(VersionsTest, SlowWatcherGetsTheLastStateAndNotEveryStep) {
  UploadThree();
  Watcher watcher(adapters_.get());
  watcher.Next();
  for (int i = 0; i < 300; ++i) {
    ASSERT_TRUE(calls().Promote(absl::StrCat("name: 'fr' version: ", 1 + i % 3)).status.ok());
  }
  v1::WatchAdaptersResponse message;
  int64_t previous = 3;
  int num_messages = 0;
  do {
    message = watcher.Next();
    EXPECT_GT(message.generation(), previous);
    previous = message.generation();
    ++num_messages;
  } while (message.generation() < 303 && num_messages < 400);
  EXPECT_EQ(message.names(0).aliases().at("latest"), 3);
  EXPECT_LE(num_messages, 300);
}

TEST_F(VersionsTest, WatchersDoNotHoldDeletedVersions) {
  UploadThree();
  Watcher watcher(adapters_.get());
  watcher.Next();
  ASSERT_TRUE(calls().Delete("adapter: 'fr'").status.ok());
  EXPECT_THAT(List(), IsEmpty()) << "not even draining";
}

TEST_F(VersionsTest, DrainEndsWatchersAtOnce) {
  Watcher watcher(adapters_.get());
  watcher.Next();
  server_->Signal(SIGTERM);
  EXPECT_EQ(watcher.End().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(server_->Wait(), 0);
}

TEST_F(VersionsTest, CorruptedBlobIsFoundBeforeUseAndTheOthersServe) {
  UploadTiny("plain-qv", "bad");
  UploadTiny("rslora", "good");
  server_->Signal(SIGKILL);
  server_->Wait();
  FlipByteOfLargestBlob(folder_.path() + "/store", TinyAdapterFiles("plain-qv"));
  Start();
  Watcher watcher(adapters_.get());
  watcher.Next();
  EXPECT_EQ(StatusOf("prompt: 'a' adapter: 'bad'").error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(Served("good"), 1);
  EXPECT_EQ(watcher.Next().names(0).versions(0).state(), v1::ADAPTER_STATE_QUARANTINED);
  EXPECT_EQ(List()[0].state(), v1::ADAPTER_STATE_QUARANTINED);
  UploadTiny("plain-qv", "bad");
  EXPECT_EQ(Served("bad"), 1) << "the same files repair it";
}

TEST_F(VersionsTest, FailedLoadKeepsServedVersion) {
  UploadTiny("plain-qv", "fr");
  std::map<std::string, std::string> broken = TinyAdapterFiles("rslora");
  broken["adapter_model.safetensors"].resize(200);
  v1::UploadAdapterResponse response;
  EXPECT_FALSE(Upload(UploadMessages("fr", broken), &response).ok());
  EXPECT_EQ(Served("fr"), 1);
  EXPECT_EQ(List().size(), 1u);
}

}  // namespace
}  // namespace tenon
