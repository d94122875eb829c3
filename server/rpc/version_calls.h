// The calls of adapters.proto that change what names mean: messages -> AdapterVersions -> messages.
#ifndef TENON_SERVER_RPC_VERSION_CALLS_H_
#define TENON_SERVER_RPC_VERSION_CALLS_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/rpc/adapter_service.h"
#include "server/rpc/call_record.h"
#include "tenon/v1/adapters.pb.h"

namespace tenon {

/// Each does one call for an admitted caller, on a worker: they do I/O. They note in the record
/// what the log should say. Errors are those that adapters.proto documents.
absl::Status DeleteAdapter(const AdapterBackend& backend, CallRecord& record,
                           const v1::DeleteAdapterRequest& request,
                           v1::DeleteAdapterResponse& response);
/// Takes back what was shared of a name that has no versions any more. No effect on one that has.
absl::Status ForgetShareOfGone(const AdapterBackend& backend, const CallRecord& record,
                               absl::string_view name);
absl::Status PromoteAlias(const AdapterBackend& backend, CallRecord& record,
                          const v1::PromoteRequest& request, v1::PromoteResponse& response);
absl::Status RollbackAlias(const AdapterBackend& backend, CallRecord& record,
                           const v1::RollbackRequest& request, v1::RollbackResponse& response);
absl::Status SetAdapterSplit(const AdapterBackend& backend, CallRecord& record,
                             const v1::SetSplitRequest& request, v1::SetSplitResponse& response);
absl::Status GetAdapterHistory(const AdapterBackend& backend, CallRecord& record,
                               const v1::GetHistoryRequest& request,
                               v1::GetHistoryResponse& response);

}  // namespace tenon

#endif  // TENON_SERVER_RPC_VERSION_CALLS_H_
