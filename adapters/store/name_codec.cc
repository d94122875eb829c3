// The JSON of NameState's objects. Bytes of a bucket are untrusted: every field is checked.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/json_text.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/file_set.h"
#include "adapters/store/name_state.h"
#include "nlohmann/json.hpp"

namespace tenon {
namespace {

using Json = nlohmann::json;

constexpr int64_t kFormat = 1;

// Reads the fields of one object, and remembers the first that is not as it must be.
class Fields {
 public:
  Fields(const Json& json, absl::string_view what) : json_(json), what_(what) {
    if (!json_.is_object()) {
      Fail("", "is no object");
    }
  }

  void Read(const char* name, std::string& out) {
    if (const Json* found = Find(name, &Json::is_string)) {
      out = found->get<std::string>();
    }
  }
  void Read(const char* name, int64_t& out) {
    if (const Json* found = Find(name, &Json::is_number_integer)) {
      out = found->get<int64_t>();
    }
  }
  void Read(const char* name, double& out) {
    if (const Json* found = Find(name, &Json::is_number)) {
      out = found->get<double>();
    }
  }
  void Read(const char* name, bool& out) {
    if (const Json* found = Find(name, &Json::is_boolean)) {
      out = found->get<bool>();
    }
  }
  void Read(const char* name, absl::Time& out) {
    int64_t nanos = 0;
    Read(name, nanos);
    out = absl::FromUnixNanos(nanos);
  }
  // An array or an object; an empty one when there is none.
  const Json& List(const char* name, bool (Json::*is)() const noexcept) {
    static const Json& empty = *new Json(Json::array());
    const Json* found = Find(name, is);
    return found == nullptr ? empty : *found;
  }

  void Fail(absl::string_view name, absl::string_view why) {
    if (status_.ok()) {
      status_ = absl::DataLossError(absl::StrCat(what_, ": ", name, " ", why));
    }
  }
  const absl::Status& status() const { return status_; }

 private:
  const Json* Find(const char* name, bool (Json::*is)() const noexcept) {
    const auto found = json_.is_object() ? json_.find(name) : json_.end();
    if (found == json_.end() || !((*found).*is)()) {
      Fail(name, "is missing or of another type");
      return nullptr;
    }
    return &*found;
  }

  const Json& json_;
  const std::string what_;
  absl::Status status_;
};

absl::StatusOr<Json> Parse(absl::string_view text, absl::string_view what) {
  Json json = ParseJson(text);
  if (!json.is_object() || !json.contains("format") || !json["format"].is_number_integer()) {
    return absl::DataLossError(absl::StrCat(what, " is no object of an adapter store"));
  }
  if (json["format"].get<int64_t>() > kFormat) {
    return absl::FailedPreconditionError(absl::StrCat(
        what, " has format ", json["format"].get<int64_t>(), "; this server reads ", kFormat));
  }
  return json;
}

Json ToJson(const AliasChange& change) {
  return {{"sequence", change.sequence},
          {"time_ns", absl::ToUnixNanos(change.time)},
          {"actor", change.actor},
          {"action", std::string(AliasActionName(change.action))},
          {"alias", change.alias},
          {"from", change.from},
          {"to", change.to},
          {"details", change.details}};
}

absl::StatusOr<AliasChange> ReadChange(const Json& json) {
  AliasChange change;
  std::string action;
  Fields fields(json, "history");
  fields.Read("sequence", change.sequence);
  fields.Read("time_ns", change.time);
  fields.Read("actor", change.actor);
  fields.Read("action", action);
  fields.Read("alias", change.alias);
  fields.Read("from", change.from);
  fields.Read("to", change.to);
  fields.Read("details", change.details);
  TENON_RETURN_IF_ERROR(fields.status());
  TENON_ASSIGN_OR_RETURN(change.action, ParseAliasAction(action));
  return change;
}

absl::Status ReadPointers(Fields& fields, AdapterPointers& pointers) {
  for (const auto& [alias, version] : fields.List("aliases", &Json::is_object).items()) {
    if (!version.is_number_integer() || !ValidateAlias("alias", alias).ok()) {
      return absl::DataLossError("name: an alias is none");
    }
    pointers.aliases.emplace(alias, version.get<int64_t>());
  }
  for (const Json& arm : fields.List("split", &Json::is_array)) {
    Fields of_arm(arm, "split");
    SplitArm& out = pointers.split.emplace_back();
    int64_t basis_points = 0;
    of_arm.Read("alias", out.alias);
    of_arm.Read("basis_points", basis_points);
    out.basis_points = static_cast<int32_t>(basis_points);
    TENON_RETURN_IF_ERROR(of_arm.status());
  }
  const absl::Status split = ValidateSplit("split", pointers.split);
  return split.ok() ? absl::OkStatus() : absl::DataLossError(split.message());
}

bool IsSha256(absl::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == absl::string_view::npos;
}

absl::Status ReadFiles(Fields& fields, std::vector<StoredFile>& files) {
  for (const Json& json : fields.List("files", &Json::is_array)) {
    Fields of_file(json, "file");
    StoredFile& file = files.emplace_back();
    of_file.Read("name", file.name);
    of_file.Read("sha256", file.sha256);
    of_file.Read("num_bytes", file.num_bytes);
    TENON_RETURN_IF_ERROR(of_file.status());
    if (!CheckAdapterFileName(file.name).ok() || !IsSha256(file.sha256) || file.num_bytes < 0) {
      return absl::DataLossError("version: a file's name, digest or size is none");
    }
  }
  return files.empty() ? absl::DataLossError("version: has no files") : absl::OkStatus();
}

}  // namespace

std::string EncodeName(const NameState& state, absl::string_view nonce) {
  Json json = {{"format", kFormat},         {"tenant", state.tenant},
               {"name", state.name},        {"last_version", state.last_version},
               {"changes", state.changes},  {"nonce", std::string(nonce)},
               {"versions", Json::array()}, {"aliases", Json::object()},
               {"split", Json::array()},    {"history", Json::array()}};
  for (const auto& [number, version] : state.versions) {
    json["versions"].push_back(number);
  }
  for (const auto& [alias, version] : state.pointers.aliases) {
    json["aliases"][alias] = version;
  }
  for (const SplitArm& arm : state.pointers.split) {
    json["split"].push_back({{"alias", arm.alias}, {"basis_points", arm.basis_points}});
  }
  for (const AliasChange& change : state.history) {
    json["history"].push_back(ToJson(change));
  }
  return JsonText(json);
}

absl::StatusOr<NameState> DecodeName(absl::string_view text, std::vector<int64_t>* versions) {
  TENON_ASSIGN_OR_RETURN(const Json json, Parse(text, "name"));
  NameState state;
  Fields fields(json, "name");
  fields.Read("tenant", state.tenant);
  fields.Read("name", state.name);
  fields.Read("last_version", state.last_version);
  fields.Read("changes", state.changes);
  for (const Json& number : fields.List("versions", &Json::is_array)) {
    if (!number.is_number_integer() || number.get<int64_t>() < 1) {
      return absl::DataLossError("name: a version is no number");
    }
    versions->push_back(number.get<int64_t>());
  }
  TENON_RETURN_IF_ERROR(ReadPointers(fields, state.pointers));
  for (const Json& change : fields.List("history", &Json::is_array)) {
    TENON_ASSIGN_OR_RETURN(AliasChange read, ReadChange(change));
    state.history.push_back(std::move(read));
  }
  TENON_RETURN_IF_ERROR(fields.status());
  for (const auto& [alias, version] : state.pointers.aliases) {
    if (std::find(versions->begin(), versions->end(), version) == versions->end()) {
      return absl::DataLossError("name: an alias points to a version that is not there");
    }
  }
  if (!ValidateName("tenant", state.tenant).ok() || !ValidateName("name", state.name).ok()) {
    return absl::DataLossError("name: tenant or name is none");
  }
  return state;
}

std::string EncodeVersion(const StoredVersion& version, absl::string_view nonce) {
  const AdapterInfo& info = version.info;
  Json json = {{"format", kFormat},
               {"tenant", info.id.tenant},
               {"name", info.id.name},
               {"version", info.id.version},
               {"nonce", std::string(nonce)},
               {"digest", info.digest},
               {"method", info.method},
               {"num_parameters", info.num_parameters},
               {"max_rank", info.max_rank},
               {"num_sites", info.num_sites},
               {"num_untouched_sites", info.num_untouched_sites},
               {"delta_norm_bound", info.delta_norm_bound},
               {"has_weight", info.has_weight},
               {"num_virtual_tokens", info.num_virtual_tokens},
               {"stored_bytes", info.stored_bytes},
               {"resident_bytes", info.resident_bytes},
               {"created_ns", absl::ToUnixNanos(info.created)},
               {"warnings", info.warnings},
               {"acceptance", info.acceptance},
               {"files", Json::array()}};
  for (const StoredFile& file : version.files) {
    json["files"].push_back(
        {{"name", file.name}, {"sha256", file.sha256}, {"num_bytes", file.num_bytes}});
  }
  return JsonText(json);
}

absl::StatusOr<StoredVersion> DecodeVersion(absl::string_view text) {
  TENON_ASSIGN_OR_RETURN(const Json json, Parse(text, "version"));
  StoredVersion version;
  AdapterInfo& info = version.info;
  Fields fields(json, "version");
  fields.Read("tenant", info.id.tenant);
  fields.Read("name", info.id.name);
  fields.Read("version", info.id.version);
  fields.Read("digest", info.digest);
  fields.Read("method", info.method);
  fields.Read("num_parameters", info.num_parameters);
  fields.Read("max_rank", info.max_rank);
  fields.Read("num_sites", info.num_sites);
  fields.Read("num_untouched_sites", info.num_untouched_sites);
  fields.Read("delta_norm_bound", info.delta_norm_bound);
  fields.Read("has_weight", info.has_weight);
  fields.Read("num_virtual_tokens", info.num_virtual_tokens);
  fields.Read("stored_bytes", info.stored_bytes);
  fields.Read("resident_bytes", info.resident_bytes);
  fields.Read("created_ns", info.created);
  fields.Read("acceptance", info.acceptance);
  for (const Json& warning : fields.List("warnings", &Json::is_array)) {
    if (warning.is_string()) {
      info.warnings.push_back(warning.get<std::string>());
    }
  }
  TENON_RETURN_IF_ERROR(ReadFiles(fields, version.files));
  TENON_RETURN_IF_ERROR(fields.status());
  if (!IsSha256(info.digest) || info.id.version < 1) {
    return absl::DataLossError("version: its number or digest is none");
  }
  return version;
}

}  // namespace tenon
