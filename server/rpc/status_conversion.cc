#include "server/rpc/status_conversion.h"

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "adapters/base/error_metadata.h"
#include "adapters/base/errors.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace tenon {
namespace {

// Length of the UTF-8 character at text[0], or 0 when there is none (RFC 3629).
size_t CharacterBytes(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const auto continues = [&](size_t i) { return i < text.size() && (byte(i) & 0xC0) == 0x80; };
  if (byte(0) < 0x80) {
    return 1;
  }
  if (byte(0) >= 0xC2 && byte(0) <= 0xDF && continues(1)) {
    return 2;
  }
  if ((byte(0) & 0xF0) == 0xE0 && continues(1) && continues(2)) {
    const bool overlong = byte(0) == 0xE0 && byte(1) < 0xA0;
    const bool surrogate = byte(0) == 0xED && byte(1) > 0x9F;
    return overlong || surrogate ? 0 : 3;
  }
  if (byte(0) >= 0xF0 && byte(0) <= 0xF4 && continues(1) && continues(2) && continues(3)) {
    const bool overlong = byte(0) == 0xF0 && byte(1) < 0x90;
    const bool beyond = byte(0) == 0xF4 && byte(1) > 0x8F;
    return overlong || beyond ? 0 : 4;
  }
  return 0;
}

// Protobuf strings and HTTP/2 trailers take neither broken UTF-8 nor any length.
std::string Presentable(absl::string_view text) {
  std::string clean;
  while (!text.empty()) {
    const size_t length = CharacterBytes(text);
    if (clean.size() + std::max<size_t>(length, 3) > kMaxErrorTextBytes) {
      return clean + "...";
    }
    absl::StrAppend(&clean, length > 0 ? text.substr(0, length) : "\uFFFD");
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return clean;
}

// The reason of an error that carries no detail: its code's name.
std::string ReasonOf(absl::StatusCode code) { return absl::StatusCodeToString(code); }

void AddRetryInfo(absl::Duration delay, google::rpc::Status& out) {
  google::rpc::RetryInfo retry;
  const int64_t seconds = absl::IDivDuration(delay, absl::Seconds(1), &delay);
  retry.mutable_retry_delay()->set_seconds(seconds);
  retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(delay)));
  out.add_details()->PackFrom(retry);
}

void AddDetail(const ErrorDetail& detail, const std::string& message, google::rpc::Status& out) {
  const std::string subject = Presentable(detail.subject);
  switch (detail.kind) {
    case ErrorDetail::Kind::kField: {
      google::rpc::BadRequest bad;
      auto* violation = bad.add_field_violations();
      violation->set_field(subject);
      violation->set_description(message);
      out.add_details()->PackFrom(bad);
      break;
    }
    case ErrorDetail::Kind::kResource: {
      google::rpc::ResourceInfo resource;
      resource.set_resource_type("adapter");
      resource.set_resource_name(subject);
      resource.set_description(message);
      out.add_details()->PackFrom(resource);
      break;
    }
    case ErrorDetail::Kind::kQuota: {
      google::rpc::QuotaFailure quota;
      auto* violation = quota.add_violations();
      violation->set_subject(subject);
      violation->set_description(message);
      out.add_details()->PackFrom(quota);
      break;
    }
    case ErrorDetail::Kind::kPrecondition: {
      google::rpc::PreconditionFailure precondition;
      auto* violation = precondition.add_violations();
      violation->set_type(detail.reason);
      violation->set_subject(subject);
      violation->set_description(message);
      out.add_details()->PackFrom(precondition);
      break;
    }
    case ErrorDetail::Kind::kRetry:
    case ErrorDetail::Kind::kIdentity:
      break;
  }
  if (detail.retry_after > absl::ZeroDuration()) {
    AddRetryInfo(detail.retry_after, out);
  }
}

bool HidesItsCause(absl::StatusCode code) {
  return code == absl::StatusCode::kInternal || code == absl::StatusCode::kUnknown;
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status, absl::string_view request_id) {
  if (status.ok()) {
    return grpc::Status::OK;
  }
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  const std::string message =
      HidesItsCause(status.code())
          ? absl::StrCat("internal error; the server's log has the cause",
                         request_id.empty() ? "" : " under request_id ", Presentable(request_id))
          : Presentable(status.message());
  google::rpc::Status out;
  out.set_code(static_cast<int>(status.code()));
  out.set_message(message);
  google::rpc::ErrorInfo info;
  info.set_reason(detail.has_value() ? detail->reason : ReasonOf(status.code()));
  info.set_domain(std::string(kErrorDomain));
  if (!request_id.empty()) {
    (*info.mutable_metadata())["request_id"] = Presentable(request_id);
  }
  for (const auto& [key, value] : GetErrorMetadata(status)) {
    (*info.mutable_metadata())[key] = Presentable(value);
  }
  out.add_details()->PackFrom(info);
  if (detail.has_value() && !HidesItsCause(status.code())) {
    AddDetail(*detail, message, out);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message,
                      out.SerializeAsString());
}

}  // namespace tenon
