#include "adapters/residency/adapter_publisher.h"

#include <cstdint>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/parse_adapter.h"
#include "adapters/methods/compiler.h"

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

AdapterPublisher::AdapterPublisher(Options options, AdapterVersions* versions)
    : options_(std::move(options)), versions_(versions) {
  versions_->set_on_retired([this](const AdapterInfo& info) {
    if (cache_ != nullptr) {
      cache_->Forget(info.digest);
    }
    if (host_ != nullptr) {
      host_->Erase(info.digest);
    }
  });
}

absl::StatusOr<std::unique_ptr<StagedUpload>> AdapterPublisher::BeginUpload() {
  return versions_->Begin(options_.limits.max_upload_bytes);
}

absl::StatusOr<AdapterCandidate> AdapterPublisher::Prepare(absl::string_view tenant,
                                                           absl::string_view name,
                                                           std::unique_ptr<StagedUpload> upload,
                                                           absl::string_view expected_digest) {
  TENON_RETURN_IF_ERROR(ValidateName("tenant", tenant));
  TENON_RETURN_IF_ERROR(ValidateName("name", name));
  TENON_ASSIGN_OR_RETURN(FileSet files, upload->Seal());
  TENON_RETURN_IF_ERROR(CheckDigest(expected_digest, upload->digest()));
  TENON_ASSIGN_OR_RETURN(const AdapterSpec spec, ParseAdapter(std::move(files), options_.limits));
  TENON_ASSIGN_OR_RETURN(Compilation compilation, Validate(spec));
  AdapterInfo& facts = compilation.facts;
  facts.id = AdapterId{std::string(tenant), std::string(name), 0};
  facts.digest = upload->digest();
  facts.stored_bytes = upload->num_bytes();
  AdapterCandidate candidate;
  candidate.upload_ = std::move(upload);
  candidate.compiled_ = std::move(compilation.compiled);
  candidate.handle_ = AdapterHandle(std::make_shared<const AdapterInfo>(std::move(facts)));
  if (cache_ != nullptr) {
    cache_->Insert(candidate.handle_->digest, candidate.compiled_);
  }
  return candidate;
}

absl::StatusOr<CommittedVersion> AdapterPublisher::Commit(AdapterCandidate candidate,
                                                          const CommitOrder& order,
                                                          std::string acceptance) {
  AdapterInfo facts = *candidate.handle_;
  facts.acceptance = std::move(acceptance);
  absl::StatusOr<CommittedVersion> committed =
      versions_->Commit(std::move(candidate.upload_), std::move(facts), order);
  if (!committed.ok()) {
    Reject(std::move(candidate));
  }
  return committed;
}

void AdapterPublisher::Reject(AdapterCandidate candidate) {
  candidate.compiled_.reset();
  if (cache_ != nullptr) {
    cache_->Evict(candidate.handle_->digest);
  }
}

absl::StatusOr<AdapterPublisher::Compilation> AdapterPublisher::Validate(
    const AdapterSpec& spec) const {
  CompileReport report;
  Compilation result;
  TENON_ASSIGN_OR_RETURN(
      result.compiled,
      tenon::Compile(spec, options_.base, options_.bf16 ? at::kBFloat16 : at::kFloat, &report));
  result.facts.method = std::move(report.method);
  result.facts.num_parameters = report.num_parameters;
  result.facts.max_rank = report.max_rank;
  result.facts.num_sites = report.num_sites;
  result.facts.num_untouched_sites = report.num_untouched_sites;
  result.facts.num_virtual_tokens = report.num_virtual_tokens;
  result.facts.delta_norm_bound = report.delta_norm_bound;
  result.facts.has_weight = result.compiled->has_weight();
  result.facts.resident_bytes = report.resident_bytes;
  result.facts.warnings = std::move(report.warnings);
  const int64_t budget = cache_ == nullptr ? report.resident_bytes : cache_->stats().budget_bytes;
  if (report.resident_bytes > budget) {
    return PreconditionError(
        "ADAPTER_CACHE_TOO_SMALL", "adapter_cache_bytes",
        absl::StrCat("the adapter needs ", report.resident_bytes,
                     " bytes, more than the adapter cache's budget of ", budget));
  }
  return result;
}

absl::StatusOr<std::shared_ptr<const AdapterSpec>> AdapterPublisher::Parse(
    const AdapterInfo& info) {
  if (host_ != nullptr) {
    if (std::shared_ptr<const AdapterSpec> spec = host_->Find(info.digest); spec != nullptr) {
      return spec;
    }
  }
  TENON_ASSIGN_OR_RETURN(FileSet files, versions_->Open(info.id));
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
  absl::StatusOr<Compilation> compilation = Validate(**spec);
  if (!compilation.ok()) {
    return annotate(compilation.status());
  }
  return std::move(compilation->compiled);
}

}  // namespace tenon
