// The commands for versions and aliases against a server in the same process.
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/tenonctl/command.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "tenon/v1/adapters.grpc.pb.h"

namespace tenon {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

// Remembers what it was asked, as text, and answers plausibly.
class FakeVersions final : public v1::AdapterService::Service {
 public:
  grpc::Status Promote(grpc::ServerContext*, const v1::PromoteRequest* request,
                       v1::PromoteResponse* response) override {
    asked = request->ShortDebugString();
    response->mutable_change()->set_alias(request->alias());
    response->mutable_change()->set_from(1);
    response->mutable_change()->set_to(request->version());
    return grpc::Status::OK;
  }
  grpc::Status Rollback(grpc::ServerContext*, const v1::RollbackRequest* request,
                        v1::RollbackResponse* response) override {
    asked = request->ShortDebugString();
    response->mutable_change()->set_alias(request->alias());
    response->mutable_change()->set_from(3);
    response->mutable_change()->set_to(2);
    return grpc::Status::OK;
  }
  grpc::Status SetSplit(grpc::ServerContext*, const v1::SetSplitRequest* request,
                        v1::SetSplitResponse* response) override {
    asked = request->ShortDebugString();
    *response->mutable_arms() = request->arms();
    return grpc::Status::OK;
  }
  grpc::Status GetHistory(grpc::ServerContext*, const v1::GetHistoryRequest* request,
                          v1::GetHistoryResponse* response) override {
    asked = request->ShortDebugString();
    v1::AliasChange& change = *response->add_changes();
    change.set_action(v1::ALIAS_ACTION_ROLLBACK);
    change.set_alias("latest");
    change.set_from(3);
    change.set_to(2);
    change.set_actor("key:ops\x1b[2J");
    return grpc::Status::OK;
  }
  grpc::Status GetAdapter(grpc::ServerContext*, const v1::GetAdapterRequest* request,
                          v1::GetAdapterResponse* response) override {
    response->mutable_adapter()->set_name("fr");
    response->mutable_adapter()->set_version(request->adapter() == "fr@1" ? 1 : 2);
    response->mutable_adapter()->set_digest(request->adapter() == "fr@1" ? "aaaa" : "bbbb");
    response->mutable_adapter()->set_max_rank(request->adapter() == "fr@1" ? 8 : 16);
    response->mutable_adapter()->set_method("LORA");
    return grpc::Status::OK;
  }
  grpc::Status UploadAdapter(grpc::ServerContext*,
                             grpc::ServerReader<v1::UploadAdapterRequest>* reader,
                             v1::UploadAdapterResponse* response) override {
    v1::UploadAdapterRequest request;
    while (reader->Read(&request)) {
      if (request.has_header()) {
        asked = request.header().ShortDebugString();
      }
    }
    response->mutable_adapter()->set_name("fr");
    response->mutable_adapter()->set_version(4);
    response->mutable_adapter()->add_aliases("canary");
    response->set_created(true);
    return grpc::Status::OK;
  }
  grpc::Status DeleteAdapter(grpc::ServerContext*, const v1::DeleteAdapterRequest* request,
                             v1::DeleteAdapterResponse*) override {
    asked = request->ShortDebugString();
    return grpc::Status::OK;
  }
  // A set, a change, and the end.
  grpc::Status WatchAdapters(grpc::ServerContext*, const v1::WatchAdaptersRequest*,
                             grpc::ServerWriter<v1::WatchAdaptersResponse>* writer) override {
    for (const char* text :
         {"generation: 3 reset: true complete: true names { name: 'fr' versions { version: 1 "
          "state: "
          "ADAPTER_STATE_LIVE aliases: 'latest' } aliases { key: 'latest' value: 1 } }",
          "generation: 4 complete: true removed: 'fr'"}) {
      v1::WatchAdaptersResponse message;
      google::protobuf::TextFormat::ParseFromString(text, &message);
      writer->Write(message);
    }
    return grpc::Status(grpc::StatusCode::INTERNAL, "enough");
  }

  std::string asked;
};

class VersionCommandsTest : public testing::Test {
 protected:
  void SetUp() override {
    const testing::TestInfo* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = absl::StrCat(testing::TempDir(), "/versions_", getpid(), "_", test->name());
    std::filesystem::create_directories(folder_ + "/adapter");
    std::ofstream(folder_ + "/adapter/adapter_config.json") << "{}";
    address_ = absl::StrCat("unix:", folder_, "/sock");
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address_, grpc::InsecureServerCredentials());
    builder.RegisterService(&versions_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
  }
  void TearDown() override {
    server_->Shutdown();
    std::filesystem::remove_all(folder_);
  }

  int Run(std::vector<std::string> args, bool terminal = false) {
    args.insert(args.begin(), "adapters");
    std::istringstream in;
    std::ostringstream out, err;
    Console console{in, out, err, terminal, terminal, terminal};
    const int code = RunTenonctl(
        args,
        [&](const char* name) {
          return std::string(name) == "TENON_SERVER" ? address_ : std::string();
        },
        console);
    out_ = out.str();
    err_ = err.str();
    return code;
  }

  std::string folder_, address_, out_, err_;
  FakeVersions versions_;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(VersionCommandsTest, PromoteNamesVersionAliasAndExpectation) {
  EXPECT_EQ(Run({"promote", "fr@3", "stable", "--expect=2"}), 0);
  EXPECT_EQ(versions_.asked, "name: \"fr\" alias: \"stable\" version: 3 expected_version: 2");
  EXPECT_EQ(out_, "fr@stable 1 -> 3\n");
  EXPECT_EQ(Run({"promote", "fr@canary"}), 0);
  EXPECT_EQ(versions_.asked, "name: \"fr\" alias: \"latest\" from_alias: \"canary\"");
  EXPECT_EQ(Run({"promote", "fr@canary", "--remove"}), 0);
  EXPECT_EQ(versions_.asked, "name: \"fr\" alias: \"canary\" remove: true");
}

TEST_F(VersionCommandsTest, PromoteToWhereItIsSaysSo) {
  EXPECT_EQ(Run({"promote", "fr@1"}), 0);
  EXPECT_EQ(out_, "fr@latest is at 1 already\n");
}

TEST_F(VersionCommandsTest, WrongWordsAreExplained) {
  for (const std::vector<std::string>& args :
       std::vector<std::vector<std::string>>{{"promote"},
                                             {"promote", "fr"},
                                             {"promote", "@3"},
                                             {"promote", "fr@3", "a", "b"},
                                             {"promote", "fr@a", "b", "--remove"},
                                             {"promote", "fr@3", "--expect=x"},
                                             {"rollback"},
                                             {"split", "fr"},
                                             {"split", "fr", "canary"},
                                             {"split", "fr", "canary=x"},
                                             {"split", "fr", "canary=5", "--end"},
                                             {"history"},
                                             {"diff", "fr@1"},
                                             {"watch", "fr"}}) {
    EXPECT_EQ(Run(args), 2) << args.back();
    EXPECT_THAT(err_, HasSubstr("try: tenonctl adapters"));
    EXPECT_THAT(versions_.asked, IsEmpty());
  }
}

TEST_F(VersionCommandsTest, RollbackTakesAnAlias) {
  EXPECT_EQ(Run({"rollback", "fr"}), 0);
  EXPECT_EQ(versions_.asked, "name: \"fr\" alias: \"latest\"");
  EXPECT_EQ(out_, "fr@latest 3 -> 2\n");
  EXPECT_EQ(Run({"rollback", "fr@stable", "--expect=3"}), 0);
  EXPECT_EQ(versions_.asked, "name: \"fr\" alias: \"stable\" expected_version: 3");
}

TEST_F(VersionCommandsTest, SplitIsSetAndEnded) {
  EXPECT_EQ(Run({"split", "fr", "canary=5", "next=2.5%"}), 0);
  EXPECT_EQ(
      versions_.asked,
      "name: \"fr\" arms { alias: \"canary\" percent: 5 } arms { alias: \"next\" percent: 2.5 }");
  EXPECT_EQ(out_, "fr: canary 5%, next 2.5%, latest the rest\n");
  EXPECT_EQ(Run({"split", "fr", "--end"}), 0);
  EXPECT_EQ(out_, "fr: latest has all\n");
}

TEST_F(VersionCommandsTest, HistoryCannotControlTheTerminal) {
  EXPECT_EQ(Run({"history", "fr", "--max=10"}), 0);
  EXPECT_EQ(versions_.asked, "name: \"fr\" max_changes: 10");
  EXPECT_THAT(out_, AllOf(HasSubstr("rollback"), HasSubstr("key:ops"), Not(HasSubstr("\x1b"))));
}

TEST_F(VersionCommandsTest, DiffShowsWhatDiffersOnly) {
  EXPECT_EQ(Run({"diff", "fr@1", "fr@2"}), 0);
  EXPECT_THAT(out_, AllOf(HasSubstr("fr@1"), HasSubstr("rank"), Not(HasSubstr("method"))));
  EXPECT_EQ(Run({"diff", "fr@1", "fr@1"}), 0);
  EXPECT_EQ(out_, "the same bytes: sha256:aaaa\n");
}

TEST_F(VersionCommandsTest, UploadSendsAliasExpectationAndProbes) {
  const std::string probes = folder_ + "/probes.json";
  std::ofstream(probes) << R"([{"name": "p", "prompt": "a", "expected_text": "b"}])";
  EXPECT_EQ(Run({"upload", "fr", folder_ + "/adapter", "--alias=canary", "--expect=0",
                 "--probes=" + probes}),
            0);
  EXPECT_EQ(versions_.asked,
            "name: \"fr\" alias: \"canary\" expected_version: 0 probes { name: \"p\" prompt: \"a\" "
            "expected_text: \"b\" }");
  EXPECT_THAT(out_, StartsWith("fr@4 (canary)\n"));
  std::ofstream(probes, std::ios::trunc)
      << R"({"probes": [{"prompt": "a", "expected_text": "b"}]})";
  EXPECT_EQ(Run({"upload", "fr", folder_ + "/adapter", "--no-promote", "--probes=" + probes}), 0);
  EXPECT_THAT(versions_.asked, HasSubstr("no_promote: true probes"));
}

TEST_F(VersionCommandsTest, BadProbeFilesAreNamed) {
  const std::string probes = folder_ + "/probes.json";
  for (const char* text : {"", "[", "[]", R"([{"promt": "a"}])", R"({"probes": 3})"}) {
    std::ofstream(probes, std::ios::trunc) << text;
    EXPECT_EQ(Run({"upload", "fr", folder_ + "/adapter", "--probes=" + probes}), 2) << text;
    EXPECT_THAT(err_, HasSubstr("--probes: " + probes)) << text;
  }
  EXPECT_EQ(Run({"upload", "fr", folder_ + "/adapter", "--probes=/none"}), 2);
}

TEST_F(VersionCommandsTest, DeleteMayBeForced) {
  EXPECT_EQ(Run({"delete", "fr@2", "--force"}), 0);
  EXPECT_EQ(versions_.asked, "adapter: \"fr@2\" force: true");
}

TEST_F(VersionCommandsTest, WatchOfAScriptPrintsLines) {
  EXPECT_EQ(Run({"watch"}), 1);
  EXPECT_EQ(out_, "fr@1 is live\nfr: latest none -> 1\nfr is deleted\n");
  EXPECT_THAT(err_, HasSubstr("enough"));
}

TEST_F(VersionCommandsTest, WatchOnceIsATable) {
  EXPECT_EQ(Run({"watch", "--once"}), 0);
  EXPECT_THAT(out_, AllOf(HasSubstr("NAME"), HasSubstr("latest"), Not(HasSubstr("\x1b"))));
}

TEST_F(VersionCommandsTest, WatchOfATerminalRedraws) {
  EXPECT_EQ(Run({"watch"}, /*terminal=*/true), 1);
  EXPECT_THAT(out_, AllOf(HasSubstr("\x1b[H\x1b[2J"), HasSubstr("generation 4"),
                          HasSubstr("fr is deleted")));
}

TEST_F(VersionCommandsTest, WatchAsJsonIsALineAMessage) {
  EXPECT_EQ(Run({"watch", "--json"}), 1);
  EXPECT_EQ(std::count(out_.begin(), out_.end(), '\n'), 2);
  EXPECT_THAT(out_, HasSubstr("\"removed\":[\"fr\"]"));
}

}  // namespace
}  // namespace tenon
