#include "tests/integration/many_tenants.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace tenon {

void ManyTenantsTest::StartWith(const std::vector<std::string>& tenants,
                                const std::vector<std::string>& flags) {
  const std::string store = folder_.path() + "/store";
  std::filesystem::create_directories(store);
  auto hasher = ApiKeyHasher::Open(store + "/key-pepper", DrawRandomBytes);
  ASSERT_TRUE(hasher.ok());
  {
    auto directory =
        TenantDirectory::Open({store + "/tenants.db", *hasher, absl::Now, DrawRandomBytes});
    ASSERT_TRUE(directory.ok()) << directory.status();
    const AuditSource source{"server", "", "Test"};
    const auto add = [&](const std::string& tenant, Role role) {
      auto key = (*directory)->CreateKey(tenant, role, absl::InfiniteFuture(), "", source);
      ASSERT_TRUE(key.ok()) << key.status();
      secrets_[tenant] = key->text;
    };
    add("", Role::kOperator);
    for (const std::string& tenant : tenants) {
      ASSERT_TRUE((*directory)->Create(tenant, {}, source).ok());
      add(tenant, Role::kTenantAdmin);
    }
  }
  // The child inherits standard error.
  const int mine = dup(STDERR_FILENO);
  const int log = open(log_path().c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  dup2(log, STDERR_FILENO);
  Start(flags);
  dup2(mine, STDERR_FILENO);
  close(log);
  close(mine);
  admin_channel_ = server_->NewChannel(server_->admin_address());
  tenants_ = v1::TenantService::NewStub(admin_channel_);
}

std::unique_ptr<grpc::ClientContext> ManyTenantsTest::As(const std::string& tenant) const {
  auto context = std::make_unique<grpc::ClientContext>();
  context->AddMetadata("authorization", absl::StrCat("Bearer ", secrets_.at(tenant)));
  return context;
}

grpc::Status ManyTenantsTest::GenerateAs(const std::string& tenant,
                                         const v1::GenerateRequest& request,
                                         v1::GenerateOnceResponse* response) const {
  return generation_->GenerateOnce(As(tenant).get(), request, response);
}

v1::GetUsageResponse ManyTenantsTest::UsageOf(const std::string& tenant) const {
  v1::GetUsageRequest request;
  request.set_tenant(tenant);
  v1::GetUsageResponse response;
  const grpc::Status status = tenants_->GetUsage(As("").get(), request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response;
}

void ManyTenantsTest::SetLimits(const std::string& tenant, const std::string& limits) const {
  v1::SetTenantLimitsRequest request;
  request.set_name(tenant);
  *request.mutable_limits() = ParseProto<v1::TenantLimits>(limits);
  v1::SetTenantLimitsResponse response;
  EXPECT_TRUE(tenants_->SetTenantLimits(As("").get(), request, &response).ok());
}

}  // namespace tenon
