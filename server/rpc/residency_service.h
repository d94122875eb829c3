// ResidencyService: residency.proto over the tiers of residency.
#ifndef TENON_SERVER_RPC_RESIDENCY_SERVICE_H_
#define TENON_SERVER_RPC_RESIDENCY_SERVICE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "adapters/registry/adapter_registry.h"
#include "server/rpc/call_record.h"
#include "server/rpc/placements.h"
#include "server/rpc/residency_report.h"
#include "server/rpc/serial_executor.h"
#include "tenon/v1/residency.grpc.pb.h"

namespace tenon {

/// What the service works with. Pointers are borrowed and outlive it.
struct ResidencyBackend {
  const AdapterRegistry* registry = nullptr;
  ResidencyTiers tiers;
  std::function<void()> wake_engine;  ///< when room for adapters may have come
  /// Bytes of adapters that a tenant may pin; 0: no limit of its own.
  std::function<int64_t(absl::string_view tenant)> pinned_limit;
  TenantDirectory* directory = nullptr;  ///< keeps pins and merge modes, and the audit log
};

/// Nothing waits on gRPC's threads. A change begins and ends on the service's worker, which writes
/// what is kept of it and its audit entry: what takes something away is on disk before it is done,
/// what loads or merges after it, and is undone when it cannot be kept.
///
/// Thread-safe. Outlives the gRPC server that it is registered with, and that ends before the
/// tiers.
class ResidencyService final : public v1::ResidencyService::CallbackService {
 public:
  ResidencyService(ResidencyBackend backend, CallEnvironment environment);

  grpc::ServerUnaryReactor* LoadAdapter(grpc::CallbackServerContext* context,
                                        const v1::LoadAdapterRequest* request,
                                        v1::LoadAdapterResponse* response) override;
  grpc::ServerUnaryReactor* UnloadAdapter(grpc::CallbackServerContext* context,
                                          const v1::UnloadAdapterRequest* request,
                                          v1::UnloadAdapterResponse* response) override;
  grpc::ServerUnaryReactor* PinAdapter(grpc::CallbackServerContext* context,
                                       const v1::PinAdapterRequest* request,
                                       v1::PinAdapterResponse* response) override;
  grpc::ServerUnaryReactor* UnpinAdapter(grpc::CallbackServerContext* context,
                                         const v1::UnpinAdapterRequest* request,
                                         v1::UnpinAdapterResponse* response) override;
  grpc::ServerUnaryReactor* SetMergeMode(grpc::CallbackServerContext* context,
                                         const v1::SetMergeModeRequest* request,
                                         v1::SetMergeModeResponse* response) override;
  grpc::ServerUnaryReactor* GetResidency(grpc::CallbackServerContext* context,
                                         const v1::GetResidencyRequest* request,
                                         v1::GetResidencyResponse* response) override;

 private:
  using Done = absl::AnyInvocable<void(absl::Status)>;

  /// A change, in three parts; the first and the last may be empty and run on the worker. They
  /// leave the audit entry of a success to KeepPlacement when `keeps`.
  struct Change {
    std::function<absl::Status(const AdapterHandle&, const AuditSource&)> before;
    std::function<void(const AdapterHandle&, Done)> work;  ///< ends on any thread
    std::function<absl::Status(const AdapterHandle&, const AuditSource&, absl::Status)> after;
    bool keeps = true;
  };

  /// A call that was admitted.
  struct Call {
    std::shared_ptr<CallRecord> record;
    grpc::ServerUnaryReactor* reactor;
    std::string adapter;                               ///< as the request names it
    std::function<void(const AdapterHandle&)> answer;  ///< writes the response
  };

  /// Admits the call, finds its adapter, makes the change, and answers with what that left behind.
  template <typename Request, typename Response>
  grpc::ServerUnaryReactor* Run(grpc::CallbackServerContext* context, absl::string_view method,
                                const Request* request, Response* response, Change change);
  // Its steps, on the worker: until the work, after it, and the end of either.
  void Begin(const Call& call, const Change& change);
  void Complete(const Call& call, const Change& change, const AdapterHandle& adapter,
                const absl::Status& outcome);
  void End(const Call& call, const std::string& object, const absl::Status& status, bool audited);
  absl::StatusOr<AdapterHandle> Find(const Call& call) const;
  /// The parts of SetMergeMode(ALWAYS), and of the modes that merge nothing.
  Change MergeAlways() const;
  Change MergeNotAlways(MergeMode mode) const;
  absl::Status Keep(const AdapterHandle& adapter, const PlacementChange& change,
                    const AuditSource& source) const {
    return KeepPlacement(*backend_.directory, adapter.id(), change, source);
  }
  /// Whether the tenant's limit lets it pin this one beside those that it has pinned.
  absl::Status CheckPinnedLimit(const AdapterHandle& adapter) const;
  /// The outcome of a load that has ended.
  absl::Status LoadStatus(const AdapterHandle& adapter) const;

  const ResidencyBackend backend_;
  const CallEnvironment environment_;
  const ResidencyReport report_;
  SerialExecutor worker_;  // last: its tasks use everything above
};

}  // namespace tenon

#endif  // TENON_SERVER_RPC_RESIDENCY_SERVICE_H_
