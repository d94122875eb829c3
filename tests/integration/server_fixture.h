// ServerTest: a server for a test, and its calls in a line each.
#ifndef TENON_TESTS_INTEGRATION_SERVER_FIXTURE_H_
#define TENON_TESTS_INTEGRATION_SERVER_FIXTURE_H_

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tenon/v1/adapters.grpc.pb.h"
#include "tenon/v1/generation.grpc.pb.h"
#include "tests/integration/server_process.h"

namespace tenon {

template <typename Message>
Message ParseProto(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
  return message;
}

/// The detail of that type in a status, if any.
template <typename Detail>
std::optional<Detail> FindDetail(const grpc::Status& status) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  for (const google::protobuf::Any& any : details.details()) {
    Detail detail;
    if (any.UnpackTo(&detail)) {
      return detail;
    }
  }
  return std::nullopt;
}

/// A stream as a client joins it: by sample.
struct Joined {
  grpc::Status status;
  std::map<int, v1::Sample> samples;
  int num_messages = 0;
};

class ServerTest : public ::testing::Test {
 protected:
  void Start(std::vector<std::string> flags = {}) {
    server_ = std::make_unique<ServerProcess>(folder_.path(), std::move(flags));
    channel_ = server_->NewChannel();
    generation_ = v1::GenerationService::NewStub(channel_);
    adapters_ = v1::AdapterService::NewStub(channel_);
  }

  /// The answer, which must come.
  v1::GenerateOnceResponse Generate(const std::string& request);
  /// The status of a request.
  grpc::Status StatusOf(const std::string& request);
  Joined Stream(const std::string& request);

  /// Sends messages as they are; half-closes at the end.
  grpc::Status Upload(const std::vector<v1::UploadAdapterRequest>& messages,
                      v1::UploadAdapterResponse* response);
  /// One of the tiny model's adapters, under `name`.
  v1::Adapter UploadTiny(const std::string& folder, const std::string& name);
  std::vector<v1::Adapter> List();

  ScratchFolder folder_;
  std::unique_ptr<ServerProcess> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::GenerationService::Stub> generation_;
  std::unique_ptr<v1::AdapterService::Stub> adapters_;
};

/// The messages of a whole upload, chunks of `chunk_bytes`. `digest` goes into the last one.
std::vector<v1::UploadAdapterRequest> UploadMessages(
    const std::string& name, const std::map<std::string, std::string>& files,
    size_t chunk_bytes = 64 << 10, const std::string& digest = "");

/// The two files of a tiny adapter.
std::map<std::string, std::string> TinyAdapterFiles(const std::string& folder);

}  // namespace tenon

#endif  // TENON_TESTS_INTEGRATION_SERVER_FIXTURE_H_
