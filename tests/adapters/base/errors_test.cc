#include "adapters/base/errors.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "adapters/base/error_metadata.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

TEST(ErrorsTest, EachConstructorKeepsItsDetail) {
  const struct {
    absl::Status status;
    absl::StatusCode code;
    ErrorDetail::Kind kind;
    const char* reason;
    const char* subject;
  } kCases[] = {
      {InvalidFieldError("top_p", "too big"), absl::StatusCode::kInvalidArgument,
       ErrorDetail::Kind::kField, "INVALID_FIELD", "top_p"},
      {InvalidAdapterError("NAN", "x", "m"), absl::StatusCode::kInvalidArgument,
       ErrorDetail::Kind::kField, "NAN", "x"},
      {ResourceNotFoundError("ADAPTER_NOT_FOUND", "fr@3", "m"), absl::StatusCode::kNotFound,
       ErrorDetail::Kind::kResource, "ADAPTER_NOT_FOUND", "fr@3"},
      {ResourceConflictError(absl::StatusCode::kAborted, "RACE", "fr", "m"),
       absl::StatusCode::kAborted, ErrorDetail::Kind::kResource, "RACE", "fr"},
      {QuotaExceededError("RATE", "acme", "m", absl::Seconds(2)),
       absl::StatusCode::kResourceExhausted, ErrorDetail::Kind::kQuota, "RATE", "acme"},
      {PreconditionError("SHAPE", "q_proj", "m"), absl::StatusCode::kFailedPrecondition,
       ErrorDetail::Kind::kPrecondition, "SHAPE", "q_proj"},
      {RetryLaterError("LOADING", "m", absl::Milliseconds(5)), absl::StatusCode::kUnavailable,
       ErrorDetail::Kind::kRetry, "LOADING", ""},
  };
  for (const auto& test : kCases) {
    EXPECT_EQ(test.status.code(), test.code) << test.reason;
    const auto detail = GetErrorDetail(test.status);
    ASSERT_TRUE(detail.has_value()) << test.reason;
    EXPECT_EQ(detail->kind, test.kind) << test.reason;
    EXPECT_EQ(detail->reason, test.reason);
    EXPECT_EQ(detail->subject, test.subject) << test.reason;
  }
  EXPECT_EQ(GetErrorDetail(kCases[4].status)->retry_after, absl::Seconds(2));
  EXPECT_EQ(GetErrorDetail(kCases[6].status)->retry_after, absl::Milliseconds(5));
}

TEST(ErrorsTest, FieldErrorsBeginWithTheField) {
  EXPECT_EQ(InvalidFieldError("sampling.top_p", "1.5 exceeds 1").message(),
            "sampling.top_p: 1.5 exceeds 1");
}

TEST(ErrorsTest, SubjectMayHoldNewlines) {
  EXPECT_EQ(GetErrorDetail(InvalidAdapterError("R", "a\nb\n", "m"))->subject, "a\nb\n");
}

TEST(ErrorsTest, PlainStatusHasNoDetail) {
  EXPECT_FALSE(GetErrorDetail(absl::OkStatus()).has_value());
  EXPECT_FALSE(GetErrorDetail(absl::InternalError("x")).has_value());
}

TEST(ErrorsTest, AnnotateKeepsCodeAndDetail) {
  const absl::Status status = Annotate(InvalidFieldError("f", "bad"), "adapter fr");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "adapter fr: f: bad");
  EXPECT_EQ(GetErrorDetail(status)->subject, "f");
  EXPECT_TRUE(Annotate(absl::OkStatus(), "x").ok());
}

TEST(ErrorsTest, QuotedIsPrintableAsciiOfBoundedLength) {
  EXPECT_EQ(Quoted("fr"), "\"fr\"");
  EXPECT_EQ(Quoted(""), "\"\"");
  EXPECT_EQ(Quoted("a\"\n"), "\"a\\\"\\n\"");
  EXPECT_EQ(Quoted("\xff"), "\"\\xff\"");
  EXPECT_EQ(Quoted("\xc3\xa9"), "\"\\xc3\\xa9\"");
  EXPECT_EQ(Quoted(std::string(120, 'x')), "\"" + std::string(120, 'x') + "\"");
  EXPECT_EQ(Quoted(std::string(5000, 'x')), "\"" + std::string(120, 'x') + "...\" (5000 bytes)");
  for (const char c : Quoted(std::string(5000, '\x1b'))) {
    EXPECT_TRUE(c >= ' ' && c <= '~');
  }
}

TEST(ErrorMetadataTest, FactsAddUpAndSurviveAnnotation) {
  const absl::Status status = WithMetadata(
      WithMetadata(
          ResourceConflictError(absl::StatusCode::kAborted, "ALIAS_MOVED", "fr@a", "moved"),
          "current_version", "7"),
      "other", "a\nb");
  const absl::Status annotated = Annotate(status, "promote");
  EXPECT_EQ(GetErrorMetadata(annotated),
            (std::map<std::string, std::string>{{"current_version", "7"}, {"other", "a\nb"}}));
  EXPECT_EQ(GetErrorDetail(annotated)->reason, "ALIAS_MOVED");
}

TEST(ErrorMetadataTest, OkHasNone) {
  EXPECT_TRUE(WithMetadata(absl::OkStatus(), "a", "b").ok());
  EXPECT_TRUE(GetErrorMetadata(absl::OkStatus()).empty());
  EXPECT_TRUE(GetErrorMetadata(absl::InternalError("x")).empty());
}

absl::StatusOr<int> Twice(absl::StatusOr<int> value) {
  TENON_ASSIGN_OR_RETURN(const int x, value);
  TENON_RETURN_IF_ERROR(x < 0 ? absl::OutOfRangeError("negative") : absl::OkStatus());
  return 2 * x;
}

TEST(StatusMacrosTest, PassOnErrorsAndValues) {
  EXPECT_EQ(Twice(3).value(), 6);
  EXPECT_EQ(Twice(-1).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(Twice(absl::InternalError("x")).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace tenon
