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

constexpr size_t kMaxNoteBytes = 256;
constexpr size_t kMaxReaders = 1000;

absl::Status TenantNotFound(absl::string_view name) {
  return ResourceNotFoundError("TENANT_NOT_FOUND", name, absl::StrCat("no tenant ", Quoted(name)));
}

absl::Status KeyNotFound(absl::string_view id) {
  return ResourceNotFoundError("KEY_NOT_FOUND", id, absl::StrCat("no key ", Quoted(id)));
}

absl::Status SuspendedError(absl::string_view tenant) {
  return PermissionDeniedError("TENANT_SUSPENDED",
                               absl::StrCat("tenant ", tenant, " is suspended"));
}

std::string ShareKey(absl::string_view owner, absl::string_view adapter) {
  return absl::StrCat(owner, "/", adapter);
}

bool IsReader(const ShareRecord& share, absl::string_view tenant) {
  return share.everybody || std::binary_search(share.readers.begin(), share.readers.end(), tenant);
}

absl::Status ValidateNote(absl::string_view note) {
  const bool printable =
      std::all_of(note.begin(), note.end(), [](char c) { return c >= 0x20 && c < 0x7F; });
  if (note.size() <= kMaxNoteBytes && printable) {
    return absl::OkStatus();
  }
  return InvalidFieldError("note", absl::StrCat(Quoted(note), " is not at most ", kMaxNoteBytes,
                                                " bytes of printable ASCII"));
}

}  // namespace

absl::Status InvalidCredentialsError() {
  return UnauthenticatedError("CREDENTIALS_INVALID", "the credentials are not valid");
}

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
    for (KeyRecord& key : keys) {
      const std::string id = key.id;
      auto entry = std::make_shared<KeyEntry>(std::move(key));
      entry->last_used_ns = entry->record.last_used == absl::InfinitePast()
                                ? 0
                                : absl::ToUnixNanos(entry->record.last_used);
      keys_.emplace(id, std::move(entry));
    }
  }
  if (!tenants.empty()) {
    return absl::OkStatus();
  }
  TenantRecord tenant;
  tenant.name = std::string(kDefaultTenant);
  tenant.created = options_.clock();
  return Put(tenant, {"server", "", "CreateTenant"});
}

absl::StatusOr<Identity> TenantDirectory::AuthenticateKey(absl::string_view text) const {
  const std::optional<absl::string_view> id = ApiKeyId(text);
  std::shared_ptr<KeyEntry> entry;
  bool suspended = false;
  if (id.has_value()) {
    absl::ReaderMutexLock lock(&mutex_);
    if (const auto found = keys_.find(*id); found != keys_.end()) {
      entry = found->second;
      const auto tenant = tenants_.find(entry->record.tenant);
      suspended = tenant != tenants_.end() && tenant->second.state == TenantState::kSuspended;
    }
  }
  // An id that does not exist takes the same time as a wrong secret.
  const absl::string_view digest =
      entry == nullptr ? absl::string_view() : absl::string_view(entry->record.digest);
  if (!options_.hasher.Matches(text, digest) || entry == nullptr) {
    return InvalidCredentialsError();
  }
  const KeyRecord& key = entry->record;
  const absl::Time now = options_.clock();
  if (now >= key.revoked) {
    return UnauthenticatedError("CREDENTIALS_REVOKED", absl::StrCat("key ", key.id, " is revoked"));
  }
  if (now >= key.expires) {
    return UnauthenticatedError("CREDENTIALS_EXPIRED",
                                absl::StrCat("key ", key.id, " expired at ",
                                             absl::FormatTime(key.expires, absl::UTCTimeZone())));
  }
  if (suspended) {
    return SuspendedError(key.tenant);
  }
  entry->last_used_ns.store(absl::ToUnixNanos(now), std::memory_order_relaxed);
  entry->used_since_flush.store(true, std::memory_order_relaxed);
  return Identity{key.tenant, {key.role}, absl::StrCat("key:", key.id)};
}

absl::Status TenantDirectory::CheckActive(absl::string_view tenant) const {
  absl::ReaderMutexLock lock(&mutex_);
  const auto found = tenants_.find(tenant);
  if (found == tenants_.end()) {
    return InvalidCredentialsError();
  }
  return found->second.state == TenantState::kActive ? absl::OkStatus() : SuspendedError(tenant);
}

bool TenantDirectory::has_keys() const {
  absl::ReaderMutexLock lock(&mutex_);
  return !keys_.empty();
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

KeyRecord TenantDirectory::WithLastUse(const KeyEntry& entry) {
  KeyRecord record = entry.record;
  if (const int64_t nanos = entry.last_used_ns.load(std::memory_order_relaxed); nanos != 0) {
    record.last_used = absl::FromUnixNanos(nanos);
  }
  return record;
}

std::vector<KeyRecord> TenantDirectory::ListKeys(absl::string_view tenant) const {
  std::vector<KeyRecord> keys;
  {
    absl::ReaderMutexLock lock(&mutex_);
    for (const auto& [id, entry] : keys_) {
      if (entry->record.tenant == tenant) {
        keys.push_back(WithLastUse(*entry));
      }
    }
  }
  std::sort(keys.begin(), keys.end(),
            [](const KeyRecord& a, const KeyRecord& b) { return a.id < b.id; });
  return keys;
}

absl::StatusOr<KeyRecord> TenantDirectory::FindKey(absl::string_view id) const {
  absl::ReaderMutexLock lock(&mutex_);
  const auto found = keys_.find(id);
  if (found == keys_.end()) {
    return KeyNotFound(id);
  }
  return WithLastUse(*found->second);
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

IssuedKey TenantDirectory::Issue(absl::string_view tenant, Role role, absl::Time expires,
                                 absl::string_view note) {
  ApiKey key = ApiKey::Draw(options_.random);
  IssuedKey issued;
  issued.record.id = std::move(key.id);
  issued.record.tenant = std::string(tenant);
  issued.record.role = role;
  issued.record.digest = options_.hasher.Digest(key.text);
  issued.record.created = options_.clock();
  issued.record.expires = expires;
  issued.record.note = std::string(note);
  issued.text = std::move(key.text);
  return issued;
}

absl::Status TenantDirectory::PutKeys(std::vector<KeyRecord> records, const AuditSource& source) {
  const KeyRecord& subject = records.front();
  TENON_RETURN_IF_ERROR(store_.PutKeys(records, Entry(source, subject.tenant, subject.id)));
  absl::MutexLock lock(&mutex_);
  for (KeyRecord& record : records) {
    const std::string id = record.id;
    const absl::Time last_used = record.last_used;
    auto entry = std::make_shared<KeyEntry>(std::move(record));
    entry->last_used_ns = last_used == absl::InfinitePast() ? 0 : absl::ToUnixNanos(last_used);
    keys_.insert_or_assign(id, std::move(entry));
  }
  return absl::OkStatus();
}

absl::StatusOr<IssuedKey> TenantDirectory::CreateKey(absl::string_view tenant, Role role,
                                                     absl::Time expires, absl::string_view note,
                                                     const AuditSource& source) {
  TENON_RETURN_IF_ERROR(ValidateNote(note));
  if (tenant.empty() != (role == Role::kOperator)) {
    return InvalidFieldError("role", "a key of role operator has no tenant, every other key one");
  }
  absl::MutexLock write_lock(&write_mutex_);
  if (!tenant.empty()) {
    TENON_RETURN_IF_ERROR(Find(tenant).status());
  }
  if (role != Role::kOperator && !has_keys()) {
    return PreconditionError("OPERATOR_KEY_MISSING", "keys",
                             "the first key must have the role operator: from then on nobody is "
                             "let in without a key");
  }
  if (expires <= options_.clock()) {
    return InvalidFieldError("expire_time", "the key would be born expired");
  }
  IssuedKey issued = Issue(tenant, role, expires, note);
  TENON_RETURN_IF_ERROR(PutKeys({issued.record}, source));
  return issued;
}

absl::StatusOr<IssuedKey> TenantDirectory::RotateKey(absl::string_view id, absl::Duration overlap,
                                                     const AuditSource& source) {
  absl::MutexLock write_lock(&write_mutex_);
  TENON_ASSIGN_OR_RETURN(KeyRecord old, FindKey(id));
  const absl::Time now = options_.clock();
  if (now >= old.revoked || now >= old.expires) {
    return PreconditionError("KEY_NOT_VALID", id, absl::StrCat("key ", id, " is not valid"));
  }
  IssuedKey issued = Issue(old.tenant, old.role, old.expires, old.note);
  old.expires = std::min(old.expires, now + std::max(overlap, absl::ZeroDuration()));
  TENON_RETURN_IF_ERROR(PutKeys({std::move(old), issued.record}, source));
  return issued;
}

absl::StatusOr<KeyRecord> TenantDirectory::RevokeKey(absl::string_view id,
                                                     const AuditSource& source) {
  absl::MutexLock write_lock(&write_mutex_);
  TENON_ASSIGN_OR_RETURN(KeyRecord key, FindKey(id));
  key.revoked = std::min(key.revoked, options_.clock());
  TENON_RETURN_IF_ERROR(PutKeys({key}, source));
  return key;
}

bool TenantDirectory::MayUse(absl::string_view reader, absl::string_view owner,
                             absl::string_view adapter) const {
  return reader == owner || IsReader(ShareOf(owner, adapter), reader);
}

ShareRecord TenantDirectory::ShareOf(absl::string_view owner, absl::string_view adapter) const {
  absl::ReaderMutexLock lock(&mutex_);
  const auto found = shares_.find(ShareKey(owner, adapter));
  return found == shares_.end() ? ShareRecord{std::string(owner), std::string(adapter), false, {}}
                                : found->second;
}

std::vector<ShareRecord> TenantDirectory::SharedWith(absl::string_view reader) const {
  std::vector<ShareRecord> shared;
  absl::ReaderMutexLock lock(&mutex_);
  for (const auto& [key, share] : shares_) {
    if (share.tenant != reader && IsReader(share, reader)) {
      shared.push_back(share);
    }
  }
  return shared;
}

absl::StatusOr<ShareRecord> TenantDirectory::Share(ShareRecord share, const AuditSource& source) {
  std::sort(share.readers.begin(), share.readers.end());
  share.readers.erase(std::unique(share.readers.begin(), share.readers.end()), share.readers.end());
  if (share.readers.size() > kMaxReaders) {
    return InvalidFieldError("tenants", absl::StrCat(share.readers.size(), " tenants exceed the ",
                                                     kMaxReaders, " of one adapter"));
  }
  for (const std::string& reader : share.readers) {
    TENON_RETURN_IF_ERROR(ValidateName("tenants", reader));
  }
  absl::MutexLock write_lock(&write_mutex_);
  TENON_RETURN_IF_ERROR(store_.PutShare(share, Entry(source, share.tenant, share.adapter)));
  absl::MutexLock lock(&mutex_);
  if (share.everybody || !share.readers.empty()) {
    shares_.insert_or_assign(ShareKey(share.tenant, share.adapter), share);
  } else {
    shares_.erase(ShareKey(share.tenant, share.adapter));
  }
  return share;
}

PlacementRecord TenantDirectory::PlacementOf(absl::string_view tenant, absl::string_view adapter,
                                             int64_t version) const {
  const PlacementKey key{std::string(tenant), std::string(adapter), version};
  absl::ReaderMutexLock lock(&mutex_);
  const auto found = placements_.find(key);
  return found == placements_.end()
             ? PlacementRecord{std::string(tenant), std::string(adapter), version}
             : found->second;
}

std::vector<PlacementRecord> TenantDirectory::Placements() const {
  absl::ReaderMutexLock lock(&mutex_);
  std::vector<PlacementRecord> placements;
  for (const auto& [key, placement] : placements_) {
    placements.push_back(placement);
  }
  return placements;
}

absl::Status TenantDirectory::Place(const PlacementRecord& placement, const AuditSource& source) {
  const PlacementKey key(placement.tenant, placement.adapter, placement.version);
  absl::MutexLock write_lock(&write_mutex_);
  TENON_RETURN_IF_ERROR(store_.PutPlacement(
      placement, Entry(source, placement.tenant,
                       absl::StrCat(placement.adapter, "@", placement.version))));
  absl::MutexLock lock(&mutex_);
  if (placement.says_nothing()) {
    placements_.erase(key);
  } else {
    placements_.insert_or_assign(key, placement);
  }
  return absl::OkStatus();
}

absl::Status TenantDirectory::DropPlacements(const std::vector<PlacementRecord>& placements) {
  absl::MutexLock write_lock(&write_mutex_);
  TENON_RETURN_IF_ERROR(store_.DropPlacements(placements));
  absl::MutexLock lock(&mutex_);
  for (const PlacementRecord& gone : placements) {
    placements_.erase(PlacementKey(gone.tenant, gone.adapter, gone.version));
  }
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
