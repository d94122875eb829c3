#include "server/access.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "server/telemetry/logging.h"

namespace tenon {
namespace {

constexpr size_t kMinOperatorKeyBytes = 32;

absl::StatusOr<std::string> ReadOperatorKey(const std::string& path) {
  if (path.empty()) {
    return std::string();
  }
  TENON_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(path));
  const std::string key(absl::StripAsciiWhitespace(text));
  if (key.size() < kMinOperatorKeyBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the operator key in '", path, "' has less than ", kMinOperatorKeyBytes, " bytes"));
  }
  return key;
}

void LogWhoIsServed(const Authenticator& authenticator, const ServerConfig& config) {
  if (authenticator.has_credentials()) {
    LogLine(LogLevel::kInfo, "credentials_required");
    return;
  }
  LogLine(LogLevel::kWarning, "no_credentials_configured")
      .Add("served", config.allow_unauthenticated ? "everybody, as tenant default"
                                                  : "this machine only, as tenant default");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Access>> Access::Open(const ServerConfig& config,
                                                     std::function<absl::Time()> clock) {
  std::unique_ptr<Access> access(new Access);
  TENON_ASSIGN_OR_RETURN(ApiKeyHasher hasher,
                         ApiKeyHasher::Open(LocalFolder(config) + "/key-pepper", DrawRandomBytes));
  TENON_ASSIGN_OR_RETURN(access->directory_,
                         TenantDirectory::Open({LocalFolder(config) + "/tenants.db",
                                                std::move(hasher), clock, DrawRandomBytes}));
  TENON_RETURN_IF_ERROR(access->OpenTokens(config));
  Authenticator::Options options;
  options.directory = access->directory_.get();
  TENON_ASSIGN_OR_RETURN(options.operator_key, ReadOperatorKey(config.operator_key_file));
  options.tokens = access->tokens_.get();
  if (!config.certificate_rules_file.empty()) {
    TENON_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(config.certificate_rules_file));
    TENON_ASSIGN_OR_RETURN(options.certificates, CertificateRules::Parse(text));
  }
  options.allow_unauthenticated = config.allow_unauthenticated;
  options.clock = clock;
  access->authenticator_ = std::make_unique<Authenticator>(std::move(options));
  access->quotas_ = std::make_unique<QuotaBook>(
      [directory = access->directory_.get()](absl::string_view tenant) {
        return directory->LimitsOf(tenant);
      },
      clock);
  TENON_ASSIGN_OR_RETURN(const std::vector<BucketRecord> buckets,
                         access->directory_->LoadBuckets());
  access->quotas_->Restore(buckets);
  UsageLedger::Options usage;
  usage.take_buckets = [quotas = access->quotas_.get()] { return quotas->TakeChangedBuckets(); };
  usage.path = config.usage_log;
  usage.flush_interval = config.usage_flush_interval;
  usage.clock = clock;
  TENON_ASSIGN_OR_RETURN(access->usage_,
                         UsageLedger::Open(std::move(usage), access->directory_.get()));
  LogWhoIsServed(*access->authenticator_, config);
  return access;
}

absl::Status Access::OpenTokens(const ServerConfig& config) {
  if (config.jwks_file.empty()) {
    return absl::OkStatus();
  }
  JwtRules rules;
  rules.issuer = config.jwt_issuer;
  rules.audience = config.jwt_audience;
  rules.tenant_claim = config.jwt_tenant_claim;
  rules.role_claim = config.jwt_role_claim;
  tokens_ = std::make_unique<JwtVerifier>(std::move(rules));
  TENON_ASSIGN_OR_RETURN(std::string text, ReadWholeFile(config.jwks_file));
  TENON_RETURN_IF_ERROR(Annotate(tokens_->Replace(text), config.jwks_file));
  const auto replace = [tokens = tokens_.get()](const absl::StatusOr<std::string>& content) {
    const absl::Status status = tokens->Replace(content.ok() ? *content : std::string());
    if (status.ok()) {
      LogLine(LogLevel::kInfo, "jwks_replaced");
    } else {
      LogLine(LogLevel::kError, "jwks_refused")
          .Add("error", content.ok() ? status : content.status())
          .Add("in_force", "the last good keys");
    }
  };
  TENON_ASSIGN_OR_RETURN(jwks_watch_, FileWatch::Start(config.jwks_file, std::move(text), replace));
  return absl::OkStatus();
}

}  // namespace tenon
