#include "server/rpc/status_conversion.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "absl/strings/match.h"
#include "absl/time/time.h"
#include "adapters/base/errors.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace tenon {
namespace {

google::rpc::Status Details(const grpc::Status& status) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  return details;
}

template <typename Message>
std::optional<Message> Find(const grpc::Status& status) {
  const google::rpc::Status details = Details(status);
  for (const google::protobuf::Any& any : details.details()) {
    Message message;
    if (any.UnpackTo(&message)) {
      return message;
    }
  }
  return std::nullopt;
}

TEST(StatusConversionTest, OkHasNoDetails) {
  const grpc::Status status = ToGrpcStatus(absl::OkStatus());
  EXPECT_TRUE(status.ok());
  EXPECT_TRUE(status.error_details().empty());
}

TEST(StatusConversionTest, DetailsRepeatCodeAndMessage) {
  const grpc::Status status = ToGrpcStatus(absl::NotFoundError("no such thing"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "no such thing");
  EXPECT_EQ(Details(status).code(), 5);
  EXPECT_EQ(Details(status).message(), "no such thing");
}

TEST(StatusConversionTest, PlainStatusHasErrorInfoWithTheCodesName) {
  const auto info = Find<google::rpc::ErrorInfo>(ToGrpcStatus(absl::AbortedError("x")));
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->reason(), "ABORTED");
  EXPECT_EQ(info->domain(), "tenon.dev");
}

TEST(StatusConversionTest, WrongFieldIsABadRequest) {
  const grpc::Status status = ToGrpcStatus(InvalidFieldError("sampling.top_p", "1.5 is over 1"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const auto bad = Find<google::rpc::BadRequest>(status);
  ASSERT_TRUE(bad.has_value());
  ASSERT_EQ(bad->field_violations_size(), 1);
  EXPECT_EQ(bad->field_violations(0).field(), "sampling.top_p");
  EXPECT_EQ(Find<google::rpc::ErrorInfo>(status)->reason(), "INVALID_FIELD");
}

TEST(StatusConversionTest, MissingAdapterIsAResource) {
  const grpc::Status status =
      ToGrpcStatus(ResourceNotFoundError("ADAPTER_NOT_FOUND", "fr@3", "no adapter fr@3"));
  const auto resource = Find<google::rpc::ResourceInfo>(status);
  ASSERT_TRUE(resource.has_value());
  EXPECT_EQ(resource->resource_type(), "adapter");
  EXPECT_EQ(resource->resource_name(), "fr@3");
}

TEST(StatusConversionTest, QuotaWithRetryTimeHasBoth) {
  const grpc::Status status = ToGrpcStatus(
      QuotaExceededError("QUEUE_FULL", "queue", "1024 requests wait", absl::Milliseconds(1500)));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Find<google::rpc::QuotaFailure>(status)->violations(0).subject(), "queue");
  const auto retry = Find<google::rpc::RetryInfo>(status);
  ASSERT_TRUE(retry.has_value());
  EXPECT_EQ(retry->retry_delay().seconds(), 1);
  EXPECT_EQ(retry->retry_delay().nanos(), 500'000'000);
}

TEST(StatusConversionTest, QuotaThatWaitingDoesNotHelpHasNoRetryInfo) {
  const grpc::Status status =
      ToGrpcStatus(QuotaExceededError("UPLOAD_TOO_LARGE", "upload", "too large"));
  EXPECT_TRUE(Find<google::rpc::QuotaFailure>(status).has_value());
  EXPECT_FALSE(Find<google::rpc::RetryInfo>(status).has_value());
}

TEST(StatusConversionTest, PreconditionNamesTypeAndSubject) {
  const auto precondition = Find<google::rpc::PreconditionFailure>(
      ToGrpcStatus(PreconditionError("WRONG_BASE", "model.layers.0", "does not fit")));
  ASSERT_TRUE(precondition.has_value());
  EXPECT_EQ(precondition->violations(0).type(), "WRONG_BASE");
  EXPECT_EQ(precondition->violations(0).subject(), "model.layers.0");
}

TEST(StatusConversionTest, DrainingIsUnavailableWithRetryInfo) {
  const grpc::Status status =
      ToGrpcStatus(RetryLaterError("DRAINING", "draining", absl::Seconds(2)));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Find<google::rpc::RetryInfo>(status)->retry_delay().seconds(), 2);
}

TEST(StatusConversionTest, InternalErrorsKeepTheirCauseFromClients) {
  const grpc::Status status =
      ToGrpcStatus(absl::InternalError("tensor at 0x7f00 in /srv/models"), "req-1");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_FALSE(absl::StrContains(status.error_message(), "0x7f00"));
  EXPECT_FALSE(absl::StrContains(status.error_details(), "/srv/models"));
  EXPECT_TRUE(absl::StrContains(status.error_message(), "req-1"));
  EXPECT_EQ(Find<google::rpc::ErrorInfo>(status)->metadata().at("request_id"), "req-1");
}

TEST(StatusConversionTest, BrokenUtf8AndLongTextAreMadePresentable) {
  const std::string subject = std::string("a\xff\xc3") + std::string(5000, 'x');
  const grpc::Status status =
      ToGrpcStatus(ResourceNotFoundError("ADAPTER_NOT_FOUND", subject, subject));
  const auto resource = Find<google::rpc::ResourceInfo>(status);
  ASSERT_TRUE(resource.has_value());
  EXPECT_TRUE(absl::StartsWith(resource->resource_name(), "a\uFFFD\uFFFDxxx"));
  EXPECT_LE(resource->resource_name().size(), kMaxErrorTextBytes + 3);
  EXPECT_TRUE(absl::EndsWith(status.error_message(), "..."));
  EXPECT_LT(status.error_details().size(), 4096u);
}

TEST(StatusConversionTest, WholeCharactersSurvive) {
  const grpc::Status status = ToGrpcStatus(absl::NotFoundError("é€😀"));
  EXPECT_EQ(status.error_message(), "é€😀");
  // An encoded surrogate and an overlong slash are not UTF-8.
  EXPECT_EQ(ToGrpcStatus(absl::NotFoundError("\xed\xa0\x80")).error_message(),
            "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(ToGrpcStatus(absl::NotFoundError("\xc0\xaf")).error_message(), "\uFFFD\uFFFD");
}

}  // namespace
}  // namespace tenon
