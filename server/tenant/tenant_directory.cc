#include "server/tenant/tenant_directory.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/registry/adapter_id.h"

namespace tenon {
namespace {

absl::Status TenantNotFound(absl::string_view name) {
  return ResourceNotFoundError("TENANT_NOT_FOUND", name, absl::StrCat("no tenant ", Quoted(name)));
}

}  // namespace

absl::Status ValidateLimits(const TenantLimits& limits) {
  for (const LimitField& limit : kLimitFields) {
    const int64_t value = limits.*limit.field;
    if (value < 0 || value > limit.max) {
      return InvalidFieldError(absl::StrCat("limits.", limit.name),
                               absl::StrCat(value, " is not in [0, ", limit.max, "]"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<TenantDirectory>> TenantDirectory::Open(Options options) {
  TENON_ASSIGN_OR_RETURN(TenantStore store, TenantStore::Open(options.path));
  std::unique_ptr<TenantDirectory> directory(
      new TenantDirectory(std::move(options), std::move(store)));
  TENON_RETURN_IF_ERROR(directory->Load());
  return directory;
}

TenantDirectory::TenantDirectory(Options options, TenantStore store)
    : options_(std::move(options)), store_(std::move(store)) {}

absl::Status TenantDirectory::Load() {
  absl::MutexLock write_lock(&write_mutex_);
  TENON_ASSIGN_OR_RETURN(std::vector<TenantRecord> tenants, store_.Tenants());
  TENON_ASSIGN_OR_RETURN(std::vector<KeyRecord> keys, store_.Keys());
  TENON_ASSIGN_OR_RETURN(std::vector<ShareRecord> shares, store_.Shares());
  TENON_ASSIGN_OR_RETURN(std::vector<PlacementRecord> placements, store_.Placements());
  {
    absl::MutexLock lock(&mutex_);
    for (PlacementRecord& placed : placements) {
      placements_.emplace(PlacementKey(placed.tenant, placed.adapter, placed.version),
                          std::move(placed));
    }
    for (ShareRecord& share : shares) {
      shares_.emplace(ShareKey(share.tenant, share.adapter), std::move(share));
    }
    for (TenantRecord& tenant : tenants) {
      tenants_.emplace(tenant.name, std::move(tenant));
    }
    Remember(std::move(keys));
  }
  if (!tenants.empty()) {
    return absl::OkStatus();
  }
  TenantRecord tenant;
  tenant.name = std::string(kDefaultTenant);
  tenant.created = options_.clock();
  return Put(tenant, {"server", "", "CreateTenant"});
}

TenantLimits TenantDirectory::LimitsOf(absl::string_view tenant) const {
  absl::ReaderMutexLock lock(&mutex_);
  const auto found = tenants_.find(tenant);
  return found == tenants_.end() ? TenantLimits() : found->second.limits;
}

absl::StatusOr<TenantRecord> TenantDirectory::Find(absl::string_view tenant) const {
  absl::ReaderMutexLock lock(&mutex_);
  const auto found = tenants_.find(tenant);
  if (found == tenants_.end()) {
    return TenantNotFound(tenant);
  }
  return found->second;
}

std::vector<TenantRecord> TenantDirectory::List() const {
  absl::ReaderMutexLock lock(&mutex_);
  std::vector<TenantRecord> tenants;
  tenants.reserve(tenants_.size());
  for (const auto& [name, tenant] : tenants_) {
    tenants.push_back(tenant);
  }
  return tenants;
}

AuditEntry TenantDirectory::Entry(const AuditSource& source, absl::string_view tenant,
                                  absl::string_view object) const {
  AuditEntry entry;
  entry.time = options_.clock();
  entry.actor = source.actor;
  entry.peer = source.peer;
  entry.action = source.action;
  entry.tenant = std::string(tenant);
  entry.object = std::string(object);
  entry.outcome = "ok";
  return entry;
}

absl::Status TenantDirectory::Put(const TenantRecord& record, const AuditSource& source) {
  TENON_RETURN_IF_ERROR(store_.PutTenant(record, Entry(source, record.name, record.name)));
  absl::MutexLock lock(&mutex_);
  tenants_.insert_or_assign(record.name, record);
  return absl::OkStatus();
}

absl::StatusOr<TenantRecord> TenantDirectory::Create(absl::string_view name,
                                                     const TenantLimits& limits,
                                                     const AuditSource& source) {
  TENON_RETURN_IF_ERROR(ValidateName("name", name));
  TENON_RETURN_IF_ERROR(ValidateLimits(limits));
  absl::MutexLock write_lock(&write_mutex_);
  if (Find(name).ok()) {
    return ResourceConflictError(absl::StatusCode::kAlreadyExists, "TENANT_EXISTS", name,
                                 absl::StrCat("tenant ", name, " exists already"));
  }
  TenantRecord record{std::string(name), TenantState::kActive, limits, options_.clock()};
  TENON_RETURN_IF_ERROR(Put(record, source));
  return record;
}

absl::StatusOr<TenantRecord> TenantDirectory::SetState(absl::string_view name, TenantState state,
                                                       const AuditSource& source) {
  absl::MutexLock write_lock(&write_mutex_);
  TENON_ASSIGN_OR_RETURN(TenantRecord record, Find(name));
  record.state = state;
  TENON_RETURN_IF_ERROR(Put(record, source));
  return record;
}

absl::StatusOr<TenantRecord> TenantDirectory::SetLimits(absl::string_view name,
                                                        const TenantLimits& limits,
                                                        const AuditSource& source) {
  TENON_RETURN_IF_ERROR(ValidateLimits(limits));
  absl::MutexLock write_lock(&write_mutex_);
  TENON_ASSIGN_OR_RETURN(TenantRecord record, Find(name));
  record.limits = limits;
  TENON_RETURN_IF_ERROR(Put(record, source));
  return record;
}

absl::Status TenantDirectory::Delete(absl::string_view name, const AuditSource& source) {
  absl::MutexLock write_lock(&write_mutex_);
  TENON_RETURN_IF_ERROR(Find(name).status());
  TENON_RETURN_IF_ERROR(store_.DeleteTenant(name, Entry(source, name, name)));
  absl::MutexLock lock(&mutex_);
  tenants_.erase(std::string(name));
  absl::erase_if(keys_, [&](const auto& item) { return item.second->record.tenant == name; });
  for (auto share = shares_.begin(); share != shares_.end();) {
    std::erase(share->second.readers, name);  // a later tenant of that name is another one
    share = share->second.tenant == name ? shares_.erase(share) : std::next(share);
  }
  absl::erase_if(placements_, [&](const auto& item) { return item.second.tenant == name; });
  return absl::OkStatus();
}

absl::Status TenantDirectory::Audit(const AuditSource& source, absl::string_view tenant,
                                    absl::string_view object, absl::string_view outcome) {
  AuditEntry entry = Entry(source, tenant, object);
  entry.outcome = std::string(outcome);
  absl::MutexLock write_lock(&write_mutex_);
  return store_.AppendAudit(entry);
}

absl::StatusOr<std::vector<AuditEntry>> TenantDirectory::ListAudit(absl::string_view tenant,
                                                                   int64_t before, int64_t limit) {
  absl::MutexLock write_lock(&write_mutex_);
  return store_.ListAudit(tenant, before, limit);
}

absl::StatusOr<std::vector<UsageRecord>> TenantDirectory::LoadUsage() {
  absl::MutexLock write_lock(&write_mutex_);
  return store_.Usage();
}

absl::StatusOr<std::vector<BucketRecord>> TenantDirectory::LoadBuckets() {
  absl::MutexLock write_lock(&write_mutex_);
  return store_.Buckets();
}

absl::Status TenantDirectory::Flush(const std::vector<UsageRecord>& more,
                                    const std::vector<BucketRecord>& buckets) {
  absl::MutexLock write_lock(&write_mutex_);
  std::vector<std::pair<std::string, absl::Time>> last_uses;
  {
    absl::ReaderMutexLock lock(&mutex_);
    for (const auto& [id, entry] : keys_) {
      if (entry->used_since_flush.exchange(false, std::memory_order_relaxed)) {
        last_uses.emplace_back(id, absl::FromUnixNanos(entry->last_used_ns));
      }
    }
  }
  return more.empty() && last_uses.empty() && buckets.empty()
             ? absl::OkStatus()
             : store_.Flush(more, last_uses, buckets);
}

}  // namespace tenon
