// Tenants as their operators, their administrators and their neighbours see them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <signal.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "nlohmann/json.hpp"
#include "tenon/v1/residency.grpc.pb.h"
#include "tests/integration/tenant_fixture.h"

namespace tenon {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

constexpr char kShort[] = R"(tokens { ids: [1, 2, 3] }
                             sampling { temperature: 0 }
                             stopping { max_tokens: 4 ignore_eos: true })";
constexpr char kLong[] = R"(tokens { ids: [1, 2, 3] }
                            stopping { max_tokens: 60 ignore_eos: true })";

class TenantsTest : public TenantServerTest {
 protected:
  grpc::Status RevokeAs(const std::string& name, const std::string& id) {
    v1::RevokeKeyRequest request;
    request.set_id(id);
    v1::RevokeKeyResponse response;
    return tenants_->RevokeKey(As(name).get(), request, &response);
  }
  grpc::Status SetState(const std::string& tenant, v1::TenantState state) {
    v1::SetTenantStateRequest request;
    request.set_name(tenant);
    request.set_state(state);
    v1::SetTenantStateResponse response;
    return tenants_->SetTenantState(As("operator").get(), request, &response);
  }
  grpc::Status GetAdapterAs(const std::string& name, const std::string& adapter) {
    v1::GetAdapterRequest request;
    request.set_adapter(adapter);
    v1::GetAdapterResponse response;
    return adapters_->GetAdapter(As(name).get(), request, &response);
  }
  v1::GetUsageResponse UsageAs(const std::string& name, const std::string& tenant) {
    v1::GetUsageRequest request;
    request.set_tenant(tenant);
    v1::GetUsageResponse response;
    const grpc::Status status = tenants_->GetUsage(As(name).get(), request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
};

TEST_F(TenantsTest, AnothersAdapterLooksLikeOneThatIsNotThere) {
  StartWithTenants();
  ASSERT_TRUE(UploadAs("adapter-writer", "plain-qv", "secret").ok());
  ASSERT_TRUE(GetAdapterAs("inference", "secret").ok());
  const grpc::Status theirs = GetAdapterAs("globex", "secret");
  EXPECT_EQ(theirs.error_code(), grpc::StatusCode::NOT_FOUND);
  v1::DeleteAdapterRequest request;
  request.set_adapter("secret");
  v1::DeleteAdapterResponse response;
  ASSERT_TRUE(adapters_->DeleteAdapter(As("adapter-writer").get(), request, &response).ok());
  const grpc::Status missing = GetAdapterAs("globex", "secret");
  EXPECT_EQ(theirs.error_message(), missing.error_message());
  EXPECT_EQ(theirs.error_details(), missing.error_details());
}

TEST_F(TenantsTest, AnothersAdapterServesNobodyElse) {
  StartWithTenants();
  ASSERT_TRUE(UploadAs("adapter-writer", "plain-qv", "secret").ok());
  const std::string with_adapter = absl::StrCat(kShort, " adapter: \"secret\"");
  EXPECT_TRUE(GenerateAs("inference", with_adapter).ok());
  EXPECT_EQ(ReasonOf(GenerateAs("globex", with_adapter)), "ADAPTER_NOT_FOUND");
  // The same name is free for another tenant.
  EXPECT_TRUE(UploadAs("globex", "rslora", "secret").ok());
  EXPECT_TRUE(GenerateAs("globex", with_adapter).ok());
}

TEST_F(TenantsTest, AdministratorReachesItsOwnTenantAlone) {
  StartWithTenants();
  v1::CreateKeyRequest request;
  request.set_role("inference");
  v1::CreateKeyResponse response;
  request.set_tenant("acme");
  EXPECT_TRUE(tenants_->CreateKey(As("tenant-admin").get(), request, &response).ok());
  request.set_tenant("globex");
  const grpc::Status theirs = tenants_->CreateKey(As("tenant-admin").get(), request, &response);
  EXPECT_EQ(ReasonOf(theirs), "TENANT_NOT_FOUND");
  request.set_tenant("");
  request.set_role("operator");
  EXPECT_EQ(tenants_->CreateKey(As("tenant-admin").get(), request, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(ReasonOf(RevokeAs("tenant-admin", key_id("globex"))), "KEY_NOT_FOUND");
  EXPECT_TRUE(GenerateAs("globex", kShort).ok()) << "its key was not revoked";
}

TEST_F(TenantsTest, RotatedKeyWorksBesideTheOldOne) {
  StartWithTenants();
  v1::RotateKeyRequest request;
  request.set_id(key_id("inference"));
  v1::RotateKeyResponse response;
  ASSERT_TRUE(tenants_->RotateKey(As("tenant-admin").get(), request, &response).ok());
  EXPECT_TRUE(GenerateAs("inference", kShort).ok());
  grpc::ClientContext context;
  context.AddMetadata("authorization", absl::StrCat("Bearer ", response.secret()));
  v1::GenerateOnceResponse answer;
  EXPECT_TRUE(
      generation_->GenerateOnce(&context, ParseProto<v1::GenerateRequest>(kShort), &answer).ok());
}

TEST_F(TenantsTest, SuspendedTenantIsRefusedAndComesBack) {
  StartWithTenants();
  ASSERT_TRUE(SetState("acme", v1::TENANT_STATE_SUSPENDED).ok());
  EXPECT_EQ(ReasonOf(GenerateAs("inference", kShort)), "TENANT_SUSPENDED");
  EXPECT_TRUE(GenerateAs("globex", kShort).ok());
  ASSERT_TRUE(SetState("acme", v1::TENANT_STATE_ACTIVE).ok());
  EXPECT_TRUE(GenerateAs("inference", kShort).ok());
}

TEST_F(TenantsTest, TenantDeletedInMidStreamFinishesItsStream) {
  StartWithTenants();
  ASSERT_TRUE(UploadAs("adapter-writer", "plain-qv", "mine").ok());
  const auto context = As("inference");
  auto stream = generation_->Generate(
      context.get(), ParseProto<v1::GenerateRequest>(absl::StrCat(kLong, " adapter: \"mine\"")));
  v1::GenerateResponse message;
  ASSERT_TRUE(stream->Read(&message));
  v1::DeleteTenantRequest request;
  request.set_name("acme");
  v1::DeleteTenantResponse response;
  EXPECT_EQ(ReasonOf(tenants_->DeleteTenant(As("operator").get(), request, &response)),
            "TENANT_HAS_ADAPTERS");
  request.set_delete_adapters(true);
  ASSERT_TRUE(tenants_->DeleteTenant(As("operator").get(), request, &response).ok());
  EXPECT_EQ(ReasonOf(GenerateAs("inference", kShort)), "CREDENTIALS_INVALID");
  bool finished = message.has_finish();
  while (stream->Read(&message)) {
    finished = finished || message.has_finish();
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_TRUE(finished);
}

TEST_F(TenantsTest, RequestRateIsHeldAndRetryTimeIsHonest) {
  StartWithTenants();
  ASSERT_TRUE(SetLimits("acme", "requests_per_second: 1").ok());
  EXPECT_TRUE(GenerateAs("inference", kShort).ok());
  const grpc::Status refused = GenerateAs("inference", kShort);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ReasonOf(refused), "REQUEST_RATE");
  const auto quota = FindDetail<google::rpc::QuotaFailure>(refused);
  ASSERT_TRUE(quota.has_value());
  EXPECT_EQ(quota->violations(0).subject(), "tenant:acme/requests_per_second");
  const auto retry = FindDetail<google::rpc::RetryInfo>(refused);
  ASSERT_TRUE(retry.has_value());
  EXPECT_LE(retry->retry_delay().seconds(), 1);
  EXPECT_TRUE(GenerateAs("globex", kShort).ok()) << "the limit is acme's";
  ASSERT_TRUE(SetLimits("acme", "").ok());
  EXPECT_TRUE(GenerateAs("inference", kShort).ok()) << "a changed limit holds at once";
}

TEST_F(TenantsTest, TokensOverTheLimitAreWorkedOff) {
  StartWithTenants();
  ASSERT_TRUE(SetLimits("acme", "tokens_per_minute: 6").ok());
  EXPECT_TRUE(GenerateAs("inference", kShort).ok()) << "3 and 4 tokens, one more than there were";
  const grpc::Status refused = GenerateAs("inference", kShort);
  EXPECT_EQ(ReasonOf(refused), "TOKEN_RATE");
  const auto retry = FindDetail<google::rpc::RetryInfo>(refused);
  ASSERT_TRUE(retry.has_value());
  EXPECT_NEAR(static_cast<double>(retry->retry_delay().seconds()), 20.0, 2.0)
      << "from -1 to 1 at a token each 10 s";
}

TEST_F(TenantsTest, ConcurrentRequestsAndLongOnesAreLimited) {
  StartWithTenants();
  ASSERT_TRUE(SetLimits("acme", "concurrent_requests: 1 max_tokens: 60").ok());
  const auto context = As("inference");
  auto stream =
      generation_->Generate(context.get(), ParseProto<v1::GenerateRequest>(absl::StrCat(kLong)));
  v1::GenerateResponse message;
  ASSERT_TRUE(stream->Read(&message));
  const grpc::Status refused = GenerateAs("inference", kShort);
  if (!refused.ok()) {  // the tiny model may have finished by now
    EXPECT_EQ(ReasonOf(refused), "CONCURRENT_REQUESTS");
  }
  while (stream->Read(&message)) {
  }
  ASSERT_TRUE(stream->Finish().ok());
  EXPECT_EQ(ReasonOf(GenerateAs("inference", R"(prompt: "a" stopping { max_tokens: 61 })")),
            "MAX_TOKENS");
}

TEST_F(TenantsTest, AdaptersAndTheirBytesAreLimited) {
  StartWithTenants();
  ASSERT_TRUE(SetLimits("acme", "adapter_bytes: 100").ok());
  EXPECT_EQ(ReasonOf(UploadAs("adapter-writer", "plain-qv", "a")), "ADAPTER_BYTES");
  ASSERT_TRUE(SetLimits("acme", "adapters: 1").ok());
  EXPECT_TRUE(UploadAs("adapter-writer", "plain-qv", "a").ok());
  EXPECT_EQ(ReasonOf(UploadAs("adapter-writer", "rslora", "b")), "ADAPTERS");
}

TEST_F(TenantsTest, UsageIsCountedAndSurvivesARestart) {
  const std::string log = folder_.path() + "/usage.jsonl";
  const std::vector<std::string> flags = {absl::StrCat("--usage-log=", log),
                                          "--usage-flush-interval=10ms"};
  StartWithTenants(flags);
  ASSERT_TRUE(UploadAs("adapter-writer", "plain-qv", "mine").ok());
  ASSERT_TRUE(GenerateAs("inference", kShort).ok());
  ASSERT_TRUE(GenerateAs("inference", absl::StrCat(kShort, " adapter: \"mine\"")).ok());
  const v1::GetUsageResponse before = UsageAs("tenant-admin", "acme");
  ASSERT_THAT(before.adapters(), SizeIs(2));
  EXPECT_EQ(before.adapters(1).adapter(), "mine");
  EXPECT_EQ(before.adapters(1).requests(), 1);
  EXPECT_EQ(before.adapters(1).prompt_tokens(), 3);
  EXPECT_EQ(before.adapters(1).generated_tokens(), 4);
  EXPECT_THAT(UsageAs("globex", "globex").adapters(), SizeIs(0));
  // The lines are written before the sums: when they are there, the last flush is under way.
  while (std::vector<std::string>(absl::StrSplit(ReadFile(log), '\n')).size() < 3) {
    ASSERT_TRUE(GenerateAs("globex", kShort).ok());
  }
  server_->Signal(SIGTERM);
  EXPECT_EQ(server_->Wait(), 0);
  Start(flags);
  admin_channel_ = server_->NewChannel(server_->admin_address());
  tenants_ = v1::TenantService::NewStub(admin_channel_);
  // But for the memory that the adapter went on taking.
  v1::GetUsageResponse then = before, now = UsageAs("operator", "acme");
  ASSERT_THAT(now.adapters(), SizeIs(2));
  EXPECT_GE(now.adapters(1).adapter_byte_seconds(), then.adapters(1).adapter_byte_seconds());
  then.mutable_adapters(1)->clear_adapter_byte_seconds();
  now.mutable_adapters(1)->clear_adapter_byte_seconds();
  EXPECT_EQ(now.SerializeAsString(), then.SerializeAsString());
  const std::vector<std::string> lines = absl::StrSplit(ReadFile(log), '\n');
  const nlohmann::json line = nlohmann::json::parse(lines[1]);
  EXPECT_EQ(line["tenant"], "acme");
  EXPECT_EQ(line["adapter"], "mine");
  EXPECT_EQ(line["version"], 1);
  EXPECT_EQ(line["generated_tokens"], 4);
  EXPECT_EQ(line["outcome"], "ok");
}

TEST_F(TenantsTest, PinnedAdaptersAreBoundedByTheTenantsLimit) {
  StartWithTenants();
  ASSERT_TRUE(UploadAs("adapter-writer", "plain-qv", "one").ok());
  ASSERT_TRUE(UploadAs("adapter-writer", "rslora", "two").ok());
  const auto residency = v1::ResidencyService::NewStub(channel_);
  const auto pin = [&](const std::string& adapter) {
    v1::PinAdapterRequest request;
    request.set_adapter(adapter);
    v1::PinAdapterResponse response;
    return residency->PinAdapter(As("adapter-writer").get(), request, &response);
  };
  ASSERT_TRUE(SetLimits("acme", "pinned_bytes: 1").ok());
  const grpc::Status refused = pin("one");
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("its limit pinned_bytes is 1"));
  ASSERT_TRUE(SetLimits("acme", "").ok());
  EXPECT_TRUE(pin("one").ok());
  ASSERT_TRUE(SetLimits("acme", "pinned_bytes: 20000").ok());
  EXPECT_TRUE(pin("one").ok()) << "once more is no more";
  EXPECT_EQ(pin("two").error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << "both together";
}

TEST_F(TenantsTest, AuditLogSaysWhoDidWhatFromWhere) {
  StartWithTenants();
  ASSERT_TRUE(RevokeAs("tenant-admin", key_id("inference")).ok());
  EXPECT_FALSE(RevokeAs("tenant-admin", key_id("globex")).ok());
  v1::ListAuditEntriesRequest request;
  request.set_tenant("acme");
  request.set_page_size(1);
  v1::ListAuditEntriesResponse response;
  ASSERT_TRUE(tenants_->ListAuditEntries(As("tenant-admin").get(), request, &response).ok());
  ASSERT_THAT(response.entries(), SizeIs(1));
  const v1::AuditEntry& entry = response.entries(0);
  EXPECT_EQ(entry.actor(), "key:" + key_id("tenant-admin"));
  EXPECT_EQ(entry.action(), "RevokeKey");
  EXPECT_EQ(entry.object(), key_id("inference"));
  EXPECT_EQ(entry.outcome(), "ok");
  EXPECT_THAT(entry.peer(), HasSubstr("unix"));
  request.set_tenant("globex");
  response.Clear();
  ASSERT_TRUE(tenants_->ListAuditEntries(As("operator").get(), request, &response).ok());
  EXPECT_EQ(response.entries(0).outcome(), "not_found") << "what was tried is written down too";
  request.set_tenant("");
  EXPECT_FALSE(tenants_->ListAuditEntries(As("tenant-admin").get(), request, &response).ok());
}

TEST_F(TenantsTest, WithoutCredentialsTheFirstKeyClosesTheServer) {
  Start();
  auto admin = v1::TenantService::NewStub(server_->NewChannel(server_->admin_address()));
  EXPECT_TRUE(StatusOf(kShort).ok());
  v1::CreateKeyRequest request;
  request.set_role("operator");
  v1::CreateKeyResponse response;
  grpc::ClientContext context;
  ASSERT_TRUE(admin->CreateKey(&context, request, &response).ok());
  EXPECT_THAT(response.secret(), HasSubstr("tnk_"));
  EXPECT_EQ(ReasonOf(StatusOf(kShort)), "CREDENTIALS_MISSING");
}

TEST_F(TenantsTest, RefusalsAreCountedByReason) {
  StartWithTenants();
  EXPECT_EQ(ReasonOf(GenerateAs("", kShort)), "CREDENTIALS_MISSING");
  EXPECT_EQ(ReasonOf(GenerateAs("expired", kShort)), "CREDENTIALS_EXPIRED");
  const std::string metrics = server_->HttpGet("/metrics");
  EXPECT_EQ(MetricValue(metrics, R"(tenon_refused_callers_total{reason="CREDENTIALS_EXPIRED"})"),
            1);
  EXPECT_THAT(metrics, Not(HasSubstr("tnk_")));
}

// An issuer of tokens, with a key that is drawn for the test.
class Issuer {
 public:
  std::string Jwks() const {
    std::string raw(32, '\0');
    size_t size = raw.size();
    EVP_PKEY_get_raw_public_key(key_.get(), reinterpret_cast<unsigned char*>(raw.data()), &size);
    return absl::StrCat(R"({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": ")",
                        Encode(raw), R"("}]})");
  }
  std::string Sign(const nlohmann::json& claims) const {
    const std::string text =
        absl::StrCat(Encode(R"({"alg":"EdDSA","kid":"k"})"), ".", Encode(claims.dump()));
    std::string signature(64, '\0');
    size_t size = signature.size();
    const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                          EVP_MD_CTX_free);
    EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key_.get());
    EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                   reinterpret_cast<const unsigned char*>(text.data()), text.size());
    return absl::StrCat(text, ".", Encode(signature));
  }

 private:
  static std::string Encode(const std::string& bytes) {
    const std::string text = absl::WebSafeBase64Escape(bytes);
    return text.substr(0, text.find('='));
  }
  std::shared_ptr<EVP_PKEY> key_{EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"), EVP_PKEY_free};
};

class TokensTest : public TenantsTest {
 protected:
  void Publish(const std::string& jwks) {
    std::ofstream(folder_.path() + "/jwks.new") << jwks;
    std::filesystem::rename(folder_.path() + "/jwks.new", folder_.path() + "/jwks.json");
  }
  grpc::Status GenerateWith(const std::string& token) {
    grpc::ClientContext context;
    context.AddMetadata("authorization", absl::StrCat("Bearer ", token));
    v1::GenerateOnceResponse response;
    return generation_->GenerateOnce(&context, ParseProto<v1::GenerateRequest>(kShort), &response);
  }
  nlohmann::json Claims(const std::string& tenant) const {
    return {{"exp", absl::ToUnixSeconds(absl::Now()) + 60},
            {"aud", "tenon"},
            {"team", tenant},
            {"role", "inference"}};
  }
  void StartWithIssuer(const Issuer& issuer) {
    Publish(issuer.Jwks());
    StartWithTenants({absl::StrCat("--jwks-file=", folder_.path(), "/jwks.json"),
                      "--jwt-audience=tenon", "--jwt-tenant-claim=team"});
  }
};

TEST_F(TokensTest, TokenActsForTheTenantOfItsClaim) {
  const Issuer issuer;
  StartWithIssuer(issuer);
  EXPECT_TRUE(GenerateWith(issuer.Sign(Claims("acme"))).ok());
  EXPECT_EQ(ReasonOf(GenerateWith(issuer.Sign(Claims("nobody")))), "CREDENTIALS_INVALID");
  EXPECT_EQ(ReasonOf(GenerateWith(Issuer().Sign(Claims("acme")))), "CREDENTIALS_INVALID");
  ASSERT_TRUE(SetState("acme", v1::TENANT_STATE_SUSPENDED).ok());
  EXPECT_EQ(ReasonOf(GenerateWith(issuer.Sign(Claims("acme")))), "TENANT_SUSPENDED");
  EXPECT_TRUE(GenerateAs("globex", kShort).ok()) << "keys go on beside tokens";
}

TEST_F(TokensTest, KeysOfABadFileStayInForceAndAGoodOneReplacesThem) {
  const Issuer first, second;
  StartWithIssuer(first);
  EXPECT_EQ(MetricValue(server_->HttpGet("/metrics"), "tenon_token_keys_current"), 1);
  Publish("{ not json");
  const absl::Time give_up = absl::Now() + absl::Seconds(30);
  while (MetricValue(server_->HttpGet("/metrics"), "tenon_token_keys_current") != 0 &&
         absl::Now() < give_up) {
  }
  EXPECT_EQ(MetricValue(server_->HttpGet("/metrics"), "tenon_token_keys_current"), 0);
  EXPECT_TRUE(GenerateWith(first.Sign(Claims("acme"))).ok());
  Publish(second.Jwks());
  while (!GenerateWith(second.Sign(Claims("acme"))).ok() && absl::Now() < give_up) {
  }
  EXPECT_TRUE(GenerateWith(second.Sign(Claims("acme"))).ok());
  EXPECT_EQ(ReasonOf(GenerateWith(first.Sign(Claims("acme")))), "CREDENTIALS_INVALID");
}

}  // namespace
}  // namespace tenon
