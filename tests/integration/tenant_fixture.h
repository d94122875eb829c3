// TenantServerTest: a server that starts with tenants and a key of every kind.
#ifndef TENON_TESTS_INTEGRATION_TENANT_FIXTURE_H_
#define TENON_TESTS_INTEGRATION_TENANT_FIXTURE_H_

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/tenant/tenant_directory.h"
#include "tenon/v1/tenants.grpc.pb.h"
#include "tests/integration/server_fixture.h"

namespace tenon {

/// Tenants acme and globex. Keys by name: a role's name is acme's key of that role (the operator's
/// for "operator"), "globex" is a tenant-admin of globex; "expired" and "revoked" were acme's
/// tenant-admins.
class TenantServerTest : public ServerTest {
 protected:
  void StartWithTenants(std::vector<std::string> flags = {});

  /// A context that presents a key by its name; "" presents none.
  std::unique_ptr<grpc::ClientContext> As(const std::string& name) const;

  const std::string& secret(const std::string& name) const { return secrets_.at(name).text; }
  const std::string& key_id(const std::string& name) const { return secrets_.at(name).record.id; }

  grpc::Status GenerateAs(const std::string& name, const std::string& request,
                          v1::GenerateOnceResponse* response = nullptr);
  grpc::Status UploadAs(const std::string& name, const std::string& folder,
                        const std::string& adapter);
  grpc::Status SetLimits(const std::string& tenant, const std::string& limits);

  std::map<std::string, IssuedKey> secrets_;
  std::shared_ptr<grpc::Channel> admin_channel_;
  std::unique_ptr<v1::TenantService::Stub> tenants_;

 private:
  void MakeKeys();
};

/// ErrorInfo.reason, or "".
std::string ReasonOf(const grpc::Status& status);

}  // namespace tenon

#endif  // TENON_TESTS_INTEGRATION_TENANT_FIXTURE_H_
