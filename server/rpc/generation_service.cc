#include "server/rpc/generation_service.h"

#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "server/rpc/generation_call.h"

namespace tenon {
namespace {

// Generate: one outstanding write, the rest waits in the outbox.
class StreamingCall final : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                            public GenerationCall {
 public:
  StreamingCall(const GenerationBackend* backend, const CallEnvironment* environment,
                const grpc::CallbackServerContext& context, SerialExecutor* writer)
      : GenerationCall(backend, environment, context, writer, "Generate") {}

  void OnWriteDone(bool ok) override {
    const bool more = write_.exchange(Write::kNone) == Write::kInFlightAndMore;
    if (ok && !more) {
      return;  // whoever has more posts a pump: most tokens need no second turn of the writer
    }
    Post([this, ok] {
      if (!ok) {
        generation()->Cancel(FinishReason::kCancelled);
      }
      Pump();
    });
  }
  void OnCancel() override { Cancel(); }
  void OnDone() override { Release(); }

 private:
  // The state of the one write. The writer alone begins it, gRPC ends it on a thread of its own.
  enum class Write { kNone, kInFlight, kInFlightAndMore };

  // Whether a write is in flight; its end then pumps.
  bool LeaveToWrite() {
    Write state = Write::kInFlight;
    return write_.compare_exchange_strong(state, Write::kInFlightAndMore) ||
           state == Write::kInFlightAndMore;
  }

  void Pump() override {
    if (finished_ || LeaveToWrite()) {
      return;
    }
    while (std::optional<TextChunk> chunk = generation()->Next()) {
      Count(*chunk);
      if (!responses().Write(*chunk, response_)) {
        continue;
      }
      write_ = generation()->has_more() ? Write::kInFlightAndMore : Write::kInFlight;
      if (generation()->finished()) {
        finished_ = true;
        StartWriteAndFinish(&response_, grpc::WriteOptions(), End());
      } else {
        StartWrite(&response_);
      }
      return;
    }
    if (generation()->finished()) {
      finished_ = true;
      Finish(End());
    }
  }
  void Fail(const grpc::Status& status) override { Finish(status); }

  v1::GenerateResponse response_;  // belongs to gRPC while a write is in flight
  std::atomic<Write> write_{Write::kNone};
  bool finished_ = false;
};

// GenerateOnce: gathers everything, answers at the end.
class UnaryCall final : public grpc::ServerUnaryReactor, public GenerationCall {
 public:
  UnaryCall(const GenerationBackend* backend, const CallEnvironment* environment,
            const grpc::CallbackServerContext& context, SerialExecutor* writer,
            v1::GenerateOnceResponse* response)
      : GenerationCall(backend, environment, context, writer, "GenerateOnce"),
        response_(response) {}

  void OnCancel() override { Cancel(); }
  void OnDone() override { Release(); }

 private:
  void Pump() override {
    if (finished_) {
      return;
    }
    while (response_->samples_size() < generation()->request().num_samples) {
      response_->add_samples();
    }
    while (std::optional<TextChunk> chunk = generation()->Next()) {
      Count(*chunk);
      responses().Append(*chunk, *response_);
    }
    if (generation()->finished()) {
      finished_ = true;
      Finish(End());
    }
  }
  void Fail(const grpc::Status& status) override { Finish(status); }

  v1::GenerateOnceResponse* const response_;
  bool finished_ = false;
};

absl::Status TokenizeInto(const GenerationBackend& backend, const v1::TokenizeRequest& request,
                          v1::TokenizeResponse& response) {
  std::string text;
  bool add_special_tokens = false;
  switch (request.input_case()) {
    case v1::TokenizeRequest::kText:
      TENON_RETURN_IF_ERROR(ValidateText("text", request.text(), backend.limits));
      text = request.text();
      add_special_tokens = !request.has_add_special_tokens() || request.add_special_tokens();
      break;
    case v1::TokenizeRequest::kChat: {
      TENON_ASSIGN_OR_RETURN(const ChatPrompt chat, ToChatPrompt(request.chat(), backend.limits));
      TENON_ASSIGN_OR_RETURN(text,
                             backend.tokenizer->RenderChat(chat.turns, chat.add_generation_prompt));
      break;
    }
    case v1::TokenizeRequest::INPUT_NOT_SET:
      return InvalidFieldError("input", "one of text and chat must be set");
  }
  TENON_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                         backend.tokenizer->Encode(text, add_special_tokens));
  for (const int32_t id : ids) {
    response.add_ids(id);
    response.add_tokens(backend.tokenizer->TokenText(id));
  }
  return absl::OkStatus();
}

absl::Status DetokenizeInto(const GenerationBackend& backend, const v1::DetokenizeRequest& request,
                            v1::DetokenizeResponse& response) {
  TENON_RETURN_IF_ERROR(
      ValidateTokenIds("ids", request.ids(), backend.limits.max_text_bytes, backend.limits));
  const bool skip = !request.has_skip_special_tokens() || request.skip_special_tokens();
  const std::vector<int32_t> ids(request.ids().begin(), request.ids().end());
  TENON_ASSIGN_OR_RETURN(*response.mutable_text(), backend.tokenizer->Decode(ids, skip));
  return absl::OkStatus();
}

// A call that is answered on the spot: `answer` gives its status, and is not asked for a caller who
// may not have one.
template <typename MakeAnswer>
grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context,
                                 const CallEnvironment& environment, absl::string_view method,
                                 MakeAnswer answer) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  CallRecord record(&environment, *context, method);
  reactor->Finish(record.End(record.admission().ok() ? answer() : record.admission()));
  return reactor;
}

}  // namespace

GenerationService::GenerationService(GenerationBackend backend, CallEnvironment environment)
    : backend_(std::move(backend)), environment_(std::move(environment)) {}

GenerationService::~GenerationService() = default;

grpc::ServerWriteReactor<v1::GenerateResponse>* GenerationService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  auto call = std::make_shared<StreamingCall>(&backend_, &environment_, *context, &writer_);
  StreamingCall* const reactor = call.get();
  reactor->Begin(*context, *request);
  return reactor;
}

grpc::ServerUnaryReactor* GenerationService::GenerateOnce(grpc::CallbackServerContext* context,
                                                          const v1::GenerateRequest* request,
                                                          v1::GenerateOnceResponse* response) {
  auto call = std::make_shared<UnaryCall>(&backend_, &environment_, *context, &writer_, response);
  UnaryCall* const reactor = call.get();
  reactor->Begin(*context, *request);
  return reactor;
}

grpc::ServerUnaryReactor* GenerationService::Tokenize(grpc::CallbackServerContext* context,
                                                      const v1::TokenizeRequest* request,
                                                      v1::TokenizeResponse* response) {
  return Answer(context, environment_, "Tokenize",
                [&] { return TokenizeInto(backend_, *request, *response); });
}

grpc::ServerUnaryReactor* GenerationService::Detokenize(grpc::CallbackServerContext* context,
                                                        const v1::DetokenizeRequest* request,
                                                        v1::DetokenizeResponse* response) {
  return Answer(context, environment_, "Detokenize",
                [&] { return DetokenizeInto(backend_, *request, *response); });
}

grpc::ServerUnaryReactor* GenerationService::GetModel(grpc::CallbackServerContext* context,
                                                      const v1::GetModelRequest*,
                                                      v1::GetModelResponse* response) {
  return Answer(context, environment_, "GetModel", [&] {
    *response = backend_.model;
    return absl::OkStatus();
  });
}

}  // namespace tenon
