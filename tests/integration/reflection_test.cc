// What tools like grpcurl see of the real binary.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.pb.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "tests/integration/server_fixture.h"

namespace tenon {
namespace {

namespace reflection = grpc::reflection::v1alpha;

class ReflectionTest : public ServerTest {
 protected:
  void SetUp() override { Start(); }

  reflection::ServerReflectionResponse Ask(const reflection::ServerReflectionRequest& request) {
    grpc::ClientContext context;
    auto stream = reflection::ServerReflection::NewStub(channel_)->ServerReflectionInfo(&context);
    reflection::ServerReflectionResponse response;
    EXPECT_TRUE(stream->Write(request));
    EXPECT_TRUE(stream->Read(&response));
    stream->WritesDone();
    EXPECT_TRUE(stream->Finish().ok());
    return response;
  }
};

TEST_F(ReflectionTest, ListsTheServices) {
  reflection::ServerReflectionRequest request;
  request.set_list_services("*");
  std::vector<std::string> names;
  const reflection::ServerReflectionResponse response = Ask(request);
  for (const auto& service : response.list_services_response().service()) {
    names.push_back(service.name());
  }
  EXPECT_THAT(names, testing::IsSupersetOf({"tenon.v1.GenerationService", "tenon.v1.AdapterService",
                                            "grpc.health.v1.Health"}));
}

TEST_F(ReflectionTest, DescribesEachService) {
  for (const char* service :
       {"tenon.v1.GenerationService", "tenon.v1.AdapterService", "grpc.health.v1.Health"}) {
    reflection::ServerReflectionRequest request;
    request.set_file_containing_symbol(service);
    const reflection::ServerReflectionResponse response = Ask(request);
    ASSERT_TRUE(response.has_file_descriptor_response())
        << service << ": " << response.error_response().error_message();
    google::protobuf::FileDescriptorProto file;
    ASSERT_TRUE(file.ParseFromString(response.file_descriptor_response().file_descriptor_proto(0)));
    EXPECT_EQ(file.package() + "." + file.service(0).name(), service);
  }
}

}  // namespace
}  // namespace tenon
