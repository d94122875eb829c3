// AdapterService: adapters.proto over the publisher and the registry.
#ifndef TENON_SERVER_RPC_ADAPTER_SERVICE_H_
#define TENON_SERVER_RPC_ADAPTER_SERVICE_H_

#include <atomic>
#include <cstdint>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "adapters/registry/adapter_registry.h"
#include "adapters/residency/adapter_cache.h"
#include "adapters/residency/adapter_publisher.h"
#include "adapters/store/adapter_versions.h"
#include "server/engine/acceptance.h"
#include "server/rpc/adapter_catalogue.h"
#include "server/rpc/adapter_sharing.h"
#include "server/rpc/call_record.h"
#include "server/rpc/request_validation.h"
#include "server/rpc/serial_executor.h"
#include "server/rpc/watch_room.h"
#include "server/tenant/tenant_directory.h"
#include "tenon/v1/adapters.grpc.pb.h"

namespace tenon {

/// What the service works with. Pointers are borrowed and outlive it.
struct AdapterBackend {
  AdapterPublisher* publisher = nullptr;
  AdapterVersions* versions = nullptr;
  AdapterRegistry* registry = nullptr;
  AdapterCache* cache = nullptr;
  TenantDirectory* directory = nullptr;   ///< for its audit log
  AcceptanceRun::Environment acceptance;  ///< where uploads are tried before they go live
  RequestLimits limits;                   ///< of probes
  /// Uploads at the same time; further ones are refused with a retry time.
  int64_t max_concurrent_uploads = 8;
  /// An upload whose next message takes longer is dropped.
  absl::Duration upload_idle_timeout = absl::Seconds(60);
};

/// Disk, hashing and compiling happen on one worker thread of the service, an upload's next message
/// is read when the last one has been written: a fast uploader waits for the disk, not in memory.
/// Changes of aliases have a worker of their own, so that a rollback waits for no upload, and so
/// have the watchers.
///
/// Thread-safe. Outlives the gRPC server that it is registered with.
class AdapterService final : public v1::AdapterService::CallbackService {
 public:
  AdapterService(AdapterBackend backend, CallEnvironment environment);
  ~AdapterService() override;

  grpc::ServerReadReactor<v1::UploadAdapterRequest>* UploadAdapter(
      grpc::CallbackServerContext* context, v1::UploadAdapterResponse* response) override;
  grpc::ServerUnaryReactor* ListAdapters(grpc::CallbackServerContext* context,
                                         const v1::ListAdaptersRequest* request,
                                         v1::ListAdaptersResponse* response) override;
  grpc::ServerUnaryReactor* GetAdapter(grpc::CallbackServerContext* context,
                                       const v1::GetAdapterRequest* request,
                                       v1::GetAdapterResponse* response) override;
  grpc::ServerUnaryReactor* DeleteAdapter(grpc::CallbackServerContext* context,
                                          const v1::DeleteAdapterRequest* request,
                                          v1::DeleteAdapterResponse* response) override;
  grpc::ServerUnaryReactor* Promote(grpc::CallbackServerContext* context,
                                    const v1::PromoteRequest* request,
                                    v1::PromoteResponse* response) override;
  grpc::ServerUnaryReactor* Rollback(grpc::CallbackServerContext* context,
                                     const v1::RollbackRequest* request,
                                     v1::RollbackResponse* response) override;
  grpc::ServerUnaryReactor* SetSplit(grpc::CallbackServerContext* context,
                                     const v1::SetSplitRequest* request,
                                     v1::SetSplitResponse* response) override;
  grpc::ServerUnaryReactor* GetHistory(grpc::CallbackServerContext* context,
                                       const v1::GetHistoryRequest* request,
                                       v1::GetHistoryResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchAdaptersResponse>* WatchAdapters(
      grpc::CallbackServerContext* context, const v1::WatchAdaptersRequest* request) override;
  grpc::ServerUnaryReactor* SetAdapterVisibility(
      grpc::CallbackServerContext* context, const v1::SetAdapterVisibilityRequest* request,
      v1::SetAdapterVisibilityResponse* response) override;
  grpc::ServerUnaryReactor* GetAdapterVisibility(
      grpc::CallbackServerContext* context, const v1::GetAdapterVisibilityRequest* request,
      v1::GetAdapterVisibilityResponse* response) override;
  grpc::ServerUnaryReactor* ListSharedAdapters(grpc::CallbackServerContext* context,
                                               const v1::ListSharedAdaptersRequest* request,
                                               v1::ListSharedAdaptersResponse* response) override;

  grpc::ServerUnaryReactor* Refresh(grpc::CallbackServerContext* context,
                                    const v1::RefreshRequest* request,
                                    v1::RefreshResponse* response) override;

  /// Ends the watchers, which would go on for ever, with UNAVAILABLE; later ones end at once.
  void Drain();

 private:
  // Runs `answer` on `changes_`, unless the caller may not, and writes it into the audit log.
  template <typename Request, typename Response>
  grpc::ServerUnaryReactor* Change(grpc::CallbackServerContext* context, const char* method,
                                   absl::Status (*answer)(const AdapterBackend&, CallRecord&,
                                                          const Request&, Response&),
                                   const Request* request, Response* response);

  // Runs `work` on `changes_`, unless the caller may not.
  grpc::ServerUnaryReactor* Run(grpc::CallbackServerContext* context, absl::string_view method,
                                absl::AnyInvocable<absl::Status(CallRecord&)> work);

  const AdapterBackend backend_;
  const CallEnvironment environment_;
  const AdapterCatalogue catalogue_;
  const AdapterSharing sharing_;
  std::atomic<int64_t> num_uploads_ = 0;
  WatchRoom watch_room_;
  // Last: their tasks use what is above.
  SerialExecutor worker_, changes_, watches_;
};

}  // namespace tenon

#endif  // TENON_SERVER_RPC_ADAPTER_SERVICE_H_
