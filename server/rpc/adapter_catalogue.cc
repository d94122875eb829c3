#include "server/rpc/adapter_catalogue.h"

#include <algorithm>
#include <string>
#include <tuple>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "server/rpc/acceptance_conversion.h"

namespace tenon {
namespace {

constexpr int32_t kDefaultPageSize = 100;
constexpr int32_t kMaxPageSize = 1000;

// A page token is the last entry of its page, so that a page stays right whatever is published or
// deleted between two calls.
std::string EncodePageToken(const AdapterId& last) {
  return absl::WebSafeBase64Escape(absl::StrCat(last.name, "@", last.version));
}

absl::StatusOr<AdapterRef> DecodePageToken(const std::string& token) {
  std::string text;
  if (absl::WebSafeBase64Unescape(token, &text)) {
    absl::StatusOr<AdapterRef> ref = ParseAdapterRef("page_token", text);
    if (ref.ok() && ref->version > 0) {
      return ref;
    }
  }
  return InvalidFieldError("page_token", "is not a next_page_token of this server");
}

v1::AdapterState StateToProto(AdapterState state) {
  switch (state) {
    case AdapterState::kLive:
      return v1::ADAPTER_STATE_LIVE;
    case AdapterState::kDraining:
      return v1::ADAPTER_STATE_DRAINING;
    case AdapterState::kQuarantined:
      return v1::ADAPTER_STATE_QUARANTINED;
  }
  return v1::ADAPTER_STATE_UNSPECIFIED;
}

bool IsAfter(const AdapterId& id, const AdapterRef& ref) {
  return std::tie(id.name, id.version) > std::tie(ref.name, ref.version);
}

}  // namespace

v1::SplitArm ToProto(const SplitArm& arm) {
  v1::SplitArm proto;
  proto.set_alias(arm.alias);
  proto.set_percent(arm.basis_points / 100.0);
  return proto;
}

absl::Status AdapterCatalogue::List(absl::string_view tenant,
                                    const v1::ListAdaptersRequest& request,
                                    v1::ListAdaptersResponse& response) const {
  if (request.page_size() < 0 || request.page_size() > kMaxPageSize) {
    return InvalidFieldError(
        "page_size", absl::StrCat(request.page_size(), " is not in [0, ", kMaxPageSize, "]"));
  }
  AdapterRef after;
  if (!request.page_token().empty()) {
    TENON_ASSIGN_OR_RETURN(after, DecodePageToken(request.page_token()));
  }
  const int32_t page_size = request.page_size() == 0 ? kDefaultPageSize : request.page_size();
  for (const AdapterStatus& status : registry_->List(tenant)) {
    if (!IsAfter(status.adapter.id(), after)) {
      continue;
    }
    if (response.adapters_size() == page_size) {
      const v1::Adapter& last = response.adapters(page_size - 1);
      response.set_next_page_token(EncodePageToken({"", last.name(), last.version()}));
      break;
    }
    *response.add_adapters() = ToProto(status);
  }
  return absl::OkStatus();
}

absl::Status AdapterCatalogue::Get(absl::string_view tenant, const v1::GetAdapterRequest& request,
                                   v1::GetAdapterResponse& response) const {
  TENON_ASSIGN_OR_RETURN(const AdapterRef ref, ParseAdapterRef("adapter", request.adapter()));
  const std::string alias = ref.alias.empty() ? std::string(kLatestAlias) : ref.alias;
  for (const AdapterStatus& status : registry_->List(tenant)) {
    const AdapterId& id = status.adapter.id();
    const bool meant = ref.version == 0 ? std::find(status.aliases.begin(), status.aliases.end(),
                                                    alias) != status.aliases.end()
                                        : id.version == ref.version;
    if (id.name == ref.name && meant) {
      *response.mutable_adapter() = ToProto(status);
      if (!status.adapter->acceptance.empty()) {
        *response.mutable_adapter()->mutable_acceptance() =
            FromCatalogue(status.adapter->acceptance);
      }
      return absl::OkStatus();
    }
  }
  return ResourceNotFoundError("ADAPTER_NOT_FOUND", ref.ToString(),
                               absl::StrCat("no adapter ", ref.ToString()));
}

v1::NamedAdapter AdapterCatalogue::ToProto(const AdapterName& name) const {
  v1::NamedAdapter proto;
  proto.set_name(name.name);
  proto.set_generation(name.generation);
  for (const AdapterStatus& status : StatusesOf(name)) {
    *proto.add_versions() = ToProto(status);
  }
  for (const auto& [alias, version] : name.pointers.aliases) {
    (*proto.mutable_aliases())[alias] = version;
  }
  for (const SplitArm& arm : name.pointers.split) {
    *proto.add_split() = tenon::ToProto(arm);
  }
  return proto;
}

v1::Adapter AdapterCatalogue::ToProto(const AdapterStatus& status) const {
  const AdapterInfo& info = *status.adapter;
  v1::Adapter proto;
  proto.set_name(info.id.name);
  proto.set_version(info.id.version);
  proto.set_digest(info.digest);
  proto.set_state(StateToProto(status.state));
  proto.set_latest(status.latest);
  for (const std::string& alias : status.aliases) {
    proto.add_aliases(alias);
  }
  proto.set_method(info.method);
  proto.set_num_parameters(info.num_parameters);
  proto.set_max_rank(info.max_rank);
  proto.set_num_sites(info.num_sites);
  proto.set_num_untouched_sites(info.num_untouched_sites);
  proto.set_num_virtual_tokens(info.num_virtual_tokens);
  proto.set_delta_norm_bound(info.delta_norm_bound);
  proto.set_has_weight(info.has_weight);
  proto.set_stored_bytes(info.stored_bytes);
  proto.set_resident_bytes(info.resident_bytes);
  proto.set_resident(cache_->state(info.digest) == Residency::kResident);
  *proto.mutable_create_time() = ToTimestamp(info.created);
  for (const std::string& warning : info.warnings) {
    proto.add_warnings(warning);
  }
  return proto;
}

}  // namespace tenon
