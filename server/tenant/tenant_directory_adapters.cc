// TenantDirectory: who may use whose adapters, and where they are to be.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/registry/adapter_id.h"
#include "server/tenant/tenant_directory.h"

namespace tenon {
namespace {

constexpr size_t kMaxReaders = 1000;

bool IsReader(const ShareRecord& share, absl::string_view tenant) {
  return share.everybody || std::binary_search(share.readers.begin(), share.readers.end(), tenant);
}

}  // namespace

std::string TenantDirectory::ShareKey(absl::string_view owner, absl::string_view adapter) {
  return absl::StrCat(owner, "/", adapter);
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
      placement,
      Entry(source, placement.tenant, absl::StrCat(placement.adapter, "@", placement.version))));
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

}  // namespace tenon
