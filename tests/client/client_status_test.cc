#include "client/cpp/client_status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace tenon {
namespace {

using ::testing::Eq;

grpc::Status WithDetails(grpc::StatusCode code, const std::string& message,
                         const google::rpc::Status& rich) {
  return grpc::Status(code, message, rich.SerializeAsString());
}

TEST(FromGrpcStatusTest, OkStaysOk) { EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok()); }

TEST(FromGrpcStatusTest, KeepsCodeAndMessage) {
  const absl::Status status =
      FromGrpcStatus(grpc::Status(grpc::StatusCode::UNAVAILABLE, "connection refused"));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), Eq("connection refused"));
}

TEST(FromGrpcStatusTest, SaysWhatTheDetailsSay) {
  google::rpc::Status rich;
  google::rpc::ErrorInfo info;
  info.set_reason("QUEUE_FULL");
  rich.add_details()->PackFrom(info);
  google::rpc::QuotaFailure quota;
  quota.add_violations()->set_subject("max_queued");
  rich.add_details()->PackFrom(quota);
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(1);
  retry.mutable_retry_delay()->set_nanos(500000000);
  rich.add_details()->PackFrom(retry);
  const absl::Status status =
      FromGrpcStatus(WithDetails(grpc::StatusCode::RESOURCE_EXHAUSTED, "the queue is full", rich));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              Eq("the queue is full [QUEUE_FULL, limit max_queued, retry in 1.5 s]"));
}

TEST(FromGrpcStatusTest, NamesFieldsResourcesAndPreconditions) {
  google::rpc::Status rich;
  google::rpc::BadRequest bad;
  bad.add_field_violations()->set_field("sampling.top_p");
  rich.add_details()->PackFrom(bad);
  google::rpc::ResourceInfo resource;
  resource.set_resource_type("adapter");
  resource.set_resource_name("fr@3");
  rich.add_details()->PackFrom(resource);
  google::rpc::PreconditionFailure failure;
  failure.add_violations()->set_subject("q_proj");
  rich.add_details()->PackFrom(failure);
  EXPECT_THAT(
      std::string(
          FromGrpcStatus(WithDetails(grpc::StatusCode::INVALID_ARGUMENT, "no", rich)).message()),
      Eq("no [field sampling.top_p, adapter fr@3, precondition q_proj]"));
}

TEST(FromGrpcStatusTest, UnknownAndBrokenDetailsAreLeftOut) {
  google::rpc::Status rich;
  rich.add_details()->set_type_url("type.googleapis.com/some.Other");
  EXPECT_THAT(
      std::string(FromGrpcStatus(WithDetails(grpc::StatusCode::INTERNAL, "x", rich)).message()),
      Eq("x"));
  EXPECT_THAT(
      std::string(
          FromGrpcStatus(grpc::Status(grpc::StatusCode::INTERNAL, "x", "\xff\xff")).message()),
      Eq("x"));
}

}  // namespace
}  // namespace tenon
