// Access: everything that decides who may call and how much, put together from the configuration.
#ifndef TENON_SERVER_ACCESS_H_
#define TENON_SERVER_ACCESS_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/server_config.h"
#include "server/tenant/authenticator.h"
#include "server/tenant/file_watch.h"
#include "server/tenant/jwt_verifier.h"
#include "server/tenant/quota_book.h"
#include "server/tenant/tenant_directory.h"
#include "server/tenant/usage_ledger.h"

namespace tenon {

/// The tenants' database and pepper are in the store's folder, which is there. Thread-safe once
/// opened.
class Access {
 public:
  /// Errors name the file that cannot be used. Says in the log whether callers need credentials.
  static absl::StatusOr<std::unique_ptr<Access>> Open(const ServerConfig& config,
                                                      std::function<absl::Time()> clock);
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;

  TenantDirectory* directory() { return directory_.get(); }
  const Authenticator* authenticator() const { return authenticator_.get(); }
  QuotaBook* quotas() { return quotas_.get(); }
  UsageLedger* usage() { return usage_.get(); }
  /// Whether the JWKS in force is what its file holds; true without one.
  bool keys_are_current() const { return tokens_ == nullptr || tokens_->is_current(); }

 private:
  Access() = default;
  absl::Status OpenTokens(const ServerConfig& config);

  std::unique_ptr<TenantDirectory> directory_;
  std::unique_ptr<JwtVerifier> tokens_;
  std::unique_ptr<FileWatch> jwks_watch_;
  std::unique_ptr<Authenticator> authenticator_;
  std::unique_ptr<QuotaBook> quotas_;
  std::unique_ptr<UsageLedger> usage_;
};

}  // namespace tenon

#endif  // TENON_SERVER_ACCESS_H_
