// deploy/envoy/ with the real Envoy in front of the real server.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/client.h"
#include "tests/integration/certificates.h"
#include "tests/integration/envoy_process.h"
#include "tests/integration/flood.h"
#include "tests/integration/tenant_fixture.h"

namespace tenon {
namespace {

constexpr char kShort[] = R"(tokens { ids: [1, 2, 3] }
                             sampling { temperature: 0 }
                             stopping { max_tokens: 4 ignore_eos: true })";

class EnvoyTest : public TenantServerTest {
 protected:
  void SetUp() override {
    certificates_.MakeAuthority("authority");
    certificates_.MakeCertificate("edge", "authority", "IP:127.0.0.1");
    StartWithTenants({"--trusted-proxies=unix"});
    envoy_ = std::make_unique<EnvoyProcess>(folder_.path(), server_->address());
    Channel();
    std::ofstream(folder_.path() + "/key") << secret("inference");
  }

  // From here on the fixture's calls go through Envoy.
  void Channel() {
    grpc::SslCredentialsOptions tls;
    tls.pem_root_certs = ReadFile(certificates_.Path("authority.pem"));
    channel_ = grpc::CreateChannel(envoy_->address(), grpc::SslCredentials(tls));
    generation_ = v1::GenerationService::NewStub(channel_);
    adapters_ = v1::AdapterService::NewStub(channel_);
  }

  std::vector<std::string> Hostile(std::vector<std::string> arguments) const {
    arguments.push_back(absl::StrCat("--ca=", certificates_.Path("authority.pem")));
    arguments.push_back(absl::StrCat("--key=", folder_.path(), "/key"));
    return arguments;
  }

  const CertificateFolder certificates_{folder_.path()};
  std::unique_ptr<EnvoyProcess> envoy_;
};

TEST_F(EnvoyTest, UnaryStreamAndUploadPassWithTheCallersKey) {
  ASSERT_TRUE(UploadAs("adapter-writer", "plain-qv", "mine").ok());
  const std::string request = absl::StrCat(kShort, " adapter: \"mine\"");
  v1::GenerateOnceResponse once;
  ASSERT_TRUE(GenerateAs("inference", request, &once).ok());
  const auto context = As("inference");
  auto stream = generation_->Generate(context.get(), ParseProto<v1::GenerateRequest>(request));
  std::string text;
  v1::GenerateResponse message;
  while (stream->Read(&message)) {
    text += message.text();
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(text, once.samples(0).text());
}

TEST_F(EnvoyTest, ErrorsPassWithTheirDetails) {
  EXPECT_EQ(ReasonOf(GenerateAs("", kShort)), "CREDENTIALS_MISSING");
  EXPECT_EQ(ReasonOf(GenerateAs("revoked", kShort)), "CREDENTIALS_REVOKED");
  EXPECT_EQ(ReasonOf(GenerateAs("globex", absl::StrCat(kShort, " adapter: \"mine\""))),
            "ADAPTER_NOT_FOUND");
}

TEST_F(EnvoyTest, WhatHasNoRouteDoesNotExist) {
  v1::ListTenantsResponse response;
  EXPECT_EQ(v1::TenantService::NewStub(channel_)
                ->ListTenants(As("operator").get(), {}, &response)
                .error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(EnvoyTest, PlaintextIsRefused) {
  auto plain = v1::GenerationService::NewStub(server_->NewChannel(envoy_->address()));
  const auto context = As("inference");
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  v1::GetModelResponse response;
  EXPECT_FALSE(plain->GetModel(context.get(), {}, &response).ok());
}

TEST_F(EnvoyTest, CallersAddressIsTheOneThatEnvoySaw) {
  const auto context = As("adapter-writer");
  context->AddMetadata("x-forwarded-for", "203.0.113.9");  // what a caller may claim
  v1::DeleteAdapterRequest request;
  request.set_adapter("nothing");
  v1::DeleteAdapterResponse response;
  EXPECT_EQ(adapters_->DeleteAdapter(context.get(), request, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
  v1::ListAuditEntriesRequest list;
  list.set_tenant("acme");
  v1::ListAuditEntriesResponse entries;
  ASSERT_TRUE(tenants_->ListAuditEntries(As("operator").get(), list, &entries).ok());
  EXPECT_EQ(entries.entries(0).action(), "DeleteAdapter");
  // For a caller on its own machine Envoy writes that machine's address, not 127.0.0.1.
  EXPECT_THAT(entries.entries(0).peer(), testing::StartsWith("ipv4:"));
  EXPECT_NE(entries.entries(0).peer(), "ipv4:203.0.113.9");
}

TEST_F(EnvoyTest, HeadersOverTheLimitEndAtEnvoy) {
  EXPECT_EQ(RunFlood(envoy_->address(), Hostile({"headers", "8000"})).value("grpc-status", ""),
            "0");
  const nlohmann::json refused =
      RunFlood(envoy_->address(), Hostile({"headers", "20000", "--hasty"}));
  EXPECT_NE(refused.value("grpc-status", ""), "0") << refused;
  std::printf("20 kB of metadata through Envoy: %s\n", refused.dump().c_str());
  EXPECT_TRUE(GenerateAs("globex", kShort).ok());
}

TEST_F(EnvoyTest, RapidResetIsCutOffAndTheServerHearsLittleOfIt) {
  const auto answered = [&] { return GenerateAs("globex", kShort).ok(); };
  const Latencies quiet = CallFor(absl::Seconds(1), answered, [] { return true; });
  const int64_t before = envoy_->ResidentBytes() + server_->ResidentBytes();
  std::atomic<bool> done = false;
  nlohmann::json result;
  std::thread flood([&] {
    result = RunFlood(envoy_->address(), Hostile({"reset", "10000"}));
    done = true;
  });
  const Latencies beside = CallFor(absl::Seconds(1), answered, [&] { return done.load(); });
  flood.join();
  const int64_t grown = envoy_->ResidentBytes() + server_->ResidentBytes() - before;
  const int64_t cut = envoy_->Stat("http.inference.downstream_rq_too_many_premature_resets");
  std::printf(
      "rapid reset through Envoy: %s, %d connections cut; memory of both %+.1f MiB; another "
      "tenant's p99 %.1f ms quiet, %.1f ms beside it\n",
      result.dump().c_str(), static_cast<int>(cut), grown / 1048576.0,
      absl::ToDoubleMilliseconds(quiet.Quantile(0.99)),
      absl::ToDoubleMilliseconds(beside.Quantile(0.99)));
  EXPECT_GT(cut, 0);
  EXPECT_EQ(beside.num_failed, 0);
  EXPECT_LT(grown, 100 << 20);
  EXPECT_LT(beside.Quantile(0.99), absl::Seconds(1));
}

TEST_F(EnvoyTest, DrainingServerLeavesTheBalancer) {
  server_->Signal(SIGTERM);
  const absl::Time give_up = absl::Now() + absl::Seconds(30);
  while (envoy_->Stat("cluster.tenon.membership_healthy") != 0 && absl::Now() < give_up) {
    absl::SleepFor(absl::Milliseconds(50));
  }
  EXPECT_EQ(envoy_->Stat("cluster.tenon.membership_healthy"), 0);
  EXPECT_EQ(GenerateAs("inference", kShort).error_code(), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace tenon
