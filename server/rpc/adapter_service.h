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
#include "server/rpc/adapter_catalogue.h"
#include "server/rpc/adapter_sharing.h"
#include "server/rpc/call_record.h"
#include "server/rpc/serial_executor.h"
#include "tenon/v1/adapters.grpc.pb.h"

namespace tenon {

/// What the service works with. Pointers are borrowed and outlive it.
struct AdapterBackend {
  AdapterPublisher* publisher = nullptr;
  AdapterRegistry* registry = nullptr;
  AdapterCache* cache = nullptr;
  /// Uploads at the same time; further ones are refused with a retry time.
  int64_t max_concurrent_uploads = 8;
  /// An upload whose next message takes longer is dropped.
  absl::Duration upload_idle_timeout = absl::Seconds(60);
};

/// Disk, hashing and compiling happen on one worker thread of the service, an upload's next message
/// is read when the last one has been written: a fast uploader waits for the disk, not in memory.
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
  grpc::ServerUnaryReactor* SetAdapterVisibility(
      grpc::CallbackServerContext* context, const v1::SetAdapterVisibilityRequest* request,
      v1::SetAdapterVisibilityResponse* response) override;
  grpc::ServerUnaryReactor* GetAdapterVisibility(
      grpc::CallbackServerContext* context, const v1::GetAdapterVisibilityRequest* request,
      v1::GetAdapterVisibilityResponse* response) override;
  grpc::ServerUnaryReactor* ListSharedAdapters(grpc::CallbackServerContext* context,
                                               const v1::ListSharedAdaptersRequest* request,
                                               v1::ListSharedAdaptersResponse* response) override;

 private:
  // Has the worker do `work` for a caller who may, and ends the call with what came of it.
  grpc::ServerUnaryReactor* Post(grpc::CallbackServerContext* context, absl::string_view method,
                                 absl::AnyInvocable<absl::Status(CallRecord&)> work);

  const AdapterBackend backend_;
  const CallEnvironment environment_;
  const AdapterCatalogue catalogue_;
  const AdapterSharing sharing_;
  std::atomic<int64_t> num_uploads_ = 0;
  SerialExecutor worker_;  // last: its tasks use what is above
};

}  // namespace tenon

#endif  // TENON_SERVER_RPC_ADAPTER_SERVICE_H_
