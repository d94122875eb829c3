// TenantDirectory: keys, and whom they let in.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "server/tenant/tenant_directory.h"

namespace tenon {
namespace {

constexpr size_t kMaxNoteBytes = 256;

absl::Status KeyNotFound(absl::string_view id) {
  return ResourceNotFoundError("KEY_NOT_FOUND", id, absl::StrCat("no key ", Quoted(id)));
}

absl::Status SuspendedError(absl::string_view tenant) {
  return PermissionDeniedError("TENANT_SUSPENDED",
                               absl::StrCat("tenant ", tenant, " is suspended"));
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

TenantDirectory::KeyEntry::KeyEntry(KeyRecord key)
    : record(std::move(key)),
      last_used_ns(record.last_used == absl::InfinitePast() ? 0
                                                            : absl::ToUnixNanos(record.last_used)) {
}

void TenantDirectory::Remember(std::vector<KeyRecord> keys) {
  for (KeyRecord& key : keys) {
    const std::string id = key.id;
    keys_.insert_or_assign(id, std::make_shared<KeyEntry>(std::move(key)));
  }
}

absl::Status TenantDirectory::PutKeys(std::vector<KeyRecord> records, const AuditSource& source) {
  const KeyRecord& subject = records.front();
  TENON_RETURN_IF_ERROR(store_.PutKeys(records, Entry(source, subject.tenant, subject.id)));
  absl::MutexLock lock(&mutex_);
  Remember(std::move(records));
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

}  // namespace tenon
