#include "tests/integration/tenant_fixture.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace tenon {

void TenantServerTest::MakeKeys() {
  const std::string store = folder_.path() + "/store";
  std::filesystem::create_directories(store);
  // The expired key was made an hour ago, for a minute.
  absl::Time now = absl::Now() - absl::Hours(1);
  auto hasher = ApiKeyHasher::Open(store + "/key-pepper", DrawRandomBytes);
  ASSERT_TRUE(hasher.ok());
  auto directory =
      TenantDirectory::Open({store + "/tenants.db", *hasher, [&] { return now; }, DrawRandomBytes});
  ASSERT_TRUE(directory.ok()) << directory.status();
  const AuditSource source{"server", "", "Test"};
  const auto add = [&](const std::string& name, const std::string& tenant, Role role,
                       absl::Time expires) {
    auto key = (*directory)->CreateKey(tenant, role, expires, name, source);
    ASSERT_TRUE(key.ok()) << key.status();
    secrets_[name] = *std::move(key);
  };
  for (const char* tenant : {"acme", "globex"}) {
    ASSERT_TRUE((*directory)->Create(tenant, {}, source).ok());
  }
  const absl::Time never = absl::InfiniteFuture();
  add("operator", "", Role::kOperator, never);
  for (const Role role : {Role::kInference, Role::kAdapterWriter, Role::kTenantAdmin}) {
    add(std::string(RoleName(role)), "acme", role, never);
  }
  add("globex", "globex", Role::kTenantAdmin, never);
  add("expired", "acme", Role::kTenantAdmin, now + absl::Minutes(1));
  add("revoked", "acme", Role::kTenantAdmin, never);
  ASSERT_TRUE((*directory)->RevokeKey(key_id("revoked"), source).ok());
}

void TenantServerTest::StartWithTenants(std::vector<std::string> flags) {
  MakeKeys();
  Start(std::move(flags));
  admin_channel_ = server_->NewChannel(server_->admin_address());
  tenants_ = v1::TenantService::NewStub(admin_channel_);
}

std::unique_ptr<grpc::ClientContext> TenantServerTest::As(const std::string& name) const {
  auto context = std::make_unique<grpc::ClientContext>();
  if (!name.empty()) {
    context->AddMetadata("authorization", absl::StrCat("Bearer ", secret(name)));
  }
  return context;
}

grpc::Status TenantServerTest::GenerateAs(const std::string& name, const std::string& request,
                                          v1::GenerateOnceResponse* response) {
  v1::GenerateOnceResponse ignored;
  return generation_->GenerateOnce(As(name).get(), ParseProto<v1::GenerateRequest>(request),
                                   response == nullptr ? &ignored : response);
}

grpc::Status TenantServerTest::UploadAs(const std::string& name, const std::string& folder,
                                        const std::string& adapter) {
  const std::unique_ptr<grpc::ClientContext> context = As(name);
  v1::UploadAdapterResponse response;
  auto writer = adapters_->UploadAdapter(context.get(), &response);
  for (const v1::UploadAdapterRequest& message :
       UploadMessages(adapter, TinyAdapterFiles(folder))) {
    if (!writer->Write(message)) {
      break;
    }
  }
  writer->WritesDone();
  return writer->Finish();
}

grpc::Status TenantServerTest::SetLimits(const std::string& tenant, const std::string& limits) {
  v1::SetTenantLimitsRequest request;
  request.set_name(tenant);
  *request.mutable_limits() = ParseProto<v1::TenantLimits>(limits);
  v1::SetTenantLimitsResponse response;
  return tenants_->SetTenantLimits(As("operator").get(), request, &response);
}

std::string ReasonOf(const grpc::Status& status) {
  const auto info = FindDetail<google::rpc::ErrorInfo>(status);
  return info.has_value() ? info->reason() : "";
}

}  // namespace tenon
