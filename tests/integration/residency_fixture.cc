#include "tests/integration/residency_fixture.h"

#include <signal.h>

#include <cstring>
#include <thread>
#include <utility>

#include "absl/synchronization/blocking_counter.h"
#include "absl/time/clock.h"

namespace tenon {
namespace {

// One Generate by callbacks, so that hundreds need no threads.
class StreamCall final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  StreamCall(v1::GenerationService::Stub* stub, const v1::GenerateRequest& request,
             RequestOutcome* outcome, absl::BlockingCounter* open)
      : outcome_(outcome), open_(open), begin_(absl::Now()) {
    stub->async()->Generate(&context_, &request, this);
    StartRead(&message_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      return;
    }
    if (message_.token_ids_size() > 0 && outcome_->tokens.empty()) {
      outcome_->first_token = absl::Now() - begin_;
    }
    outcome_->tokens.insert(outcome_->tokens.end(), message_.token_ids().begin(),
                            message_.token_ids().end());
    StartRead(&message_);
  }
  void OnDone(const grpc::Status& status) override {
    outcome_->status = status;
    open_->DecrementCount();
  }

 private:
  grpc::ClientContext context_;
  v1::GenerateResponse message_;
  RequestOutcome* const outcome_;
  absl::BlockingCounter* const open_;
  const absl::Time begin_;
};

}  // namespace

void ResidencyTest::KillAndRestart(std::vector<std::string> flags) {
  server_->Signal(SIGKILL);
  server_->Wait();
  StartResidency(std::move(flags));
}

bool ResidencyTest::Becomes(const std::string& name, v1::ResidencyState state) {
  const absl::Time give_up = absl::Now() + absl::Seconds(30);
  while (ResidencyOf(name).state() != state) {
    if (absl::Now() > give_up) {
      return false;
    }
    absl::SleepFor(absl::Milliseconds(5));
  }
  return true;
}

grpc::Status ResidencyTest::SetMergeMode(const std::string& adapter, v1::MergeMode mode,
                                         v1::AdapterResidency* residency) {
  grpc::ClientContext context;
  v1::SetMergeModeRequest request;
  request.set_adapter(adapter);
  request.set_mode(mode);
  v1::SetMergeModeResponse response;
  const grpc::Status status = residency_->SetMergeMode(&context, request, &response);
  if (residency != nullptr) {
    *residency = response.residency();
  }
  return status;
}

v1::GetResidencyResponse ResidencyTest::Residency() {
  grpc::ClientContext context;
  v1::GetResidencyResponse response;
  const grpc::Status status = residency_->GetResidency(&context, {}, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response;
}

v1::AdapterResidency ResidencyTest::ResidencyOf(const std::string& name) {
  const v1::GetResidencyResponse response = Residency();
  for (const v1::AdapterResidency& adapter : response.adapters()) {
    if (adapter.name() == name) {
      return adapter;
    }
  }
  ADD_FAILURE() << "no adapter " << name;
  return {};
}

void ResidencyTest::UploadVariant(const std::string& folder, const std::string& name, int variant) {
  std::map<std::string, std::string> files = TinyAdapterFiles(folder);
  std::string& tensors = files["adapter_model.safetensors"];
  const float number = 1e-3f * static_cast<float>(variant + 1);
  std::memcpy(tensors.data() + tensors.size() - sizeof(number), &number, sizeof(number));
  v1::UploadAdapterResponse response;
  const grpc::Status status = Upload(UploadMessages(name, files), &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
}

std::vector<RequestOutcome> StreamAll(const std::shared_ptr<grpc::Channel>& channel,
                                      const std::vector<v1::GenerateRequest>& requests,
                                      const std::vector<absl::Duration>& start) {
  const auto stub = v1::GenerationService::NewStub(channel);
  std::vector<RequestOutcome> outcomes(requests.size());
  absl::BlockingCounter open(static_cast<int>(requests.size()));
  std::vector<std::unique_ptr<StreamCall>> calls;
  const absl::Time begin = absl::Now();
  for (size_t i = 0; i < requests.size(); ++i) {
    absl::SleepFor(begin + start[i] - absl::Now());  // the load's own clock, nothing waited for
    calls.push_back(std::make_unique<StreamCall>(stub.get(), requests[i], &outcomes[i], &open));
  }
  open.Wait();
  return outcomes;
}

v1::GenerateRequest GreedyRequest(const std::string& adapter, const std::string& prompt,
                                  int max_tokens) {
  v1::GenerateRequest request;
  request.set_adapter(adapter);
  request.set_prompt(prompt);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_tokens(max_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_output()->set_token_ids(true);
  return request;
}

}  // namespace tenon
