#include "server/tenant/jwt_verifier.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "adapters/base/errors.h"
#include "adapters/base/json_text.h"
#include "adapters/base/status_macros.h"
#include "adapters/registry/adapter_id.h"
#include "nlohmann/json.hpp"

namespace tenon {
namespace {

constexpr size_t kMaxSubjectBytes = 128;

absl::Status Refused(absl::string_view why) {
  return UnauthenticatedError("CREDENTIALS_INVALID", absl::StrCat("the token ", why));
}

// An object in base64url; null for anything else.
nlohmann::json DecodeObject(absl::string_view part) {
  const std::optional<std::string> text = DecodeBase64Url(part);
  nlohmann::json json = ParseJson(text.value_or(""));
  return json.is_object() ? json : nlohmann::json();
}

const std::string* TextOf(const nlohmann::json& object, const std::string& name) {
  const auto found = object.find(name);
  return found == object.end() ? nullptr : found->get_ptr<const std::string*>();
}

// NumericDate (RFC 7519, section 2): seconds, maybe with a fraction.
std::optional<absl::Time> TimeOf(const nlohmann::json& claims, const char* name) {
  const auto found = claims.find(name);
  if (found == claims.end() || !found->is_number()) {
    return std::nullopt;
  }
  const double seconds = found->get<double>();
  if (!std::isfinite(seconds) || std::abs(seconds) > 1e12) {
    return std::nullopt;
  }
  return absl::UnixEpoch() + absl::Seconds(seconds);
}

bool Holds(const nlohmann::json& value, const std::string& wanted) {
  return value == wanted ||
         (value.is_array() && std::find(value.begin(), value.end(), wanted) != value.end());
}

absl::Status CheckTimes(const nlohmann::json& claims, absl::Duration leeway, absl::Time now) {
  const std::optional<absl::Time> expires = TimeOf(claims, "exp");
  if (!expires.has_value()) {
    return Refused("has no time of expiry");
  }
  if (now >= *expires + leeway) {
    return UnauthenticatedError("CREDENTIALS_EXPIRED", "the token has expired");
  }
  const std::optional<absl::Time> not_before = TimeOf(claims, "nbf");
  if (claims.contains("nbf") && (!not_before.has_value() || now < *not_before - leeway)) {
    return Refused("is not valid yet");
  }
  return absl::OkStatus();
}

absl::Status CheckParties(const nlohmann::json& claims, const JwtRules& rules) {
  if (!rules.issuer.empty() && (!claims.contains("iss") || claims["iss"] != rules.issuer)) {
    return Refused("is of another issuer");
  }
  if (!rules.audience.empty() &&
      (!claims.contains("aud") || !Holds(claims["aud"], rules.audience))) {
    return Refused("is for another audience");
  }
  return absl::OkStatus();
}

absl::StatusOr<RoleSet> RolesOf(const nlohmann::json& claims, const std::string& claim) {
  const auto found = claims.find(claim);
  if (found == claims.end()) {
    return Refused("names no role");
  }
  RoleSet roles;
  for (const Role role : kAllRoles) {
    if (Holds(*found, std::string(RoleName(role)))) {
      roles.Add(role);
    }
  }
  if (roles.empty()) {
    return Refused("names no role that is known");
  }
  return roles;
}

// A subject as it may stand in a log or an audit entry.
std::string SubjectOf(const nlohmann::json& claims) {
  const std::string* subject = TextOf(claims, "sub");
  if (subject == nullptr) {
    return "-";
  }
  std::string text = subject->substr(0, kMaxSubjectBytes);
  std::replace_if(text.begin(), text.end(), [](char c) { return c <= 0x20 || c >= 0x7F; }, '?');
  return text;
}

absl::StatusOr<Identity> IdentityOf(const nlohmann::json& claims, const JwtRules& rules) {
  Identity identity;
  TENON_ASSIGN_OR_RETURN(identity.roles, RolesOf(claims, rules.role_claim));
  identity.credential = absl::StrCat("jwt:", SubjectOf(claims));
  if (const std::string* tenant = TextOf(claims, rules.tenant_claim)) {
    if (!ValidateName("tenant", *tenant).ok()) {
      return Refused("names a tenant that cannot be");
    }
    identity.tenant = *tenant;
  } else if (claims.contains(rules.tenant_claim) || identity.roles != RoleSet({Role::kOperator})) {
    return Refused("names no tenant");
  }
  return identity;
}

}  // namespace

absl::Status JwtVerifier::Replace(absl::string_view jwks) {
  absl::StatusOr<KeySet> keys = KeySet::Parse(jwks);
  absl::MutexLock lock(&mutex_);
  is_current_ = keys.ok();
  if (keys.ok()) {
    keys_ = std::make_shared<const KeySet>(*std::move(keys));
  }
  return keys.status();
}

bool JwtVerifier::is_current() const {
  absl::MutexLock lock(&mutex_);
  return is_current_;
}

absl::StatusOr<Identity> JwtVerifier::Verify(absl::string_view token, absl::Time now) const {
  const std::vector<absl::string_view> parts = absl::StrSplit(token, '.');
  if (token.size() > kMaxTokenBytes || parts.size() != 3) {
    return Refused("is not a signed token in compact form");
  }
  const nlohmann::json header = DecodeObject(parts[0]);
  const std::string* name = header.is_null() ? nullptr : TextOf(header, "alg");
  const auto algorithm = ParseSignatureAlgorithm(name == nullptr ? std::string() : *name);
  const std::optional<std::string> signature = DecodeBase64Url(parts[2]);
  if (!algorithm.has_value() || !signature.has_value() || header.contains("crit")) {
    return Refused("is not signed in a way that is taken here");
  }
  std::shared_ptr<const KeySet> keys;
  {
    absl::MutexLock lock(&mutex_);
    keys = keys_;
  }
  const std::string* key_id = TextOf(header, "kid");
  const absl::string_view signed_part = token.substr(0, token.rfind('.'));
  if (!keys->Verify(*algorithm,
                    key_id == nullptr ? absl::string_view() : absl::string_view(*key_id),
                    signed_part, *signature)) {
    return Refused("is signed by nobody known");
  }
  const nlohmann::json claims = DecodeObject(parts[1]);
  if (claims.is_null()) {
    return Refused("has no claims");
  }
  TENON_RETURN_IF_ERROR(CheckTimes(claims, rules_.leeway, now));
  TENON_RETURN_IF_ERROR(CheckParties(claims, rules_));
  return IdentityOf(claims, rules_);
}

}  // namespace tenon
