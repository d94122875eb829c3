#include "client/cpp/client_status.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace tenon {
namespace {

void Describe(const google::rpc::ErrorInfo& info, std::vector<std::string>& notes) {
  notes.push_back(info.reason());
}
void Describe(const google::rpc::BadRequest& bad, std::vector<std::string>& notes) {
  for (const auto& violation : bad.field_violations()) {
    notes.push_back(absl::StrCat("field ", violation.field()));
  }
}
void Describe(const google::rpc::ResourceInfo& resource, std::vector<std::string>& notes) {
  notes.push_back(absl::StrCat(resource.resource_type(), " ", resource.resource_name()));
}
void Describe(const google::rpc::QuotaFailure& quota, std::vector<std::string>& notes) {
  for (const auto& violation : quota.violations()) {
    notes.push_back(absl::StrCat("limit ", violation.subject()));
  }
}
void Describe(const google::rpc::PreconditionFailure& failure, std::vector<std::string>& notes) {
  for (const auto& violation : failure.violations()) {
    notes.push_back(absl::StrCat("precondition ", violation.subject()));
  }
}
void Describe(const google::rpc::RetryInfo& retry, std::vector<std::string>& notes) {
  const double seconds = static_cast<double>(retry.retry_delay().seconds()) +
                         static_cast<double>(retry.retry_delay().nanos()) * 1e-9;
  notes.push_back(absl::StrCat("retry in ", seconds, " s"));
}

template <typename... Details>
void DescribeAny(const google::protobuf::Any& any, std::vector<std::string>& notes) {
  const auto try_one = [&]<typename Detail>(Detail detail) {
    if (any.Is<Detail>() && any.UnpackTo(&detail)) {
      Describe(detail, notes);
    }
  };
  (try_one(Details()), ...);
}

}  // namespace

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) {
    return absl::OkStatus();
  }
  std::string message = status.error_message();
  google::rpc::Status rich;
  if (rich.ParseFromString(status.error_details())) {
    std::vector<std::string> notes;
    for (const google::protobuf::Any& detail : rich.details()) {
      DescribeAny<google::rpc::ErrorInfo, google::rpc::BadRequest, google::rpc::ResourceInfo,
                  google::rpc::QuotaFailure, google::rpc::PreconditionFailure,
                  google::rpc::RetryInfo>(detail, notes);
    }
    if (!notes.empty()) {
      absl::StrAppend(&message, " [", absl::StrJoin(notes, ", "), "]");
    }
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), message);
}

}  // namespace tenon
