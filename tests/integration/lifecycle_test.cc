// Start, health, reflection and stop of the real binary.
#include <gtest/gtest.h>
#include <signal.h>

#include <string>

#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/integration/server_fixture.h"

namespace tenon {
namespace {

using Health = grpc::health::v1::HealthCheckResponse;

class LifecycleTest : public ServerTest {
 protected:
  grpc::Status Check(const std::string& service, Health* response) {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    return grpc::health::v1::Health::NewStub(channel_)->Check(&context, request, response);
  }
};

TEST_F(LifecycleTest, HealthKnowsEachService) {
  Start();
  Health health;
  for (const char* service : {"", "tenon.v1.GenerationService", "tenon.v1.AdapterService"}) {
    ASSERT_TRUE(Check(service, &health).ok()) << service;
    EXPECT_EQ(health.status(), Health::SERVING) << service;
  }
  EXPECT_EQ(Check("nobody", &health).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(server_->HttpGet("/readyz"), "ready\n");
  EXPECT_EQ(server_->HttpGet("/healthz"), "ok\n");
}

TEST_F(LifecycleTest, TermLetsStreamsFinishAndExitsCleanly) {
  Start();
  grpc::ClientContext context;
  auto reader = generation_->Generate(
      &context, ParseProto<v1::GenerateRequest>(
                    "prompt: 'a' sampling { n: 8 } "
                    "stopping { max_tokens: 200 ignore_eos: true } output { logprobs: 5 }"));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  server_->Signal(SIGTERM);
  int num_tokens = message.logprobs_size();
  while (reader->Read(&message)) {
    num_tokens += message.logprobs_size();
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(num_tokens, 8 * 200) << "no stream is cut";
  EXPECT_EQ(server_->Wait(), 0);
}

TEST_F(LifecycleTest, DrainingServerSaysSoAndRefuses) {
  Start();
  grpc::ClientContext context;  // keeps the server draining: nobody reads
  auto reader = generation_->Generate(
      &context, ParseProto<v1::GenerateRequest>(
                    "prompt: 'a' sampling { n: 16 } "
                    "stopping { max_tokens: 250 ignore_eos: true } output { logprobs: 20 }"));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  server_->Signal(SIGTERM);
  grpc::Status refused = grpc::Status::OK;
  while (refused.ok()) {
    refused = StatusOf("prompt: 'a' stopping { max_tokens: 1 }");
  }
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(FindDetail<google::rpc::RetryInfo>(refused).has_value());
  Health health;
  ASSERT_TRUE(Check("", &health).ok());
  EXPECT_EQ(health.status(), Health::NOT_SERVING);
  EXPECT_EQ(server_->HttpGet("/readyz"), "not ready\n");
  while (reader->Read(&message)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(server_->Wait(), 0);
}

TEST_F(LifecycleTest, DrainTimeoutEndsWhatIsLeft) {
  Start({"--drain-timeout=100ms"});
  grpc::ClientContext context;
  auto reader = generation_->Generate(
      &context, ParseProto<v1::GenerateRequest>(
                    "prompt: 'a' sampling { n: 16 } "
                    "stopping { max_tokens: 250 ignore_eos: true } output { logprobs: 20 }"));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  server_->Signal(SIGTERM);
  EXPECT_EQ(server_->Wait(), 0) << "although nobody reads";
}

TEST_F(LifecycleTest, IdleServerStopsOnInterrupt) {
  Start();
  server_->Signal(SIGINT);
  EXPECT_EQ(server_->Wait(), 0);
}

TEST_F(LifecycleTest, SecondSignalEndsAtOnce) {
  Start();
  grpc::ClientContext context;
  auto reader = generation_->Generate(
      &context, ParseProto<v1::GenerateRequest>(
                    "prompt: 'a' sampling { n: 16 } "
                    "stopping { max_tokens: 250 ignore_eos: true } output { logprobs: 20 }"));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  server_->Signal(SIGTERM);
  while (StatusOf("prompt: 'a' stopping { max_tokens: 1 }").ok()) {
  }
  server_->Signal(SIGTERM);
  EXPECT_EQ(server_->Wait(), 1);
}

}  // namespace
}  // namespace tenon
