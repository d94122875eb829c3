#include "server/rpc/version_calls.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "server/rpc/acceptance_conversion.h"
#include "server/rpc/adapter_catalogue.h"
#include "server/rpc/adapter_sharing.h"
#include "server/rpc/placements.h"
#include "server/telemetry/logging.h"
#include "server/tenant/tenant_directory.h"

namespace tenon {
namespace {

constexpr int32_t kDefaultChanges = 100;

v1::AliasAction ToProto(AliasAction action) {
  switch (action) {
    case AliasAction::kUpload:
      return v1::ALIAS_ACTION_UPLOAD;
    case AliasAction::kPromote:
      return v1::ALIAS_ACTION_PROMOTE;
    case AliasAction::kRollback:
      return v1::ALIAS_ACTION_ROLLBACK;
    case AliasAction::kDelete:
      return v1::ALIAS_ACTION_DELETE;
    case AliasAction::kSplit:
      return v1::ALIAS_ACTION_SPLIT;
  }
  return v1::ALIAS_ACTION_UNSPECIFIED;
}

v1::AliasChange ToProto(const AliasChange& change) {
  v1::AliasChange proto;
  proto.set_sequence(change.sequence);
  *proto.mutable_time() = ToTimestamp(change.time);
  proto.set_actor(change.actor);
  proto.set_action(ToProto(change.action));
  proto.set_alias(change.alias);
  proto.set_from(change.from);
  proto.set_to(change.to);
  proto.set_details(change.details);
  return proto;
}

// The alias of a request: `latest` when it names none.
absl::StatusOr<std::string> AliasOf(const std::string& alias) {
  if (alias.empty()) {
    return std::string(kLatestAlias);
  }
  TENON_RETURN_IF_ERROR(ValidateAlias("alias", alias));
  return alias;
}

template <typename Request>
absl::StatusOr<std::optional<int64_t>> ExpectedOf(const Request& request) {
  if (!request.has_expected_version()) {
    return std::nullopt;
  }
  if (request.expected_version() < 0) {
    return InvalidFieldError("expected_version",
                             absl::StrCat(request.expected_version(), " is less than 0"));
  }
  return request.expected_version();
}

// The version that a promotion goes to; 0 removes the alias.
absl::StatusOr<int64_t> GoalOf(const AdapterBackend& backend, const std::string& tenant,
                               const v1::PromoteRequest& request) {
  const int ways = (request.version() != 0) + !request.from_alias().empty() + request.remove();
  if (ways != 1) {
    return InvalidFieldError("version", "exactly one of version, from_alias and remove is needed");
  }
  if (request.version() < 0) {
    return InvalidFieldError("version", absl::StrCat(request.version(), " is less than 1"));
  }
  if (request.from_alias().empty()) {
    return request.version();
  }
  TENON_RETURN_IF_ERROR(ValidateAlias("from_alias", request.from_alias()));
  const AdapterRef ref{request.name(), 0, request.from_alias()};
  TENON_ASSIGN_OR_RETURN(const AdapterHandle handle, backend.registry->Acquire(tenant, ref));
  return handle.id().version;
}

void NoteChange(const std::string& name, const AliasChange& change, CallRecord& record) {
  record.Note("adapter", name);
  record.Note("alias", change.alias);
  record.Note("from", absl::StrCat(change.from));
  record.Note("to", absl::StrCat(change.to));
}

}  // namespace

absl::Status DeleteAdapter(const AdapterBackend& backend, CallRecord& record,
                           const v1::DeleteAdapterRequest& request,
                           v1::DeleteAdapterResponse& response) {
  record.Note("adapter", request.adapter());
  TENON_ASSIGN_OR_RETURN(const AdapterRef ref, ParseAdapterRef("adapter", request.adapter()));
  if (!ref.alias.empty()) {
    return InvalidFieldError(
        "adapter", absl::StrCat(ref.ToString(), " is an alias; name the version to delete"));
  }
  TENON_ASSIGN_OR_RETURN(const std::vector<int64_t> versions,
                         backend.versions->Delete(record.tenant(), ref, request.force(),
                                                  record.identity().credential));
  response.mutable_versions()->Assign(versions.begin(), versions.end());
  response.set_generation(backend.registry->Set(record.tenant()).generation);
  ForgetPlacements(*backend.directory, record.tenant(), ref.name, versions);
  // The deletion holds. A share that cannot be taken back now is taken back before the name is used
  // again, and opens nothing until then.
  const absl::Status forgotten = ForgetShareOfGone(backend, record, ref.name);
  if (!forgotten.ok()) {
    LogLine(LogLevel::kWarning, "share_kept").Add("adapter", ref.name).Add("error", forgotten);
  }
  return absl::OkStatus();
}

absl::Status ForgetShareOfGone(const AdapterBackend& backend, const CallRecord& record,
                               absl::string_view name) {
  const AdapterCatalogue catalogue(backend.registry, backend.cache);
  return AdapterSharing(backend.registry, &catalogue, backend.directory)
      .ForgetDeleted(record.tenant(), name, record.audit_source());
}

absl::Status PromoteAlias(const AdapterBackend& backend, CallRecord& record,
                          const v1::PromoteRequest& request, v1::PromoteResponse& response) {
  TENON_RETURN_IF_ERROR(ValidateName("name", request.name()));
  AliasMove move;
  move.tenant = record.tenant();
  move.name = request.name();
  move.actor = record.identity().credential;
  TENON_ASSIGN_OR_RETURN(move.alias, AliasOf(request.alias()));
  TENON_ASSIGN_OR_RETURN(move.expected_version, ExpectedOf(request));
  TENON_ASSIGN_OR_RETURN(move.version, GoalOf(backend, record.tenant(), request));
  TENON_ASSIGN_OR_RETURN(const NameChange changed, backend.versions->Promote(std::move(move)));
  *response.mutable_change() = ToProto(changed.change);
  response.set_generation(changed.after.generation);
  NoteChange(request.name(), changed.change, record);
  return absl::OkStatus();
}

absl::Status RollbackAlias(const AdapterBackend& backend, CallRecord& record,
                           const v1::RollbackRequest& request, v1::RollbackResponse& response) {
  TENON_RETURN_IF_ERROR(ValidateName("name", request.name()));
  TENON_ASSIGN_OR_RETURN(const std::string alias, AliasOf(request.alias()));
  TENON_ASSIGN_OR_RETURN(const std::optional<int64_t> expected, ExpectedOf(request));
  TENON_ASSIGN_OR_RETURN(const NameChange changed,
                         backend.versions->Rollback(record.tenant(), request.name(), alias,
                                                    expected, record.identity().credential));
  *response.mutable_change() = ToProto(changed.change);
  response.set_generation(changed.after.generation);
  NoteChange(request.name(), changed.change, record);
  return absl::OkStatus();
}

absl::Status SetAdapterSplit(const AdapterBackend& backend, CallRecord& record,
                             const v1::SetSplitRequest& request, v1::SetSplitResponse& response) {
  record.Note("adapter", request.name());
  TENON_RETURN_IF_ERROR(ValidateName("name", request.name()));
  std::vector<SplitArm> split;
  for (const v1::SplitArm& arm : request.arms()) {
    const bool in_range = arm.percent() >= 0 && arm.percent() <= 100;  // NaN is not
    split.push_back(
        {arm.alias(), in_range ? static_cast<int32_t>(std::lround(arm.percent() * 100)) : -1});
  }
  TENON_ASSIGN_OR_RETURN(const NameChange changed,
                         backend.versions->SetSplit(record.tenant(), request.name(), split,
                                                    record.identity().credential));
  for (const SplitArm& arm : changed.after.pointers.split) {
    *response.add_arms() = tenon::ToProto(arm);
  }
  response.set_generation(changed.after.generation);
  return absl::OkStatus();
}

absl::Status GetAdapterHistory(const AdapterBackend& backend, CallRecord& record,
                               const v1::GetHistoryRequest& request,
                               v1::GetHistoryResponse& response) {
  record.Note("adapter", request.name());
  TENON_RETURN_IF_ERROR(ValidateName("name", request.name()));
  if (request.max_changes() < 0 || request.max_changes() > kMaxHistory) {
    return InvalidFieldError(
        "max_changes", absl::StrCat(request.max_changes(), " is not in [0, ", kMaxHistory, "]"));
  }
  const size_t limit = request.max_changes() == 0 ? kDefaultChanges : request.max_changes();
  TENON_ASSIGN_OR_RETURN(const std::vector<AliasChange> history,
                         backend.versions->History(record.tenant(), request.name()));
  if (history.empty()) {
    return ResourceNotFoundError(
        "ADAPTER_NOT_FOUND", request.name(),
        absl::StrCat("no adapter ", request.name(), " has ever been here"));
  }
  for (size_t i = 0; i < std::min(limit, history.size()); ++i) {
    *response.add_changes() = ToProto(history[history.size() - 1 - i]);
  }
  return absl::OkStatus();
}

}  // namespace tenon
