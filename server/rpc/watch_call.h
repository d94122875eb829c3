// WatchCall: one WatchAdapters, from the full set to the last change.
#ifndef TENON_SERVER_RPC_WATCH_CALL_H_
#define TENON_SERVER_RPC_WATCH_CALL_H_

#include <grpcpp/server_context.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "server/rpc/adapter_service.h"
#include "server/rpc/call_record.h"
#include "server/rpc/serial_executor.h"
#include "server/rpc/watch_room.h"

namespace tenon {

/// Compares what the client has been sent with what the registry holds, whenever that has changed
/// and the last message has left: a slow reader costs one set of messages, whatever happens
/// meanwhile, and then gets the newest state. It holds no version, so that those that are deleted
/// drain.
///
/// Threads: OnWriteDone, OnCancel, OnDone on gRPC's; all else on the worker.
class WatchCall final : public grpc::ServerWriteReactor<v1::WatchAdaptersResponse>,
                        public std::enable_shared_from_this<WatchCall> {
 public:
  /// All pointers are borrowed and outlive the call.
  WatchCall(const AdapterBackend* backend, const CallEnvironment* environment,
            const grpc::CallbackServerContext& context, SerialExecutor* worker, WatchRoom* room);
  ~WatchCall() override;

  void Begin(const v1::WatchAdaptersRequest& request);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  // What a name looked like when it was sent: its generation and how many versions were damaged.
  using Mark = std::pair<int64_t, size_t>;

  void Post(absl::AnyInvocable<void()> task);
  absl::Status Enter(const v1::WatchAdaptersRequest& request);
  void Pump();
  // Makes the messages that take the client from what it knows to what is.
  void Compare();
  void End(const absl::Status& status);

  const AdapterBackend* const backend_;
  SerialExecutor* const worker_;
  WatchRoom* const room_;
  CallRecord record_;
  std::shared_ptr<WatchCall> self_;
  uint64_t ticket_ = 0;
  std::shared_ptr<void> subscription_;
  std::atomic<bool> pump_posted_ = false;

  bool reset_ = true;  // the next comparison begins a full set
  std::map<std::string, Mark> known_;
  std::deque<v1::WatchAdaptersResponse> pending_;
  v1::WatchAdaptersResponse message_;  // gRPC's while a write is in flight
  bool write_in_flight_ = false;
  bool ended_ = false;
};

}  // namespace tenon

#endif  // TENON_SERVER_RPC_WATCH_CALL_H_
