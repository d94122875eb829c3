// Uploads and the catalogue through the real binary.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/integration/server_fixture.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;

class AdaptersTest : public ServerTest {
 protected:
  void SetUp() override { Start(); }

  grpc::Status UploadStatus(const std::vector<v1::UploadAdapterRequest>& messages) {
    v1::UploadAdapterResponse response;
    return Upload(messages, &response);
  }
  std::vector<std::string> Names() {
    std::vector<std::string> names;
    for (const v1::Adapter& adapter : List()) {
      names.push_back(absl::StrCat(adapter.name(), "@", adapter.version()));
    }
    return names;
  }
  grpc::Status Delete(const std::string& adapter, std::vector<int64_t>* versions = nullptr) {
    grpc::ClientContext context;
    v1::DeleteAdapterRequest request;
    request.set_adapter(adapter);
    request.set_force(force_);
    v1::DeleteAdapterResponse response;
    const grpc::Status status = adapters_->DeleteAdapter(&context, request, &response);
    if (versions != nullptr) {
      versions->assign(response.versions().begin(), response.versions().end());
    }
    return status;
  }

  bool force_ = false;  // of deletions
};

std::string FieldOf(const grpc::Status& status) {
  const auto bad = FindDetail<google::rpc::BadRequest>(status);
  return bad.has_value() ? bad->field_violations(0).field() : "";
}

TEST_F(AdaptersTest, UploadIsLiveAtOnceAndDescribed) {
  const v1::Adapter adapter = UploadTiny("plain-qv", "fr");
  EXPECT_EQ(adapter.name(), "fr");
  EXPECT_EQ(adapter.version(), 1);
  EXPECT_EQ(adapter.state(), v1::ADAPTER_STATE_LIVE);
  EXPECT_EQ(adapter.method(), "LORA");
  EXPECT_EQ(adapter.digest().size(), 64u);
  EXPECT_GT(adapter.num_parameters(), 0);
  EXPECT_GT(adapter.num_sites(), 0);
  EXPECT_TRUE(adapter.resident());
  EXPECT_GT(adapter.create_time().seconds(), 0);

  const auto response = Generate("prompt: 'a' adapter: 'fr' stopping { max_tokens: 2 }");
  const v1::ServedAdapter& served = response.samples(0).finish().adapters(0);
  EXPECT_EQ(served.name(), "fr");
  EXPECT_EQ(served.version(), 1);
  EXPECT_EQ(served.digest(), adapter.digest());
}

TEST_F(AdaptersTest, SameBytesAreTheSameVersion) {
  UploadTiny("plain-qv", "fr");
  v1::UploadAdapterResponse again;
  ASSERT_TRUE(Upload(UploadMessages("fr", TinyAdapterFiles("plain-qv")), &again).ok());
  EXPECT_FALSE(again.created());
  EXPECT_EQ(again.adapter().version(), 1);
  v1::UploadAdapterResponse other;
  ASSERT_TRUE(Upload(UploadMessages("fr", TinyAdapterFiles("rslora")), &other).ok());
  EXPECT_TRUE(other.created());
  EXPECT_EQ(other.adapter().version(), 2);
}

TEST_F(AdaptersTest, DigestIsThatOfTheFiles) {
  const v1::Adapter adapter = UploadTiny("plain-qv", "a");
  v1::UploadAdapterResponse response;
  EXPECT_TRUE(
      Upload(UploadMessages("b", TinyAdapterFiles("plain-qv"), 1000, adapter.digest()), &response)
          .ok());
  EXPECT_EQ(response.adapter().digest(), adapter.digest()) << "whatever the chunks";
}

TEST_F(AdaptersTest, WrongDigestLeavesNothing) {
  const grpc::Status status = UploadStatus(
      UploadMessages("fr", TinyAdapterFiles("plain-qv"), 64 << 10, std::string(64, '0')));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_TRUE(List().empty());
}

TEST_F(AdaptersTest, ListPagesInOrder) {
  for (const char* name : {"c", "a", "b"}) {
    UploadTiny("plain-qv", name);
  }
  UploadTiny("rslora", "a");
  EXPECT_THAT(Names(), ElementsAre("a@1", "a@2", "b@1", "c@1"));
  std::vector<std::string> paged;
  v1::ListAdaptersRequest request;
  request.set_page_size(3);
  int pages = 0;
  do {
    grpc::ClientContext context;
    v1::ListAdaptersResponse response;
    ASSERT_TRUE(adapters_->ListAdapters(&context, request, &response).ok());
    for (const v1::Adapter& adapter : response.adapters()) {
      paged.push_back(absl::StrCat(adapter.name(), "@", adapter.version()));
    }
    request.set_page_token(response.next_page_token());
    ++pages;
  } while (!request.page_token().empty());
  EXPECT_EQ(pages, 2);
  EXPECT_EQ(paged, Names());
}

TEST_F(AdaptersTest, BadPagesAreRefused) {
  for (const char* text : {"page_size: -1", "page_size: 1001", "page_token: 'x'",
                           "page_token: '%%%'", "page_token: 'Li4vQDE'"}) {
    grpc::ClientContext context;
    v1::ListAdaptersResponse response;
    const grpc::Status status =
        adapters_->ListAdapters(&context, ParseProto<v1::ListAdaptersRequest>(text), &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << text;
  }
}

TEST_F(AdaptersTest, GetFindsVersionsAndTheLatest) {
  UploadTiny("plain-qv", "fr");
  UploadTiny("rslora", "fr");
  const auto get = [this](const std::string& name, v1::Adapter* adapter) {
    grpc::ClientContext context;
    v1::GetAdapterRequest request;
    request.set_adapter(name);
    v1::GetAdapterResponse response;
    const grpc::Status status = adapters_->GetAdapter(&context, request, &response);
    *adapter = response.adapter();
    return status.error_code();
  };
  v1::Adapter adapter;
  EXPECT_EQ(get("fr", &adapter), grpc::StatusCode::OK);
  EXPECT_EQ(adapter.version(), 2);
  EXPECT_TRUE(adapter.latest());
  EXPECT_EQ(get("fr@1", &adapter), grpc::StatusCode::OK);
  EXPECT_EQ(adapter.version(), 1);
  EXPECT_FALSE(adapter.latest());
  EXPECT_EQ(get("fr@3", &adapter), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(get("fr@", &adapter), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(AdaptersTest, DeletedVersionFallsBackToTheOneBefore) {
  force_ = true;
  UploadTiny("plain-qv", "fr");
  UploadTiny("rslora", "fr");
  std::vector<int64_t> versions;
  EXPECT_TRUE(Delete("fr@2", &versions).ok());
  EXPECT_THAT(versions, ElementsAre(2));
  const auto response = Generate("prompt: 'a' adapter: 'fr' stopping { max_tokens: 1 }");
  EXPECT_EQ(response.samples(0).finish().adapters(0).version(), 1);
  EXPECT_TRUE(Delete("fr", &versions).ok());
  EXPECT_THAT(versions, ElementsAre(1));
  EXPECT_EQ(Delete("fr").error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(StatusOf("prompt: 'a' adapter: 'fr'").error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(AdaptersTest, RestartFindsAdapters) {
  const v1::Adapter before = UploadTiny("all-linear", "fr");
  const std::string request =
      "prompt: 'hello' adapter: 'fr' sampling { temperature: 0 } stopping { max_tokens: 8 }";
  const std::string answer = Generate(request).samples(0).text();
  server_->Signal(SIGKILL);
  EXPECT_EQ(server_->Wait(), -SIGKILL);
  Start();
  ASSERT_EQ(List().size(), 1u);
  EXPECT_EQ(List()[0].digest(), before.digest());
  EXPECT_FALSE(List()[0].resident()) << "tensors are read when asked for";
  EXPECT_EQ(Generate(request).samples(0).text(), answer);
  EXPECT_TRUE(List()[0].resident());
}

TEST_F(AdaptersTest, BrokenOffUploadLeavesNothing) {
  std::vector<v1::UploadAdapterRequest> messages =
      UploadMessages("fr", TinyAdapterFiles("plain-qv"));
  messages.pop_back();  // no digest
  const grpc::Status status = UploadStatus(messages);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(FieldOf(status), "digest");
  {
    grpc::ClientContext context;
    v1::UploadAdapterResponse response;
    auto writer = adapters_->UploadAdapter(&context, &response);
    ASSERT_TRUE(writer->Write(messages[0]));
    ASSERT_TRUE(writer->Write(messages[1]));
    context.TryCancel();
    EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  EXPECT_TRUE(List().empty());
  UploadTiny("plain-qv", "fr");
  EXPECT_THAT(Names(), ElementsAre("fr@1"));
}

TEST_F(AdaptersTest, OrderOfMessagesIsEnforced) {
  const std::vector<v1::UploadAdapterRequest> good =
      UploadMessages("fr", TinyAdapterFiles("plain-qv"), 1000);
  const auto& header = good.front();
  const auto& config = good[1];
  const auto& weights = good[good.size() - 2];
  const auto& digest = good.back();
  EXPECT_EQ(FieldOf(UploadStatus({})), "header");
  EXPECT_EQ(FieldOf(UploadStatus({config})), "part");
  EXPECT_EQ(FieldOf(UploadStatus({{}})), "part");
  EXPECT_EQ(FieldOf(UploadStatus({header, header})), "header");
  EXPECT_EQ(FieldOf(UploadStatus({header, digest})), "chunk");
  EXPECT_EQ(FieldOf(UploadStatus({header, config, weights, config})), "chunk.file_name");
}

TEST_F(AdaptersTest, NamesThatArePathsAreRefused) {
  for (const char* name : {"../../etc/passwd", "/etc/passwd", "a/adapter_config.json", "..", "",
                           "adapter_model.bin"}) {
    std::vector<v1::UploadAdapterRequest> messages =
        UploadMessages("fr", TinyAdapterFiles("plain-qv"));
    messages[1].mutable_chunk()->set_file_name(name);
    const grpc::Status status = UploadStatus(messages);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << name;
    EXPECT_EQ(FieldOf(status), "chunk.file_name") << name;
  }
  for (const char* name : {"", "../x", "a/b", ".hidden", "a b"}) {
    const grpc::Status status = UploadStatus(UploadMessages(name, TinyAdapterFiles("plain-qv")));
    EXPECT_EQ(FieldOf(status), "header.name") << name;
  }
  EXPECT_TRUE(List().empty());
}

TEST_F(AdaptersTest, MalformedFilesAreRefusedWithTheirName) {
  std::map<std::string, std::string> files = TinyAdapterFiles("plain-qv");
  files["adapter_model.safetensors"].resize(100);
  const grpc::Status status = UploadStatus(UploadMessages("fr", files));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(FindDetail<google::rpc::BadRequest>(status).has_value());
  EXPECT_TRUE(List().empty());
}

TEST_F(AdaptersTest, TooLargeUploadsAreRefused) {
  server_.reset();
  Start({"--max-upload-bytes=1000"});
  const grpc::Status status = UploadStatus(UploadMessages("fr", TinyAdapterFiles("plain-qv")));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(FindDetail<google::rpc::QuotaFailure>(status).has_value());
}

TEST_F(AdaptersTest, UploadsAtTheSameTimeAreBounded) {
  server_.reset();
  Start({"--max-concurrent-uploads=1"});
  const auto messages = UploadMessages("fr", TinyAdapterFiles("plain-qv"));
  grpc::ClientContext context;
  v1::UploadAdapterResponse response;
  auto first = adapters_->UploadAdapter(&context, &response);
  first->WaitForInitialMetadata();  // it was let in
  const grpc::Status second = UploadStatus({});
  EXPECT_EQ(second.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(FindDetail<google::rpc::RetryInfo>(second).has_value());
  for (const v1::UploadAdapterRequest& message : messages) {
    ASSERT_TRUE(first->Write(message));
  }
  first->WritesDone();
  EXPECT_TRUE(first->Finish().ok());
}

}  // namespace
}  // namespace tenon
