// tenonctl tenants and keys.
#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/tenonctl/output.h"
#include "client/tenonctl/tenant_commands.h"

namespace tenon {
namespace {

std::string TimeWord(bool is_set, const google::protobuf::Timestamp& time,
                     const std::string& otherwise) {
  return is_set ? absl::FormatTime("%Y-%m-%d %H:%M:%SZ", absl::FromUnixSeconds(time.seconds()),
                                   absl::UTCTimeZone())
                : otherwise;
}

std::string LimitWord(int64_t limit) { return limit == 0 ? "-" : absl::StrCat(limit); }

CommandResult WrongWords(absl::string_view wanted) {
  return CommandResult::Usage(absl::StrCat("wanted: ", wanted));
}

// The one word of a command.
std::optional<std::string> OnlyWord(const Arguments& arguments) {
  return arguments.words().size() == 1 ? std::make_optional(arguments.words()[0]) : std::nullopt;
}

// Prints an answer as JSON, or `text` of it; or says why there is none.
template <typename Response, typename Format>
CommandResult Print(const absl::StatusOr<Response>& response, const Arguments& arguments,
                    Console& console, Format text) {
  if (response.ok()) {
    console.out << (arguments.GetSwitch("json") ? ToJson(*response) : text(*response));
  }
  return CommandResult::Of(response.status());
}

std::string FormatTenants(const std::vector<v1::Tenant>& tenants) {
  std::vector<std::vector<std::string>> rows = {
      {"NAME", "STATE", "REQUESTS/S", "TOKENS/MIN", "CONCURRENT", "QUEUED", "MAX TOKENS",
       "ADAPTERS", "ADAPTER BYTES", "WEIGHT", "KV %", "PINNED BYTES"}};
  for (const v1::Tenant& tenant : tenants) {
    const v1::TenantLimits& limits = tenant.limits();
    const bool active = tenant.state() == v1::TENANT_STATE_ACTIVE;
    rows.push_back({tenant.name(), active ? "active" : "suspended",
                    LimitWord(limits.requests_per_second()), LimitWord(limits.tokens_per_minute()),
                    LimitWord(limits.concurrent_requests()), LimitWord(limits.queued_requests()),
                    LimitWord(limits.max_tokens()), LimitWord(limits.adapters()),
                    LimitWord(limits.adapter_bytes()),
                    absl::StrCat(std::max<int64_t>(limits.weight(), 1)),
                    LimitWord(limits.kv_percent()), LimitWord(limits.pinned_bytes())});
  }
  return FormatTable(rows);
}

std::string FormatKeys(const v1::ListKeysResponse& response) {
  std::vector<std::vector<std::string>> rows = {
      {"ID", "ROLE", "CREATED", "EXPIRES", "REVOKED", "LAST USED", "NOTE"}};
  for (const v1::ApiKey& key : response.keys()) {
    rows.push_back({key.id(), key.role(), TimeWord(true, key.create_time(), ""),
                    TimeWord(key.has_expire_time(), key.expire_time(), "never"),
                    TimeWord(key.has_revoke_time(), key.revoke_time(), "-"),
                    TimeWord(key.has_last_use_time(), key.last_use_time(), "never"),
                    PrintableText(key.note())});
  }
  return FormatTable(rows);
}

// The secret alone on standard output, so that it can go straight into a file.
template <typename Response>
CommandResult PrintSecret(const absl::StatusOr<Response>& response, const Arguments& arguments,
                          Console& console) {
  if (response.ok() && !arguments.GetSwitch("json")) {
    console.err << "key " << response->key().id() << ", shown this once:\n";
  }
  return Print(response, arguments, console,
               [](const Response& issued) { return absl::StrCat(issued.secret(), "\n"); });
}

// Overwrites the limits that are given.
absl::Status TakeLimits(const Arguments& arguments, v1::TenantLimits& limits) {
  const google::protobuf::Descriptor* descriptor = v1::TenantLimits::descriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const google::protobuf::FieldDescriptor* field = descriptor->field(i);
    std::string flag = field->name();
    std::replace(flag.begin(), flag.end(), '_', '-');
    const absl::StatusOr<std::optional<uint64_t>> value = arguments.GetUint64(flag);
    if (!value.ok()) {
      return value.status();
    }
    if (value->has_value()) {
      limits.GetReflection()->SetInt64(&limits, field, static_cast<int64_t>(**value));
    }
  }
  return absl::OkStatus();
}

CommandResult SetState(const Client& client, const Arguments& arguments, Console& console,
                       v1::TenantState state) {
  const std::optional<std::string> name = OnlyWord(arguments);
  if (!name.has_value()) {
    return WrongWords("NAME");
  }
  v1::SetTenantStateRequest request;
  request.set_name(*name);
  request.set_state(state);
  return Print(client.tenants().SetTenantState(request), arguments, console,
               [](const v1::SetTenantStateResponse& response) {
                 return FormatTenants({response.tenant()});
               });
}

}  // namespace

CommandResult RunCreateTenant(const Client& client, const Arguments& arguments, Console& console) {
  const std::optional<std::string> name = OnlyWord(arguments);
  if (!name.has_value()) {
    return WrongWords("NAME");
  }
  v1::CreateTenantRequest request;
  request.set_name(*name);
  if (absl::Status status = TakeLimits(arguments, *request.mutable_limits()); !status.ok()) {
    return CommandResult::Usage(status.message());
  }
  return Print(
      client.tenants().CreateTenant(request), arguments, console,
      [](const v1::CreateTenantResponse& response) { return FormatTenants({response.tenant()}); });
}

CommandResult RunListTenants(const Client& client, const Arguments& arguments, Console& console) {
  return Print(client.tenants().ListTenants({}), arguments, console,
               [](const v1::ListTenantsResponse& response) {
                 return FormatTenants({response.tenants().begin(), response.tenants().end()});
               });
}

CommandResult RunSuspend(const Client& client, const Arguments& arguments, Console& console) {
  return SetState(client, arguments, console, v1::TENANT_STATE_SUSPENDED);
}

CommandResult RunResume(const Client& client, const Arguments& arguments, Console& console) {
  return SetState(client, arguments, console, v1::TENANT_STATE_ACTIVE);
}

CommandResult RunLimits(const Client& client, const Arguments& arguments, Console& console) {
  const std::optional<std::string> name = OnlyWord(arguments);
  if (!name.has_value()) {
    return WrongWords("NAME");
  }
  v1::GetTenantRequest get;
  get.set_name(*name);
  const absl::StatusOr<v1::GetTenantResponse> before = client.tenants().GetTenant(get);
  if (!before.ok()) {
    return CommandResult::Of(before.status());
  }
  v1::SetTenantLimitsRequest request;
  request.set_name(*name);
  *request.mutable_limits() = before->tenant().limits();
  if (absl::Status status = TakeLimits(arguments, *request.mutable_limits()); !status.ok()) {
    return CommandResult::Usage(status.message());
  }
  return Print(client.tenants().SetTenantLimits(request), arguments, console,
               [](const v1::SetTenantLimitsResponse& response) {
                 return FormatTenants({response.tenant()});
               });
}

CommandResult RunDeleteTenant(const Client& client, const Arguments& arguments, Console& console) {
  const std::optional<std::string> name = OnlyWord(arguments);
  if (!name.has_value()) {
    return WrongWords("NAME");
  }
  v1::DeleteTenantRequest request;
  request.set_name(*name);
  request.set_delete_adapters(arguments.GetSwitch("delete-adapters"));
  return Print(
      client.tenants().DeleteTenant(request), arguments, console,
      [&](const v1::DeleteTenantResponse&) { return absl::StrCat("deleted ", *name, "\n"); });
}

CommandResult RunUsage(const Client& client, const Arguments& arguments, Console& console) {
  const std::optional<std::string> name = OnlyWord(arguments);
  if (!name.has_value()) {
    return WrongWords("NAME");
  }
  v1::GetUsageRequest request;
  request.set_tenant(*name);
  return Print(
      client.tenants().GetUsage(request), arguments, console,
      [](const v1::GetUsageResponse& response) {
        std::vector<std::vector<std::string>> rows = {{"ADAPTER", "REQUESTS", "PROMPT", "CACHED",
                                                       "GENERATED", "DEVICE S", "BYTE S", "LOADS"}};
        for (const v1::AdapterUsage& usage : response.adapters()) {
          rows.push_back(
              {usage.adapter().empty() ? "(base)" : usage.adapter(), absl::StrCat(usage.requests()),
               absl::StrCat(usage.prompt_tokens()), absl::StrCat(usage.cached_prompt_tokens()),
               absl::StrCat(usage.generated_tokens()),
               absl::StrFormat("%.3f", usage.device_seconds()),
               absl::StrFormat("%.0f", usage.adapter_byte_seconds()), absl::StrCat(usage.loads())});
        }
        return FormatTable(rows);
      });
}

CommandResult RunAudit(const Client& client, const Arguments& arguments, Console& console) {
  if (arguments.words().size() > 1) {
    return WrongWords("[NAME]");
  }
  const absl::StatusOr<std::optional<int32_t>> max = arguments.GetInt("max");
  if (!max.ok()) {
    return CommandResult::Usage(max.status().message());
  }
  v1::ListAuditEntriesRequest request;
  request.set_tenant(arguments.words().empty() ? "" : arguments.words()[0]);
  request.set_page_size(max->value_or(0));
  return Print(client.tenants().ListAuditEntries(request), arguments, console,
               [](const v1::ListAuditEntriesResponse& response) {
                 std::vector<std::vector<std::string>> rows = {
                     {"TIME", "ACTOR", "PEER", "ACTION", "TENANT", "OBJECT", "OUTCOME"}};
                 for (const v1::AuditEntry& entry : response.entries()) {
                   rows.push_back({TimeWord(true, entry.time(), ""), PrintableText(entry.actor()),
                                   PrintableText(entry.peer()), entry.action(), entry.tenant(),
                                   PrintableText(entry.object()), entry.outcome()});
                 }
                 return FormatTable(rows);
               });
}

CommandResult RunCreateKey(const Client& client, const Arguments& arguments, Console& console) {
  const absl::StatusOr<absl::Duration> expires_in =
      arguments.GetDuration("expires-in", absl::InfiniteDuration());
  if (!arguments.words().empty() || !expires_in.ok()) {
    return expires_in.ok() ? WrongWords("no words")
                           : CommandResult::Usage(expires_in.status().message());
  }
  v1::CreateKeyRequest request;
  request.set_tenant(arguments.GetText("tenant", ""));
  request.set_role(arguments.GetText("role", ""));
  request.set_note(arguments.GetText("note", ""));
  if (*expires_in != absl::InfiniteDuration()) {
    request.mutable_expire_time()->set_seconds(absl::ToUnixSeconds(absl::Now() + *expires_in));
  }
  return PrintSecret(client.tenants().CreateKey(request), arguments, console);
}

CommandResult RunListKeys(const Client& client, const Arguments& arguments, Console& console) {
  if (arguments.words().size() > 1) {
    return WrongWords("[TENANT]");
  }
  v1::ListKeysRequest request;
  request.set_tenant(arguments.words().empty() ? "" : arguments.words()[0]);
  return Print(client.tenants().ListKeys(request), arguments, console, FormatKeys);
}

CommandResult RunRotateKey(const Client& client, const Arguments& arguments, Console& console) {
  const std::optional<std::string> id = OnlyWord(arguments);
  const absl::StatusOr<absl::Duration> overlap = arguments.GetDuration("overlap", absl::Hours(1));
  if (!id.has_value() || !overlap.ok()) {
    return id.has_value() ? CommandResult::Usage(overlap.status().message()) : WrongWords("ID");
  }
  v1::RotateKeyRequest request;
  request.set_id(*id);
  request.mutable_overlap()->set_seconds(absl::ToInt64Seconds(*overlap));
  return PrintSecret(client.tenants().RotateKey(request), arguments, console);
}

CommandResult RunRevokeKey(const Client& client, const Arguments& arguments, Console& console) {
  const std::optional<std::string> id = OnlyWord(arguments);
  if (!id.has_value()) {
    return WrongWords("ID");
  }
  v1::RevokeKeyRequest request;
  request.set_id(*id);
  return Print(client.tenants().RevokeKey(request), arguments, console,
               [&](const v1::RevokeKeyResponse&) { return absl::StrCat("revoked ", *id, "\n"); });
}

}  // namespace tenon
