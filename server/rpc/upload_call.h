// UploadCall: one UploadAdapter, message by message.
#ifndef TENON_SERVER_RPC_UPLOAD_CALL_H_
#define TENON_SERVER_RPC_UPLOAD_CALL_H_

#include <grpcpp/alarm.h>
#include <grpcpp/server_context.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "server/engine/acceptance.h"
#include "server/rpc/adapter_service.h"
#include "server/rpc/call_record.h"
#include "server/rpc/serial_executor.h"
#include "server/rpc/upload_order.h"

namespace tenon {

/// Reads a message, has the worker take it, reads the next; after the last one the acceptance runs
/// on the engine, while the worker is free for others. What an upload has staged is dropped on the
/// worker, however it ends.
///
/// Threads: OnReadDone, OnCancel, OnDone on gRPC's; all else on the worker.
class UploadCall final : public grpc::ServerReadReactor<v1::UploadAdapterRequest>,
                         public std::enable_shared_from_this<UploadCall> {
 public:
  /// `num_uploads` counts the calls in flight, this one included, and is lowered at its end.
  UploadCall(const AdapterBackend* backend, const CallEnvironment* environment,
             const grpc::CallbackServerContext& context, SerialExecutor* worker,
             std::atomic<int64_t>* num_uploads, v1::UploadAdapterResponse* response);
  ~UploadCall() override;

  /// Begins to read, or refuses: a caller who may not, or when `num_uploads` is over the limit.
  void Begin();

  void OnReadDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  void Post(absl::AnyInvocable<void()> task);
  void ReadNext();
  void TakeMessage(bool ok);
  absl::Status Store(const v1::UploadAdapterRequest& message);
  // Whether the tenant's quotas leave room for what has arrived.
  absl::Status CheckQuotas() const;
  // Validates and compiles, then starts the acceptance, which ends in FinishAcceptance.
  absl::Status BeginAcceptance(const v1::UploadDigest& digest);
  void FinishAcceptance();
  absl::Status Publish();
  CommitOrder MakeOrder() const;
  std::string AuditObject() const;
  void End(const absl::Status& status);

  const AdapterBackend* const backend_;
  SerialExecutor* const worker_;
  std::atomic<int64_t>* const num_uploads_;
  v1::UploadAdapterResponse* const response_;
  CallRecord record_;
  std::shared_ptr<UploadCall> self_;
  std::atomic<bool> cancelled_ = false;

  v1::UploadAdapterRequest message_;  // gRPC's while a read is in flight, else the worker's
  UploadOrder order_;
  int64_t num_bytes_ = 0;
  std::unique_ptr<StagedUpload> staged_;
  std::optional<AdapterCandidate> candidate_;  // while its acceptance runs
  std::shared_ptr<AcceptanceRun> acceptance_;
  std::unique_ptr<grpc::Alarm> idle_alarm_;
  bool ended_ = false;
};

}  // namespace tenon

#endif  // TENON_SERVER_RPC_UPLOAD_CALL_H_
