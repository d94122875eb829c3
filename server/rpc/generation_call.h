// GenerationCall: the part of a generation call that does not depend on how its answer is sent.
#ifndef TENON_SERVER_RPC_GENERATION_CALL_H_
#define TENON_SERVER_RPC_GENERATION_CALL_H_

#include <grpcpp/server_context.h>

#include <atomic>
#include <memory>

#include "absl/status/status.h"
#include "server/rpc/call_record.h"
#include "server/rpc/generation_service.h"
#include "server/rpc/response_conversion.h"
#include "server/rpc/serial_executor.h"

namespace tenon {

/// One call of Generate or GenerateOnce. The reactor that derives from it keeps itself alive with
/// Begin() and lets go with Release() in OnDone; tasks and callbacks hold further claims.
///
/// Threads: Begin on gRPC's thread; on_readable on the engine thread, which only posts; Pump and
/// every other use of the generation on the service's writer.
class GenerationCall : public std::enable_shared_from_this<GenerationCall> {
 public:
  virtual ~GenerationCall() = default;
  GenerationCall(const GenerationCall&) = delete;
  GenerationCall& operator=(const GenerationCall&) = delete;

  /// Checks and submits the request, then leads to Pump; or to Fail, on this thread.
  void Begin(const grpc::CallbackServerContext& context, const v1::GenerateRequest& request);

 protected:
  GenerationCall(const GenerationBackend* backend, const CallEnvironment* environment,
                 const grpc::CallbackServerContext& context, SerialExecutor* writer,
                 absl::string_view method)
      : backend_(backend), writer_(writer), record_(environment, context, method) {}

  /// On the writer, whenever there may be something to read. generation() is there.
  virtual void Pump() = 0;
  /// Ends the call before it began.
  virtual void Fail(const grpc::Status& status) = 0;

  /// Posts `task` with a claim on this call.
  void Post(absl::AnyInvocable<void()> task);
  /// From OnCancel: the client is gone or its deadline has passed.
  void Cancel();
  /// From OnDone: the last thing that happens to a call.
  void Release() { self_.reset(); }

  TextGeneration* generation() { return generation_.get(); }
  const ResponseWriter& responses() const { return *responses_; }
  /// Counts a sample that has ended.
  void Count(const TextChunk& chunk);
  /// The call's end, once: what the client gets.
  grpc::Status End();

 private:
  // Asks the tenant's quotas, and caps request.sampling.max_tokens by them.
  absl::StatusOr<RequestTicket> TakeTicket(TextRequest& request);
  void RecordUsage();
  absl::Status Submit(const grpc::CallbackServerContext& context,
                      const v1::GenerateRequest& request);
  void Install(std::unique_ptr<TextGeneration> generation, bool with_token_ids);
  void PumpOnce();

  const GenerationBackend* const backend_;
  SerialExecutor* const writer_;
  CallRecord record_;
  std::shared_ptr<GenerationCall> self_;
  std::atomic<bool> pump_posted_ = false;

  // On the writer only.
  std::unique_ptr<TextGeneration> generation_;
  std::unique_ptr<ResponseWriter> responses_;
  bool cancelled_ = false;
  RequestTicket ticket_;
  UsageTotals usage_;
};

/// The share of the batch that a tenant's limits give it.
TenantShare ShareOf(const TenantLimits& limits);

}  // namespace tenon

#endif  // TENON_SERVER_RPC_GENERATION_CALL_H_
