// The calls about versions in a line each, from text protos.
#ifndef TENON_TESTS_INTEGRATION_VERSION_CALLS_H_
#define TENON_TESTS_INTEGRATION_VERSION_CALLS_H_

#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>

#include "tenon/v1/adapters.grpc.pb.h"
#include "tests/integration/server_fixture.h"

namespace tenon {

template <typename Response>
struct Called {
  grpc::Status status;
  Response response;
};

/// Calls of one stub, which is borrowed.
class VersionCalls {
 public:
  using Stub = v1::AdapterService::Stub;
  explicit VersionCalls(Stub* stub) : stub_(stub) {}

  Called<v1::PromoteResponse> Promote(const std::string& request) {
    return Call<v1::PromoteRequest>(&Stub::Promote, request);
  }
  Called<v1::RollbackResponse> Rollback(const std::string& request) {
    return Call<v1::RollbackRequest>(&Stub::Rollback, request);
  }
  Called<v1::SetSplitResponse> Split(const std::string& request) {
    return Call<v1::SetSplitRequest>(&Stub::SetSplit, request);
  }
  Called<v1::GetHistoryResponse> History(const std::string& request) {
    return Call<v1::GetHistoryRequest>(&Stub::GetHistory, request);
  }
  Called<v1::DeleteAdapterResponse> Delete(const std::string& request) {
    return Call<v1::DeleteAdapterRequest>(&Stub::DeleteAdapter, request);
  }
  Called<v1::GetAdapterResponse> Get(const std::string& adapter) {
    return Call<v1::GetAdapterRequest>(&Stub::GetAdapter, "adapter: '" + adapter + "'");
  }

 private:
  template <typename Request, typename Response>
  Called<Response> Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                     Response*),
                        const std::string& text) {
    grpc::ClientContext context;
    Called<Response> called;
    called.status = (stub_->*method)(&context, ParseProto<Request>(text), &called.response);
    return called;
  }

  Stub* const stub_;
};

/// One WatchAdapters, ended by the destructor.
class Watcher {
 public:
  explicit Watcher(v1::AdapterService::Stub* stub, int64_t after_generation = 0) {
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    v1::WatchAdaptersRequest request;
    request.set_after_generation(after_generation);
    reader_ = stub->WatchAdapters(&context_, request);
  }
  ~Watcher() {
    context_.TryCancel();
    End();
  }

  /// Waits for the next message.
  v1::WatchAdaptersResponse Next() {
    v1::WatchAdaptersResponse message;
    EXPECT_TRUE(reader_->Read(&message)) << "the watch has ended";
    return message;
  }
  /// Reads to the end.
  grpc::Status End() {
    if (reader_ == nullptr) {
      return grpc::Status::OK;
    }
    v1::WatchAdaptersResponse message;
    while (reader_->Read(&message)) {
    }
    const grpc::Status status = reader_->Finish();
    reader_.reset();
    return status;
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::WatchAdaptersResponse>> reader_;
};

/// Bit rot: changes the last byte of the stored weights of `files`.
inline void FlipByteOfLargestBlob(const std::string& store,
                                  const std::map<std::string, std::string>& files) {
  const std::string& weights = files.at("adapter_model.safetensors");
  for (const auto& entry : std::filesystem::directory_iterator(store + "/blobs/sha256")) {
    if (ReadFile(entry.path().string()) == weights) {
      std::string rotten = weights;
      rotten.back() ^= 1;
      std::ofstream(entry.path(), std::ios::binary | std::ios::trunc) << rotten;
      return;
    }
  }
  ADD_FAILURE() << "no blob holds the weights";
}

}  // namespace tenon

#endif  // TENON_TESTS_INTEGRATION_VERSION_CALLS_H_
