// Every method that the binary offers, on each listener, with every kind of credential: generated
// from the descriptors, so that a method that somebody adds is in it.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "grpc/health/v1/health.pb.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "server/tenant/method_policy.h"
#include "tenon/v1/residency.pb.h"
#include "tests/integration/tenant_fixture.h"

namespace tenon {
namespace {

namespace reflection = grpc::reflection::v1alpha;
using google::protobuf::DescriptorPool;
using google::protobuf::MethodDescriptor;
using google::protobuf::ServiceDescriptor;

enum class Cell { kServed, kUnauthenticated, kDenied, kBroken };

const char* Word(Cell cell) {
  switch (cell) {
    case Cell::kServed:
      return "served";
    case Cell::kUnauthenticated:
      return "unauth";
    case Cell::kDenied:
      return "denied";
    case Cell::kBroken:
      return "broken";
  }
  return "";
}

// The columns: a key's name and the role that it has; no role for those that prove nothing.
struct Credential {
  std::string name;
  RoleSet roles;
};
const std::vector<Credential>& Credentials() {
  static const auto& all = *new std::vector<Credential>{{"none", {}},
                                                        {"bad", {}},
                                                        {"malformed", {}},
                                                        {"twice", {}},
                                                        {"expired", {}},
                                                        {"revoked", {}},
                                                        {"inference", {Role::kInference}},
                                                        {"adapter-writer", {Role::kAdapterWriter}},
                                                        {"tenant-admin", {Role::kTenantAdmin}},
                                                        {"operator", {Role::kOperator}},
                                                        {"globex", {Role::kTenantAdmin}}};
  return all;
}

Cell Expected(const std::string& method, const Credential& credential) {
  const MethodPolicy* policy = FindMethodPolicy(method);
  if (policy == nullptr) {
    ADD_FAILURE() << method << " has no policy";
    return Cell::kDenied;
  }
  if (policy->roles.empty()) {
    return Cell::kServed;
  }
  if (credential.roles.empty()) {
    return Cell::kUnauthenticated;
  }
  return policy->roles.Meets(credential.roles) ? Cell::kServed : Cell::kDenied;
}

class AuthMatrixTest : public TenantServerTest {
 protected:
  void SetUp() override { StartWithTenants(); }

  std::vector<const MethodDescriptor*> MethodsOf(const std::shared_ptr<grpc::Channel>& channel) {
    grpc::ClientContext context;
    auto stream = reflection::ServerReflection::NewStub(channel)->ServerReflectionInfo(&context);
    reflection::ServerReflectionRequest request;
    request.set_list_services("*");
    reflection::ServerReflectionResponse response;
    EXPECT_TRUE(stream->Write(request));
    EXPECT_TRUE(stream->Read(&response));
    stream->WritesDone();
    EXPECT_TRUE(stream->Finish().ok());
    std::vector<const MethodDescriptor*> methods;
    for (const auto& service : response.list_services_response().service()) {
      const ServiceDescriptor* found =
          DescriptorPool::generated_pool()->FindServiceByName(service.name());
      if (found == nullptr) {
        ADD_FAILURE() << "this test does not know " << service.name();
        continue;
      }
      for (int i = 0; i < found->method_count(); ++i) {
        methods.push_back(found->method(i));
      }
    }
    return methods;
  }

  void Present(const std::string& name, grpc::ClientContext& context) {
    if (name == "none") {
      return;
    }
    if (name == "bad") {
      context.AddMetadata("authorization",
                          absl::StrCat("Bearer ", ApiKey::Draw(DrawRandomBytes).text));
    } else if (name == "malformed") {
      context.AddMetadata("authorization", absl::StrCat("Basic ", secret("operator")));
    } else if (name == "twice") {
      context.AddMetadata("authorization", absl::StrCat("Bearer ", secret("tenant-admin")));
      context.AddMetadata("authorization", absl::StrCat("Bearer ", secret("operator")));
    } else {
      context.AddMetadata("authorization", absl::StrCat("Bearer ", secret(name)));
    }
  }

  // An empty message: whoever is let in gets past the gate and hears that it says nothing.
  Cell Call(const std::shared_ptr<grpc::Channel>& channel, const MethodDescriptor* method,
            const std::string& credential) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::milliseconds(method->name().rfind("Watch", 0) == 0
                                                       ? 200
                                                       : 10'000));  // Watch goes on for ever
    Present(credential, context);
    grpc::GenericStub stub(channel);
    grpc::ByteBuffer request(nullptr, 0), response;
    grpc::Slice empty("");
    request = grpc::ByteBuffer(&empty, 1);
    absl::Notification done;
    grpc::Status status;
    stub.UnaryCall(&context, absl::StrCat("/", method->service()->full_name(), "/", method->name()),
                   grpc::StubOptions(), &request, &response, [&](grpc::Status result) {
                     status = std::move(result);
                     done.Notify();
                   });
    done.WaitForNotification();
    switch (status.error_code()) {
      case grpc::StatusCode::UNAUTHENTICATED:
        return Cell::kUnauthenticated;
      case grpc::StatusCode::PERMISSION_DENIED:
        return Cell::kDenied;
      case grpc::StatusCode::UNAVAILABLE:
      case grpc::StatusCode::INTERNAL:
      case grpc::StatusCode::UNKNOWN:
        return Cell::kBroken;
      default:
        return Cell::kServed;
    }
  }

  void Check(const char* listener, const std::shared_ptr<grpc::Channel>& channel) {
    std::printf("%-10s %-60s", "listener", "method");
    for (const Credential& credential : Credentials()) {
      std::printf(" %-14s", credential.name.c_str());
    }
    std::printf("\n");
    for (const MethodDescriptor* method : MethodsOf(channel)) {
      std::printf("%-10s %-60s", listener, std::string(method->full_name()).c_str());
      for (const Credential& credential : Credentials()) {
        const Cell cell = Call(channel, method, credential.name);
        std::printf(" %-14s", Word(cell));
        ++num_cells_;
        EXPECT_STREQ(Word(cell), Word(Expected(method->full_name(), credential)))
            << listener << " " << method->full_name() << " with " << credential.name;
      }
      std::printf("\n");
    }
  }

  int num_cells_ = 0;
};

TEST_F(AuthMatrixTest, EveryCellIsAsDeclared) {
  grpc::health::v1::HealthCheckRequest::descriptor();
  v1::GetResidencyRequest::descriptor();
  Check("inference", channel_);
  Check("admin", admin_channel_);
  std::printf("%d cells\n", num_cells_);
  EXPECT_GT(num_cells_, 200);
}

TEST_F(AuthMatrixTest, EveryMethodHasAPolicyAndEveryPolicyAMethod) {
  std::set<std::string> offered;
  for (const auto& channel : {channel_, admin_channel_}) {
    for (const MethodDescriptor* method : MethodsOf(channel)) {
      offered.insert(method->full_name());
    }
  }
  std::set<std::string> declared;
  for (const MethodPolicy& policy : MethodPolicies()) {
    declared.insert(std::string(policy.method));
  }
  EXPECT_EQ(offered, declared);
}

TEST_F(AuthMatrixTest, EachServiceIsOnItsListenerAlone) {
  std::set<std::string> inference;
  for (const MethodDescriptor* method : MethodsOf(channel_)) {
    inference.insert(method->service()->full_name());
  }
  EXPECT_THAT(inference, testing::Not(testing::Contains("tenon.v1.TenantService")));
  for (const MethodDescriptor* method : MethodsOf(admin_channel_)) {
    if (method->service()->full_name() != "tenon.v1.TenantService") {
      EXPECT_THAT(std::string(method->full_name()), testing::StartsWith("grpc."));
    }
  }
}

}  // namespace
}  // namespace tenon
