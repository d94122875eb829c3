#include "server/tenant/certificate_rules.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/json_text.h"
#include "adapters/base/status_macros.h"
#include "adapters/registry/adapter_id.h"
#include "nlohmann/json.hpp"

namespace tenon {
namespace {

bool Matches(absl::string_view pattern, absl::string_view name) {
  if (absl::EndsWith(pattern, "*")) {
    return absl::StartsWith(name, pattern.substr(0, pattern.size() - 1));
  }
  return name == pattern;
}

absl::Status BadRule(size_t index, absl::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat("certificate rule ", index, ": ", message));
}

// "" for a member that is not there; INVALID_ARGUMENT for one that is no string.
absl::StatusOr<std::string> Member(const nlohmann::json& rule, const char* name, size_t index) {
  const auto found = rule.find(name);
  if (found == rule.end()) {
    return std::string();
  }
  const auto* text = found->get_ptr<const std::string*>();
  if (text == nullptr || text->empty()) {
    return BadRule(index, absl::StrCat(name, " is not a string, or empty"));
  }
  return *text;
}

absl::Status CheckMembers(const nlohmann::json& rule, size_t index) {
  if (!rule.is_object()) {
    return BadRule(index, "not an object");
  }
  for (const auto& [name, value] : rule.items()) {
    if (name != "spiffe_id" && name != "subject" && name != "tenant" && name != "role") {
      return BadRule(index, absl::StrCat("unknown member ", Quoted(name)));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CertificateRules> CertificateRules::Parse(absl::string_view text) {
  const nlohmann::json json = ParseJson(text);
  if (!json.is_object() || json.size() != 1 || !json.contains("rules") ||
      !json["rules"].is_array()) {
    return absl::InvalidArgumentError("certificate rules are not {\"rules\": [...]}");
  }
  CertificateRules rules;
  for (const nlohmann::json& item : json["rules"]) {
    const size_t index = rules.rules_.size();
    TENON_RETURN_IF_ERROR(CheckMembers(item, index));
    TENON_ASSIGN_OR_RETURN(const std::string spiffe_id, Member(item, "spiffe_id", index));
    TENON_ASSIGN_OR_RETURN(const std::string subject, Member(item, "subject", index));
    TENON_ASSIGN_OR_RETURN(const std::string tenant, Member(item, "tenant", index));
    TENON_ASSIGN_OR_RETURN(const std::string role_name, Member(item, "role", index));
    if (spiffe_id.empty() == subject.empty()) {
      return BadRule(index, "one of spiffe_id and subject must be there");
    }
    const std::string& pattern = spiffe_id.empty() ? subject : spiffe_id;
    if (std::count(pattern.begin(), pattern.end() - 1, '*') != 0) {
      return BadRule(index, "a '*' stands at the end only");
    }
    const absl::StatusOr<Role> role = ParseRole("role", role_name);
    if (!role.ok()) {
      return BadRule(index, role.status().message());
    }
    if (tenant.empty() != (*role == Role::kOperator)) {
      return BadRule(index, "an operator has no tenant, every other role one");
    }
    if (!tenant.empty() && !ValidateName("tenant", tenant).ok()) {
      return BadRule(index, absl::StrCat(Quoted(tenant), " is not a tenant's name"));
    }
    rules.rules_.push_back({!spiffe_id.empty(), pattern, tenant, *role});
  }
  return rules;
}

absl::StatusOr<Identity> CertificateRules::Match(const CertificateNames& names) const {
  for (const Rule& rule : rules_) {
    if (!rule.is_spiffe && !names.subject.empty() && Matches(rule.pattern, names.subject)) {
      return Identity{rule.tenant, {rule.role}, absl::StrCat("certificate:", names.subject)};
    }
    for (const std::string& id : names.spiffe_ids) {
      if (rule.is_spiffe && Matches(rule.pattern, id)) {
        return Identity{rule.tenant, {rule.role}, absl::StrCat("certificate:", id)};
      }
    }
  }
  return UnauthenticatedError("CREDENTIALS_INVALID", "no rule knows the client's certificate");
}

}  // namespace tenon
