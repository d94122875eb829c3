#include "adapters/residency/adapter_publisher.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/parse_adapter.h"
#include "adapters/methods/compiler.h"
#include "spdlog/spdlog.h"

namespace tenon {
namespace {

absl::Status CheckDigest(absl::string_view expected, const std::string& digest) {
  if (expected.empty() || absl::AsciiStrToLower(expected) == digest) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat("the upload arrived with digest ", digest,
                                          ", but the client announced ", Quoted(expected)));
}

}  // namespace

AdapterPublisher::AdapterPublisher(Options options, AdapterStore* store, AdapterRegistry* registry)
    : options_(std::move(options)), store_(store), registry_(registry) {}

absl::Status AdapterPublisher::Restore() {
  absl::MutexLock lock(&change_mutex_);
  TENON_ASSIGN_OR_RETURN(std::vector<AdapterInfo> stored, store_->List());
  TENON_ASSIGN_OR_RETURN(const auto damaged, store_->Damaged());
  for (AdapterInfo& info : stored) {
    if (const auto found = damaged.find(info.id); found != damaged.end()) {
      spdlog::error("event=adapter_damaged adapter={} error=\"{}\"", info.id.ToString(),
                    std::string(found->second.message()));
      continue;
    }
    TENON_RETURN_IF_ERROR(registry_->Publish(std::move(info)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<StagedUpload>> AdapterPublisher::BeginUpload() {
  return store_->Begin(options_.limits.max_upload_bytes);
}

absl::StatusOr<AdapterInfo> AdapterPublisher::Publish(absl::string_view tenant,
                                                      absl::string_view name,
                                                      std::unique_ptr<StagedUpload> upload,
                                                      absl::string_view expected_digest) {
  TENON_RETURN_IF_ERROR(ValidateName("tenant", tenant));
  TENON_RETURN_IF_ERROR(ValidateName("name", name));
  TENON_ASSIGN_OR_RETURN(FileSet files, upload->Seal());
  TENON_RETURN_IF_ERROR(CheckDigest(expected_digest, upload->digest()));
  TENON_ASSIGN_OR_RETURN(const AdapterSpec spec, ParseAdapter(std::move(files), options_.limits));
  TENON_ASSIGN_OR_RETURN(Candidate candidate, Validate(spec));
  candidate.facts.id = AdapterId{std::string(tenant), std::string(name), 0};
  TENON_ASSIGN_OR_RETURN(AdapterInfo info, MakeLive(std::move(upload), std::move(candidate.facts)));
  if (cache_ != nullptr) {
    cache_->Insert(info.digest, std::move(candidate.compiled));
  }
  ReleaseDrained();
  return info;
}

absl::StatusOr<AdapterPublisher::Candidate> AdapterPublisher::Validate(
    const AdapterSpec& spec) const {
  CompileReport report;
  Candidate candidate;
  TENON_ASSIGN_OR_RETURN(
      candidate.compiled,
      tenon::Compile(spec, options_.base, options_.bf16 ? at::kBFloat16 : at::kFloat, &report));
  candidate.facts.method = std::move(report.method);
  candidate.facts.num_parameters = report.num_parameters;
  candidate.facts.max_rank = report.max_rank;
  candidate.facts.num_sites = report.num_sites;
  candidate.facts.num_untouched_sites = report.num_untouched_sites;
  candidate.facts.num_virtual_tokens = report.num_virtual_tokens;
  candidate.facts.delta_norm_bound = report.delta_norm_bound;
  candidate.facts.has_weight = candidate.compiled->has_weight();
  candidate.facts.resident_bytes = report.resident_bytes;
  candidate.facts.warnings = std::move(report.warnings);
  const int64_t budget = cache_ == nullptr ? report.resident_bytes : cache_->stats().budget_bytes;
  if (report.resident_bytes > budget) {
    return PreconditionError(
        "ADAPTER_CACHE_TOO_SMALL", "adapter_cache_bytes",
        absl::StrCat("the adapter needs ", report.resident_bytes,
                     " bytes, more than the adapter cache's budget of ", budget));
  }
  return candidate;
}

absl::StatusOr<AdapterInfo> AdapterPublisher::MakeLive(std::unique_ptr<StagedUpload> upload,
                                                       AdapterInfo facts) {
  absl::MutexLock lock(&change_mutex_);
  TENON_RETURN_IF_ERROR(CheckRoom(facts.id, upload->digest()));
  bool created = false;
  TENON_ASSIGN_OR_RETURN(AdapterInfo info,
                         store_->Commit(std::move(upload), std::move(facts), &created));
  // An equal version is live already, unless it was damaged until this upload repaired it.
  const absl::Status published = registry_->Publish(info);
  if (!published.ok() && !absl::IsAlreadyExists(published)) {
    return published;
  }
  return info;
}

absl::Status AdapterPublisher::CheckRoom(const AdapterId& id, const std::string& digest) {
  const absl::StatusOr<AdapterHandle> live = registry_->Acquire(id.tenant, AdapterRef{id.name, 0});
  if (live.ok() && (*live)->digest == digest) {
    return absl::OkStatus();  // will not become a new version
  }
  const std::vector<AdapterStatus> all = registry_->List(id.tenant);
  const int64_t num_live = std::count_if(all.begin(), all.end(), [](const AdapterStatus& status) {
    return status.state == AdapterState::kLive;
  });
  if (num_live >= options_.limits.max_adapters_per_tenant) {
    return QuotaExceededError(
        "ADAPTERS_PER_TENANT", "max_adapters_per_tenant",
        absl::StrCat("tenant ", id.tenant, " has ", num_live,
                     " adapter versions, the limit max_adapters is ",
                     options_.limits.max_adapters_per_tenant, "; delete some first"));
  }
  return absl::OkStatus();
}

absl::Status AdapterPublisher::Delete(absl::string_view tenant, const AdapterRef& ref) {
  absl::MutexLock lock(&change_mutex_);
  TENON_ASSIGN_OR_RETURN(const std::vector<AdapterInfo> stored, store_->List());
  bool found = false;
  for (const AdapterInfo& info : stored) {
    if (info.id.tenant == tenant && info.id.name == ref.name &&
        (ref.version == 0 || info.id.version == ref.version)) {
      found = true;
      TENON_RETURN_IF_ERROR(DeleteVersion(info));
    }
  }
  ReleaseDrained();
  if (!found) {
    return ResourceNotFoundError("ADAPTER_NOT_FOUND", ref.ToString(),
                                 absl::StrCat("adapter ", ref.ToString(), " does not exist"));
  }
  return absl::OkStatus();
}

absl::Status AdapterPublisher::DeleteVersion(const AdapterInfo& info) {
  // Kept before the row goes: whoever finds the row gone finds the files here. A version that is
  // damaged has none to keep.
  absl::StatusOr<FileSet> files = store_->Open(info.id);
  if (files.ok()) {
    absl::MutexLock lock(&draining_mutex_);
    draining_[info.id] = *std::move(files);
  }
  if (absl::Status status = store_->Delete(info.id); !status.ok()) {
    absl::MutexLock lock(&draining_mutex_);
    draining_.erase(info.id);
    return status;
  }
  const absl::Status retired = registry_->Retire(info.id);
  if (!retired.ok() && !absl::IsNotFound(retired)) {  // A damaged version was never live.
    return retired;
  }
  if (cache_ != nullptr) {
    cache_->Forget(info.digest);
  }
  if (host_ != nullptr) {
    host_->Erase(info.digest);
  }
  return absl::OkStatus();
}

void AdapterPublisher::ReleaseDrained() {
  std::map<AdapterId, FileSet> drained;  // unmapped after the lock is gone
  absl::MutexLock lock(&draining_mutex_);
  for (auto next = draining_.begin(); next != draining_.end();) {
    const auto current = next++;
    const AdapterId& id = current->first;
    const std::vector<AdapterStatus> known = registry_->List(id.tenant);
    if (std::none_of(known.begin(), known.end(),
                     [&id](const AdapterStatus& status) { return status.adapter.id() == id; })) {
      drained.insert(draining_.extract(current));
    }
  }
}

absl::StatusOr<std::shared_ptr<const AdapterSpec>> AdapterPublisher::Parse(
    const AdapterInfo& info) {
  if (host_ != nullptr) {
    if (std::shared_ptr<const AdapterSpec> spec = host_->Find(info.digest); spec != nullptr) {
      return spec;
    }
  }
  TENON_ASSIGN_OR_RETURN(FileSet files, OpenFiles(info.id));
  TENON_ASSIGN_OR_RETURN(AdapterSpec parsed, ParseAdapter(std::move(files), options_.limits));
  auto spec = std::make_shared<const AdapterSpec>(std::move(parsed));
  if (host_ != nullptr) {
    host_->Insert(info.digest, spec, info.stored_bytes);
  }
  return spec;
}

absl::StatusOr<std::shared_ptr<const CompiledAdapter>> AdapterPublisher::Compile(
    const AdapterInfo& info) {
  const auto annotate = [&info](const absl::Status& status) {
    return Annotate(status, absl::StrCat("adapter ", info.id.ToString()));
  };
  const absl::StatusOr<std::shared_ptr<const AdapterSpec>> spec = Parse(info);
  if (!spec.ok()) {
    return absl::IsDataLoss(spec.status()) ? spec.status() : annotate(spec.status());
  }
  absl::StatusOr<Candidate> candidate = Validate(**spec);
  if (!candidate.ok()) {
    return annotate(candidate.status());
  }
  return std::move(candidate->compiled);
}

absl::StatusOr<FileSet> AdapterPublisher::OpenFiles(const AdapterId& id) {
  absl::StatusOr<FileSet> files = store_->Open(id);
  if (!absl::IsNotFound(files.status())) {
    return files;
  }
  absl::MutexLock lock(&draining_mutex_);
  const auto found = draining_.find(id);
  return found == draining_.end() ? std::move(files) : found->second;
}

}  // namespace tenon
