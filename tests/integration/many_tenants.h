// ManyTenantsTest: a server that starts with any number of tenants, each with a key.
#ifndef TENON_TESTS_INTEGRATION_MANY_TENANTS_H_
#define TENON_TESTS_INTEGRATION_MANY_TENANTS_H_

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "server/tenant/tenant_directory.h"
#include "tenon/v1/tenants.grpc.pb.h"
#include "tests/integration/server_fixture.h"

namespace tenon {

class ManyTenantsTest : public ServerTest {
 protected:
  /// Starts with those tenants, each with a tenant-admin's key. The server's log goes to
  /// log_path().
  void StartWith(const std::vector<std::string>& tenants, const std::vector<std::string>& flags);
  std::string log_path() const { return folder_.path() + "/server.log"; }

  /// A context with that tenant's key; the operator's for "".
  std::unique_ptr<grpc::ClientContext> As(const std::string& tenant) const;
  grpc::Status GenerateAs(const std::string& tenant, const v1::GenerateRequest& request,
                          v1::GenerateOnceResponse* response) const;
  v1::GetUsageResponse UsageOf(const std::string& tenant) const;
  void SetLimits(const std::string& tenant, const std::string& limits) const;

  std::map<std::string, std::string> secrets_;  // by tenant
  std::shared_ptr<grpc::Channel> admin_channel_;
  std::unique_ptr<v1::TenantService::Stub> tenants_;
};

/// Runs `task` on so many threads, with their numbers, to the end.
template <typename Task>
void OnThreads(int count, Task task) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&task, i] { task(i); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

}  // namespace tenon

#endif  // TENON_TESTS_INTEGRATION_MANY_TENANTS_H_
