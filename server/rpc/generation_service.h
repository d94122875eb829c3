// GenerationService: generation.proto over the engine.
#ifndef TENON_SERVER_RPC_GENERATION_SERVICE_H_
#define TENON_SERVER_RPC_GENERATION_SERVICE_H_

#include <memory>

#include "server/engine/text_generation.h"
#include "server/rpc/call_record.h"
#include "server/rpc/request_validation.h"
#include "server/rpc/serial_executor.h"
#include "server/tokenizer/tokenizer.h"
#include "tenon/v1/generation.grpc.pb.h"

namespace tenon {

/// What the service works with. All pointers are borrowed and outlive it.
struct GenerationBackend {
  TextGenerator* generator = nullptr;
  const Tokenizer* tokenizer = nullptr;
  RequestLimits limits;
  v1::GetModelResponse model;  ///< the answer of GetModel
};

/// One reactor per call. Requests are checked, tokenized and submitted on gRPC's callback threads;
/// tokens become text and messages on one thread of the service, so that neither the engine thread
/// nor a poller does that work, and a call's state needs no lock. One write is outstanding at a
/// time; what arrives meanwhile is joined into the next.
///
/// Thread-safe. Outlives the gRPC server that it is registered with.
class GenerationService final : public v1::GenerationService::CallbackService {
 public:
  GenerationService(GenerationBackend backend, CallEnvironment environment);
  ~GenerationService() override;

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* GenerateOnce(grpc::CallbackServerContext* context,
                                         const v1::GenerateRequest* request,
                                         v1::GenerateOnceResponse* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const v1::GetModelRequest* request,
                                     v1::GetModelResponse* response) override;

 private:
  const GenerationBackend backend_;
  const CallEnvironment environment_;
  SerialExecutor writer_;  // last: its tasks use what is above
};

}  // namespace tenon

#endif  // TENON_SERVER_RPC_GENERATION_SERVICE_H_
