// ResidencyTest: a server whose residency a test looks at and changes.
#ifndef TENON_TESTS_INTEGRATION_RESIDENCY_FIXTURE_H_
#define TENON_TESTS_INTEGRATION_RESIDENCY_FIXTURE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "tenon/v1/residency.grpc.pb.h"
#include "tests/integration/server_fixture.h"

namespace tenon {

class ResidencyTest : public ServerTest {
 protected:
  void StartResidency(std::vector<std::string> flags = {}) {
    Start(std::move(flags));
    residency_ = v1::ResidencyService::NewStub(channel_);
  }
  /// Ends the server and starts it again over the same store: every adapter is cold.
  void Restart(std::vector<std::string> flags = {}) {
    server_.reset();
    StartResidency(std::move(flags));
  }

  /// The same, without a chance to tidy up.
  void KillAndRestart(std::vector<std::string> flags = {});
  /// Whether an adapter comes to that state by itself, within half a minute.
  bool Becomes(const std::string& name, v1::ResidencyState state);

  /// An unary call that names an adapter.
  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (v1::ResidencyService::Stub::*method)(grpc::ClientContext*,
                                                                       const Request&, Response*),
                    const std::string& adapter, v1::AdapterResidency* residency = nullptr) {
    grpc::ClientContext context;
    Request request;
    request.set_adapter(adapter);
    Response response;
    const grpc::Status status = ((*residency_).*method)(&context, request, &response);
    if (residency != nullptr) {
      *residency = response.residency();
    }
    return status;
  }
  grpc::Status SetMergeMode(const std::string& adapter, v1::MergeMode mode,
                            v1::AdapterResidency* residency = nullptr);
  v1::GetResidencyResponse Residency();
  v1::AdapterResidency ResidencyOf(const std::string& name);
  double Metric(const std::string& name) { return MetricValue(server_->HttpGet("/metrics"), name); }

  /// An upload that differs from the tiny adapter of that folder, and from others of another
  /// `variant`, in one number.
  void UploadVariant(const std::string& folder, const std::string& name, int variant);

  std::unique_ptr<v1::ResidencyService::Stub> residency_;
};

/// How one of many requests went.
struct RequestOutcome {
  grpc::Status status;
  absl::Duration first_token = absl::ZeroDuration();  // since it was sent
  std::vector<int> tokens;
};

/// Streams all requests, request i from `start[i]` on, and waits for all ends.
std::vector<RequestOutcome> StreamAll(const std::shared_ptr<grpc::Channel>& channel,
                                      const std::vector<v1::GenerateRequest>& requests,
                                      const std::vector<absl::Duration>& start);

/// A greedy request of `max_tokens` that goes on past the model's own ends.
v1::GenerateRequest GreedyRequest(const std::string& adapter, const std::string& prompt,
                                  int max_tokens);

}  // namespace tenon

#endif  // TENON_TESTS_INTEGRATION_RESIDENCY_FIXTURE_H_
