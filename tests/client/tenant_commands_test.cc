// tenonctl tenants and keys against a server in the same process.
#include <gmock/gmock.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>
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
#include "tenon/v1/tenants.grpc.pb.h"

namespace tenon {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Remembers what it was told, and by whom.
class FakeTenants final : public v1::TenantService::Service {
 public:
  grpc::Status GetTenant(grpc::ServerContext*, const v1::GetTenantRequest* request,
                         v1::GetTenantResponse* response) override {
    response->mutable_tenant()->set_name(request->name());
    response->mutable_tenant()->mutable_limits()->set_adapters(7);
    return grpc::Status::OK;
  }
  grpc::Status SetTenantLimits(grpc::ServerContext*, const v1::SetTenantLimitsRequest* request,
                               v1::SetTenantLimitsResponse* response) override {
    limits = request->limits();
    *response->mutable_tenant()->mutable_limits() = limits;
    return grpc::Status::OK;
  }
  grpc::Status CreateKey(grpc::ServerContext* context, const v1::CreateKeyRequest* request,
                         v1::CreateKeyResponse* response) override {
    const auto found = context->client_metadata().find("authorization");
    authorization = found == context->client_metadata().end()
                        ? ""
                        : std::string(found->second.data(), found->second.size());
    key = *request;
    response->mutable_key()->set_id("0123");
    response->set_secret("tnk_secret");
    return grpc::Status::OK;
  }
  grpc::Status ListAuditEntries(grpc::ServerContext*, const v1::ListAuditEntriesRequest*,
                                v1::ListAuditEntriesResponse* response) override {
    response->add_entries()->set_actor("jwt:\x1b[31mmallory");
    return grpc::Status::OK;
  }
  grpc::Status DeleteTenant(grpc::ServerContext*, const v1::DeleteTenantRequest* request,
                            v1::DeleteTenantResponse*) override {
    return request->delete_adapters()
               ? grpc::Status::OK
               : grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "it has adapters");
  }

  v1::TenantLimits limits;
  v1::CreateKeyRequest key;
  std::string authorization;
};

class TenantCommandsTest : public testing::Test {
 protected:
  void SetUp() override {
    const testing::TestInfo* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = absl::StrCat(testing::TempDir(), "/tenants_", getpid(), "_", test->name());
    std::filesystem::create_directories(folder_);
    const std::string address = absl::StrCat("unix:", folder_, "/sock");
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address, grpc::InsecureServerCredentials());
    builder.RegisterService(&tenants_);
    server_ = builder.BuildAndStart();
    environment_["TENON_ADMIN_SERVER"] = address;
  }
  void TearDown() override {
    server_->Shutdown();
    std::filesystem::remove_all(folder_);
  }

  int Run(const std::vector<std::string>& args) {
    std::istringstream in;
    std::ostringstream out, err;
    Console console{in, out, err};
    const int code =
        RunTenonctl(args, [&](const char* name) { return environment_[name]; }, console);
    out_ = out.str();
    err_ = err.str();
    return code;
  }

  std::map<std::string, std::string> environment_;
  std::string folder_, out_, err_;
  FakeTenants tenants_;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(TenantCommandsTest, SecretAloneIsOnStandardOutput) {
  EXPECT_EQ(Run({"keys", "create", "--tenant=acme", "--role=inference", "--note=ci"}), 0);
  EXPECT_EQ(out_, "tnk_secret\n");
  EXPECT_THAT(err_, HasSubstr("key 0123"));
  EXPECT_THAT(err_, Not(HasSubstr("tnk_")));
  EXPECT_EQ(tenants_.key.tenant(), "acme");
  EXPECT_EQ(tenants_.key.role(), "inference");
  EXPECT_FALSE(tenants_.key.has_expire_time());
  EXPECT_EQ(tenants_.authorization, "");
}

TEST_F(TenantCommandsTest, KeyOfAFileWinsOverTheEnvironment) {
  environment_["TENON_API_KEY"] = "of-environment";
  EXPECT_EQ(Run({"keys", "create"}), 0);
  EXPECT_EQ(tenants_.authorization, "Bearer of-environment");
  std::ofstream(folder_ + "/key") << "of-file\n";
  EXPECT_EQ(Run({"--api-key-file", folder_ + "/key", "keys", "create"}), 0);
  EXPECT_EQ(tenants_.authorization, "Bearer of-file");
}

TEST_F(TenantCommandsTest, MissingKeyFileIsAWrongCommandLine) {
  EXPECT_EQ(Run({"--api-key-file=" + folder_ + "/missing", "keys", "create"}), 2);
  EXPECT_THAT(err_, HasSubstr("--api-key-file"));
}

TEST_F(TenantCommandsTest, LimitsThatAreNotGivenStay) {
  EXPECT_EQ(Run({"tenants", "limits", "acme", "--max-tokens=5"}), 0);
  EXPECT_EQ(tenants_.limits.max_tokens(), 5);
  EXPECT_EQ(tenants_.limits.adapters(), 7);
  EXPECT_EQ(Run({"tenants", "limits", "acme", "--adapters=0"}), 0);
  EXPECT_EQ(tenants_.limits.adapters(), 0) << "no limit";
  EXPECT_EQ(Run({"tenants", "limits", "acme", "--adapters=many"}), 2);
}

TEST_F(TenantCommandsTest, ActorCannotColourTheTerminal) {
  EXPECT_EQ(Run({"tenants", "audit"}), 0);
  EXPECT_THAT(out_, HasSubstr("mallory"));
  EXPECT_THAT(out_, Not(HasSubstr("\x1b")));
}

TEST_F(TenantCommandsTest, RefusedDeletionSaysWhy) {
  EXPECT_EQ(Run({"tenants", "delete", "acme"}), 1);
  EXPECT_THAT(err_, HasSubstr("it has adapters"));
  EXPECT_EQ(Run({"tenants", "delete", "acme", "--delete-adapters"}), 0);
  EXPECT_EQ(out_, "deleted acme\n");
}

TEST_F(TenantCommandsTest, ServerThatIsNotThereIsNamedWithItsVariable) {
  environment_["TENON_ADMIN_SERVER"] = "unix:" + folder_ + "/nobody";
  EXPECT_EQ(Run({"--timeout=2s", "tenants", "audit"}), 1);
  EXPECT_THAT(err_, HasSubstr("TENON_ADMIN_SERVER"));
}

}  // namespace
}  // namespace tenon
