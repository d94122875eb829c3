// Two servers on one bucket: what one takes, the other serves; and what an outage leaves.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpc/health/v1/health.pb.h"
#include "tenon/v1/residency.grpc.pb.h"
#include "tests/adapters/s3/fault_proxy.h"
#include "tests/adapters/s3/s3_test_server.h"
#include "tests/integration/certificates.h"
#include "tests/integration/server_fixture.h"

namespace tenon {
namespace {

constexpr char kRequest[] = R"(tokens { ids: [1, 2, 3] } adapter: "fr" sampling { temperature: 0 }
                               stopping { max_tokens: 8 ignore_eos: true })";

// One server and its calls.
struct Replica {
  Replica(const std::string& folder, const std::string& endpoint,
          const std::vector<std::string>& more = {}) {
    std::filesystem::create_directories(folder);
    std::vector<std::string> flags = {
        "--store=s3://models/prod", absl::StrCat("--store-cache=", folder, "/cache"),
        absl::StrCat("--s3-endpoint=", endpoint), "--s3-path-style", "--store-poll-interval=100ms"};
    flags.insert(flags.end(), more.begin(), more.end());
    process = std::make_unique<ServerProcess>(folder, std::move(flags));
    channel = process->NewChannel();
    generation = v1::GenerationService::NewStub(channel);
    adapters = v1::AdapterService::NewStub(channel);
  }

  grpc::Status Generate(std::string* text) {
    grpc::ClientContext context;
    v1::GenerateOnceResponse response;
    const grpc::Status status =
        generation->GenerateOnce(&context, ParseProto<v1::GenerateRequest>(kRequest), &response);
    if (status.ok()) {
      *text = response.samples(0).text();
    }
    return status;
  }
  grpc::Status Upload(const std::string& name, const std::string& folder) {
    grpc::ClientContext context;
    v1::UploadAdapterResponse response;
    auto writer = adapters->UploadAdapter(&context, &response);
    for (const v1::UploadAdapterRequest& message : UploadMessages(name, TinyAdapterFiles(folder))) {
      if (!writer->Write(message)) {
        break;
      }
    }
    writer->WritesDone();
    return writer->Finish();
  }
  v1::RefreshResponse Refresh() {
    grpc::ClientContext context;
    v1::RefreshResponse response;
    const grpc::Status status = adapters->Refresh(&context, {}, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  bool IsReady() const { return process->HttpGet("/readyz") == "ready\n"; }
  double Metric(const std::string& name) const {
    return MetricValue(process->HttpGet("/metrics"), name);
  }

  std::unique_ptr<ServerProcess> process;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::GenerationService::Stub> generation;
  std::unique_ptr<v1::AdapterService::Stub> adapters;
};

class ObjectStoreTest : public testing::Test {
 protected:
  ObjectStoreTest() : server_(folder_.path()), proxy_(server_.port()) {
    setenv("AWS_ACCESS_KEY_ID", S3TestServer::kAccessKeyId, 1);
    setenv("AWS_SECRET_ACCESS_KEY", S3TestServer::kSecretAccessKey, 1);
  }

  std::unique_ptr<Replica> Start(const std::string& name) {
    return std::make_unique<Replica>(absl::StrCat(folder_.path(), "/", name),
                                     absl::StrCat("http://127.0.0.1:", proxy_.port()));
  }

  ScratchFolder folder_;
  S3TestServer server_;
  FaultProxy proxy_;
};

TEST_F(ObjectStoreTest, WhatOneReplicaTakesTheOtherServes) {
  const auto one = Start("one");
  const auto two = Start("two");
  ASSERT_TRUE(one->Upload("fr", "all-linear").ok());
  const v1::RefreshResponse refreshed = two->Refresh();
  EXPECT_GT(refreshed.store_generation(), 0);
  std::string here, there;
  ASSERT_TRUE(one->Generate(&here).ok());
  ASSERT_TRUE(two->Generate(&there).ok());
  EXPECT_EQ(there, here);
  EXPECT_EQ(one->Metric("tenon_store_generation"), two->Metric("tenon_store_generation"));
  // And without being told, by the next look.
  ASSERT_TRUE(two->Upload("fr", "rslora").ok());
  const absl::Time give_up = absl::Now() + absl::Seconds(30);
  std::string now = here;
  while (now == here && absl::Now() < give_up) {
    ASSERT_TRUE(one->Generate(&now).ok());
  }
  ASSERT_TRUE(two->Generate(&there).ok());
  EXPECT_EQ(now, there);
}

TEST_F(ObjectStoreTest, OutageTouchesNothingThatIsLoadedAndHeals) {
  const auto one = Start("one");
  ASSERT_TRUE(one->Upload("fr", "all-linear").ok());
  std::string before, during;
  ASSERT_TRUE(one->Generate(&before).ok());
  proxy_.Set(FaultProxy::Fault::kDown);
  const absl::Time give_up = absl::Now() + absl::Seconds(30);
  while (one->Metric("tenon_store_current") != 0 && absl::Now() < give_up) {
  }
  EXPECT_EQ(one->Metric("tenon_store_current"), 0);
  ASSERT_TRUE(one->Generate(&during).ok());
  EXPECT_EQ(during, before);
  EXPECT_TRUE(one->IsReady()) << "it has been in step once";
  const absl::Time begin = absl::Now();
  EXPECT_EQ(one->Upload("it", "rslora").error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_LE(absl::Now() - begin, absl::Seconds(8));
  proxy_.Set(FaultProxy::Fault::kNone);
  const absl::Time healed = absl::Now();
  while (one->Metric("tenon_store_current") != 1 && absl::Now() < give_up + absl::Seconds(30)) {
  }
  EXPECT_EQ(one->Metric("tenon_store_current"), 1);
  EXPECT_LE(absl::Now() - healed, absl::Seconds(30));
  EXPECT_TRUE(one->Upload("it", "rslora").ok());
}

TEST_F(ObjectStoreTest, StartInAnOutageServesWhatIsCachedAndIsNotReady) {
  std::string before, during;
  {
    const auto one = Start("one");
    ASSERT_TRUE(one->Upload("fr", "all-linear").ok());
    one->Refresh();
    ASSERT_TRUE(one->Generate(&before).ok());
    one->process->Signal(SIGTERM);
    EXPECT_EQ(one->process->Wait(), 0);
  }
  proxy_.Set(FaultProxy::Fault::kDown);
  const auto one = Start("one");
  EXPECT_FALSE(one->IsReady());
  ASSERT_TRUE(one->Generate(&during).ok());
  EXPECT_EQ(during, before);
  proxy_.Set(FaultProxy::Fault::kNone);
  const absl::Time give_up = absl::Now() + absl::Seconds(30);
  while (!one->IsReady() && absl::Now() < give_up) {
  }
  EXPECT_TRUE(one->IsReady());
}

TEST_F(ObjectStoreTest, PinOfOneReplicaIsItsOwnAndHoldsAfterItsRestart) {
  const auto pinned = [](const Replica& replica) {
    grpc::ClientContext context;
    v1::GetResidencyResponse response;
    const auto stub = v1::ResidencyService::NewStub(replica.channel);
    EXPECT_TRUE(stub->GetResidency(&context, {}, &response).ok());
    return response.adapters_size() == 1 && response.adapters(0).pinned();
  };
  auto one = Start("one");
  const auto two = Start("two");
  ASSERT_TRUE(one->Upload("fr", "all-linear").ok());
  two->Refresh();
  grpc::ClientContext context;
  v1::PinAdapterRequest request;
  request.set_adapter("fr");
  v1::PinAdapterResponse response;
  ASSERT_TRUE(
      v1::ResidencyService::NewStub(one->channel)->PinAdapter(&context, request, &response).ok());
  one->process->Signal(SIGKILL);
  one->process->Wait();
  one = Start("one");
  EXPECT_TRUE(pinned(*one));
  EXPECT_FALSE(pinned(*two));
}

// A store with a certificate of an authority that no system knows.
class PrivateAuthorityTest : public testing::Test {
 protected:
  PrivateAuthorityTest() {
    setenv("AWS_ACCESS_KEY_ID", S3TestServer::kAccessKeyId, 1);
    setenv("AWS_SECRET_ACCESS_KEY", S3TestServer::kSecretAccessKey, 1);
    certificates_.MakeAuthority("ours");
    certificates_.MakeAuthority("theirs");
    certificates_.MakeCertificate("store", "ours", "IP:127.0.0.1");
    server_ = std::make_unique<S3TestServer>(
        folder_.path(),
        S3TestServer::Tls{certificates_.Path("store.pem"), certificates_.Path("store.key"),
                          certificates_.Path("ours.pem")});
  }

  std::unique_ptr<Replica> Start(const std::string& name, const std::string& authority) {
    std::vector<std::string> flags;
    if (!authority.empty()) {
      flags.push_back(absl::StrCat("--s3-ca-file=", certificates_.Path(authority)));
    }
    return std::make_unique<Replica>(absl::StrCat(folder_.path(), "/", name), server_->endpoint(),
                                     flags);
  }

  ScratchFolder folder_;
  const CertificateFolder certificates_{folder_.path()};
  std::unique_ptr<S3TestServer> server_;
};

TEST_F(PrivateAuthorityTest, StoreIsReachedByTlsWithItsAuthority) {
  const auto one = Start("one", "ours.pem");
  EXPECT_TRUE(one->IsReady());
  ASSERT_TRUE(one->Upload("fr", "all-linear").ok());
  const auto two = Start("two", "ours.pem");
  std::string here, there;
  ASSERT_TRUE(one->Generate(&here).ok());
  ASSERT_TRUE(two->Generate(&there).ok());
  EXPECT_EQ(there, here);
}

TEST_F(PrivateAuthorityTest, StoreThatNobodyVouchesForIsRefusedByName) {
  ASSERT_TRUE(Start("known", "ours.pem")->Upload("fr", "all-linear").ok());
  for (const char* authority : {"", "theirs.pem"}) {
    const auto replica = Start(absl::StrCat("unknown-", authority), authority);
    EXPECT_FALSE(replica->IsReady());
    EXPECT_EQ(replica->Metric("tenon_store_current"), 0);
    std::string text;
    EXPECT_EQ(replica->Generate(&text).error_code(), grpc::StatusCode::NOT_FOUND)
        << "nothing was taken from it";
    const grpc::Status refused = replica->Upload("it", "rslora");
    EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_THAT(refused.error_message(), testing::HasSubstr("--s3-ca-file"));
    EXPECT_THAT(refused.error_message(), testing::HasSubstr("certificate"));
  }
}

}  // namespace
}  // namespace tenon
