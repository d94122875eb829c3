// The whole program against a server in the same process.
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/tenonctl/command.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tenon/v1/adapters.grpc.pb.h"
#include "tenon/v1/generation.grpc.pb.h"

namespace tenon {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

// Answers "[adapter]" and the last thing it was told, in two pieces. A prompt "fail" fails.
class FakeGeneration final : public v1::GenerationService::Service {
 public:
  grpc::Status Generate(grpc::ServerContext*, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override {
    last_request = *request;
    const std::string input = Input(*request);
    if (input == "fail") {
      return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "the queue is full");
    }
    v1::GenerateResponse response;
    response.set_text(absl::StrCat("[", request->adapter(), "]"));
    writer->Write(response);
    response.set_text(input);
    response.mutable_finish()->set_reason(v1::FINISH_REASON_STOP_TOKEN);
    response.mutable_finish()->set_request_id("r1");
    writer->Write(response);
    return grpc::Status::OK;
  }

  grpc::Status GenerateOnce(grpc::ServerContext*, const v1::GenerateRequest* request,
                            v1::GenerateOnceResponse* response) override {
    last_request = *request;
    for (int i = 0; i < std::max(1, request->sampling().n()); ++i) {
      v1::Sample& sample = *response->add_samples();
      sample.set_text(absl::StrCat(Input(*request), i));
      sample.mutable_finish()->set_reason(v1::FINISH_REASON_MAX_TOKENS);
    }
    return grpc::Status::OK;
  }

  grpc::Status GetModel(grpc::ServerContext*, const v1::GetModelRequest*,
                        v1::GetModelResponse* response) override {
    response->set_name("smollm2");
    response->set_max_context_tokens(2048);
    return grpc::Status::OK;
  }

  v1::GenerateRequest last_request;

 private:
  static std::string Input(const v1::GenerateRequest& request) {
    return request.has_chat() ? request.chat().messages().rbegin()->content() : request.prompt();
  }
};

class FakeAdapters final : public v1::AdapterService::Service {
 public:
  grpc::Status UploadAdapter(grpc::ServerContext*,
                             grpc::ServerReader<v1::UploadAdapterRequest>* reader,
                             v1::UploadAdapterResponse* response) override {
    v1::UploadAdapterRequest request;
    std::string name;
    while (reader->Read(&request)) {
      if (request.has_header()) {
        name = request.header().name();
      } else if (request.has_chunk()) {
        files[request.chunk().file_name()] += request.chunk().data();
      }
    }
    response->mutable_adapter()->set_name(name);
    response->mutable_adapter()->set_version(2);
    response->mutable_adapter()->add_warnings("dropout is ignored");
    response->set_created(name != "same");
    return grpc::Status::OK;
  }

  grpc::Status ListAdapters(grpc::ServerContext*, const v1::ListAdaptersRequest* request,
                            v1::ListAdaptersResponse* response) override {
    const bool first = request->page_token().empty();
    response->add_adapters()->set_name(first ? "fr" : "it");
    response->set_next_page_token(first ? "more" : "");
    return grpc::Status::OK;
  }

  grpc::Status GetAdapter(grpc::ServerContext*, const v1::GetAdapterRequest* request,
                          v1::GetAdapterResponse* response) override {
    if (request->adapter() != "fr@1") {
      return grpc::Status(grpc::StatusCode::NOT_FOUND, "no adapter");
    }
    response->mutable_adapter()->set_name("fr");
    return grpc::Status::OK;
  }

  grpc::Status DeleteAdapter(grpc::ServerContext*, const v1::DeleteAdapterRequest*,
                             v1::DeleteAdapterResponse* response) override {
    response->add_versions(1);
    response->add_versions(2);
    return grpc::Status::OK;
  }

  grpc::Status SetAdapterVisibility(grpc::ServerContext*,
                                    const v1::SetAdapterVisibilityRequest* request,
                                    v1::SetAdapterVisibilityResponse* response) override {
    visibility = request->visibility();
    *response->mutable_visibility() = visibility;
    return grpc::Status::OK;
  }

  grpc::Status GetAdapterVisibility(grpc::ServerContext*, const v1::GetAdapterVisibilityRequest*,
                                    v1::GetAdapterVisibilityResponse* response) override {
    *response->mutable_visibility() = visibility;
    return grpc::Status::OK;
  }

  grpc::Status ListSharedAdapters(grpc::ServerContext*,
                                  const v1::ListSharedAdaptersRequest* request,
                                  v1::ListSharedAdaptersResponse* response) override {
    const bool first = request->page_token().empty();
    response->add_adapters()->set_name(first ? "fr" : "it");
    response->mutable_adapters(0)->set_owner("globex");
    response->set_next_page_token(first ? "more" : "");
    return grpc::Status::OK;
  }

  std::map<std::string, std::string> files;
  v1::AdapterVisibility visibility;
};

class TenonctlTest : public testing::Test {
 protected:
  void SetUp() override {
    const testing::TestInfo* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = absl::StrCat(testing::TempDir(), "/tenonctl_", getpid(), "_", test->name());
    std::filesystem::create_directories(folder_);
    address_ = absl::StrCat("unix:", folder_, "/sock");
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address_, grpc::InsecureServerCredentials());
    builder.RegisterService(&generation_);
    builder.RegisterService(&adapters_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
  }
  void TearDown() override {
    server_->Shutdown();
    std::filesystem::remove_all(folder_);
  }

  // Exit code; what was printed is in out_ and err_.
  int Run(const std::vector<std::string>& args, const std::string& input = "",
          bool terminal = false) {
    std::istringstream in(input);
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
  FakeGeneration generation_;
  FakeAdapters adapters_;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(TenonctlTest, GenerateStreamsTheAnswer) {
  EXPECT_EQ(Run({"generate", "--adapter=fr", "--max_tokens", "4", "hello"}), 0);
  EXPECT_EQ(out_, "[fr]hello\n");
  EXPECT_THAT(err_, IsEmpty());
  EXPECT_EQ(generation_.last_request.stopping().max_tokens(), 4);
}

TEST_F(TenonctlTest, GenerateReadsThePromptFromStandardInput) {
  EXPECT_EQ(Run({"generate"}, "two\nlines\n"), 0);
  EXPECT_EQ(out_, "[]two\nlines\n");
  EXPECT_EQ(Run({"generate", "-"}, "x"), 0);
  EXPECT_EQ(out_, "[]x\n");
  EXPECT_EQ(Run({"generate"}, "", /*terminal=*/true), 2);
}

TEST_F(TenonctlTest, GenerateAsChatSendsATurn) {
  EXPECT_EQ(Run({"generate", "--chat", "hi"}), 0);
  ASSERT_EQ(generation_.last_request.chat().messages_size(), 1);
  EXPECT_EQ(generation_.last_request.chat().messages(0).role(), "user");
}

TEST_F(TenonctlTest, GenerateAsJsonPrintsTheWholeAnswer) {
  EXPECT_EQ(Run({"generate", "--json", "a"}), 0);
  const nlohmann::json json = nlohmann::json::parse(out_);
  EXPECT_EQ(json["samples"][0]["text"], "a0");
  EXPECT_EQ(json["samples"][0]["finish"]["reason"], "FINISH_REASON_MAX_TOKENS");
}

TEST_F(TenonctlTest, GeneratePrintsSamplesApart) {
  EXPECT_EQ(Run({"generate", "--n=2", "a"}), 0);
  EXPECT_EQ(out_, "--- sample 0\na0\n--- sample 1\na1\n");
}

TEST_F(TenonctlTest, VerboseTellsTheEndOnStandardError) {
  EXPECT_EQ(Run({"generate", "--verbose", "a"}), 0);
  EXPECT_EQ(out_, "[]a\n");
  EXPECT_THAT(err_, StartsWith("stop token: "));
}

TEST_F(TenonctlTest, TerminalIsNotControlledByTheAnswer) {
  EXPECT_EQ(Run({"generate", "a\x1b[2Jb"}), 0);
  EXPECT_EQ(out_, "[]a\x1b[2Jb\n");
  EXPECT_EQ(Run({"generate", "a\x1b[2Jb"}, "", /*terminal=*/true), 0);
  EXPECT_EQ(out_, "[]a[2Jb\n");
}

TEST_F(TenonctlTest, FailedCallExitsWithOneAndItsReason) {
  EXPECT_EQ(Run({"generate", "fail"}), 1);
  EXPECT_THAT(out_, IsEmpty());
  EXPECT_EQ(err_, "tenonctl: RESOURCE_EXHAUSTED: the queue is full\n");
}

TEST_F(TenonctlTest, UnreachableServerIsNamed) {
  EXPECT_EQ(Run({"--server=unix:/nowhere/sock", "--timeout=5s", "model"}), 1);
  EXPECT_THAT(err_, AllOf(HasSubstr("UNAVAILABLE"), HasSubstr("the server is unix:/nowhere/sock")));
}

TEST_F(TenonctlTest, ChatKeepsTheConversation) {
  EXPECT_EQ(Run({"chat", "--system=be brief", "--adapter=fr"}, "one\n\ntwo\n"), 0);
  EXPECT_EQ(out_, "[fr]one\n[fr]two\n");
  std::vector<std::string> turns;
  for (const v1::ChatMessage& message : generation_.last_request.chat().messages()) {
    turns.push_back(absl::StrCat(message.role(), ":", message.content()));
  }
  EXPECT_THAT(turns,
              testing::ElementsAre("system:be brief", "user:one", "assistant:[fr]one", "user:two"));
}

TEST_F(TenonctlTest, ChatForgetsATurnThatFailedAndGoesOnForAPerson) {
  EXPECT_EQ(Run({"chat"}, "fail\nagain\n", /*terminal=*/true), 0);
  EXPECT_EQ(out_, "> > []again\n> \n");
  EXPECT_THAT(err_, HasSubstr("the queue is full"));
  EXPECT_EQ(generation_.last_request.chat().messages_size(), 1);
}

TEST_F(TenonctlTest, ChatOfAScriptEndsAtAFailure) {
  EXPECT_EQ(Run({"chat"}, "fail\nagain\n"), 1);
  EXPECT_THAT(out_, IsEmpty());
}

TEST_F(TenonctlTest, UploadSendsTheFolder) {
  std::filesystem::create_directory(folder_ + "/adapter");
  std::ofstream(folder_ + "/adapter/adapter_config.json") << "{}";
  std::ofstream(folder_ + "/adapter/adapter_model.safetensors") << std::string(3 << 20, 'x');
  EXPECT_EQ(Run({"adapters", "upload", "fr", folder_ + "/adapter"}), 0);
  EXPECT_THAT(out_, StartsWith("fr@2\n  "));
  EXPECT_THAT(out_, HasSubstr(" parameters, "));
  EXPECT_EQ(err_, "warning: dropout is ignored\n");
  EXPECT_EQ(adapters_.files["adapter_config.json"], "{}");
  EXPECT_EQ(adapters_.files["adapter_model.safetensors"].size(), size_t{3} << 20);
}

TEST_F(TenonctlTest, UploadShowsProgressOnATerminalOnly) {
  std::filesystem::create_directory(folder_ + "/adapter");
  std::ofstream(folder_ + "/adapter/a") << "1234";
  EXPECT_EQ(Run({"adapters", "upload", "same", folder_ + "/adapter"}, "", /*terminal=*/true), 0);
  EXPECT_THAT(err_, HasSubstr("4 B of 4 B (100%)"));
  EXPECT_THAT(out_, StartsWith("same@2 holds these files already\n"));
}

TEST_F(TenonctlTest, UploadOfAMissingFolderFails) {
  EXPECT_EQ(Run({"adapters", "upload", "fr", folder_ + "/missing"}), 1);
  EXPECT_THAT(err_, AllOf(HasSubstr("NOT_FOUND"), HasSubstr("/missing")));
}

TEST_F(TenonctlTest, ListShowsAllPages) {
  EXPECT_EQ(Run({"adapters", "list"}), 0);
  EXPECT_THAT(out_, AllOf(StartsWith("NAME"), HasSubstr("\nfr "), HasSubstr("\nit ")));
  EXPECT_EQ(Run({"adapters", "list", "--json"}), 0);
  EXPECT_EQ(nlohmann::json::parse(out_)["adapters"].size(), 2u);
}

TEST_F(TenonctlTest, GetAndDeleteNameVersions) {
  EXPECT_EQ(Run({"adapters", "get", "fr@1"}), 0);
  EXPECT_THAT(out_, HasSubstr("name        fr\n"));
  EXPECT_EQ(Run({"adapters", "get", "fr@9"}), 1);
  EXPECT_EQ(Run({"adapters", "delete", "fr"}), 0);
  EXPECT_EQ(out_, "deleted fr@1, fr@2\n");
}

TEST_F(TenonctlTest, ShareSaysWithWhomAndShowsIt) {
  EXPECT_EQ(Run({"adapters", "share", "fr", "--with=globex,initech", "--with=hooli"}), 0);
  EXPECT_EQ(out_, "fr is shared with globex, initech, hooli\n");
  EXPECT_EQ(adapters_.visibility.visibility(), v1::VISIBILITY_TENANTS);
  EXPECT_EQ(Run({"adapters", "share", "fr"}), 0);
  EXPECT_EQ(out_, "fr is shared with globex, initech, hooli\n");
  EXPECT_EQ(Run({"adapters", "share", "fr", "--everybody"}), 0);
  EXPECT_EQ(out_, "fr is shared with every tenant\n");
  EXPECT_EQ(Run({"adapters", "share", "fr", "--nobody"}), 0);
  EXPECT_EQ(out_, "fr is shared with nobody\n");
  EXPECT_EQ(Run({"adapters", "share", "fr", "--nobody", "--everybody"}), 2);
}

TEST_F(TenonctlTest, SharedShowsTheNamesThatRequestsWrite) {
  EXPECT_EQ(Run({"adapters", "shared"}), 0);
  EXPECT_THAT(out_, AllOf(HasSubstr("\nglobex/fr "), HasSubstr("\nglobex/it ")));
}

TEST_F(TenonctlTest, ModelIsShown) {
  EXPECT_EQ(Run({"model"}), 0);
  EXPECT_THAT(out_, HasSubstr("context        2048 tokens\n"));
}

TEST_F(TenonctlTest, WrongCommandLinesExitWithTwoAndWithoutOutput) {
  for (const std::vector<std::string>& args : {std::vector<std::string>{},
                                               {"frobnicate"},
                                               {"adapters"},
                                               {"adapters", "frobnicate"},
                                               {"--frobnicate", "model"},
                                               {"model", "--adapter=x"},
                                               {"model", "word"},
                                               {"generate", "two", "prompts"},
                                               {"generate", "--top-p=x", "a"},
                                               {"--timeout=0s", "model"},
                                               {"chat", "word"},
                                               {"chat", "--json"},
                                               {"adapters", "upload", "name"},
                                               {"adapters", "list", "word"},
                                               {"adapters", "get"},
                                               {"adapters", "delete"}}) {
    EXPECT_EQ(Run(args), 2) << absl::StrCat(args.size(), " ", args.empty() ? "" : args.back());
    EXPECT_THAT(out_, IsEmpty());
    EXPECT_THAT(err_, HasSubstr("--help"));
  }
}

TEST_F(TenonctlTest, HelpIsOnStandardOutput) {
  for (const std::vector<std::string>& args :
       {std::vector<std::string>{"--help"}, {"-h"}, {"help"}, {"adapters", "--help"}}) {
    EXPECT_EQ(Run(args), 0);
    EXPECT_THAT(out_, HasSubstr("adapters upload"));
  }
  for (const Command& command : Commands()) {
    std::vector<std::string> args = {"help"};
    std::istringstream words(command.name);
    for (std::string word; words >> word;) {
      args.push_back(word);
    }
    EXPECT_EQ(Run(args), 0);
    EXPECT_THAT(out_, AllOf(HasSubstr("examples:\n  tenonctl " + command.name),
                            HasSubstr("--server=ADDRESS")));
    args.erase(args.begin());
    args.push_back("--help");
    EXPECT_EQ(Run(args), 0);
  }
}

}  // namespace
}  // namespace tenon
