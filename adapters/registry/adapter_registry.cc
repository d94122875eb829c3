#include "adapters/registry/adapter_registry.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"

namespace tenon {

const AdapterRegistry::Versions* AdapterRegistry::Snapshot::FindVersions(
    absl::string_view tenant, absl::string_view name) const {
  const std::shared_ptr<const Names>* names = tenants.Find(tenant);
  if (names == nullptr) {
    return nullptr;
  }
  const std::shared_ptr<const Versions>* versions = (*names)->Find(name);
  return versions == nullptr ? nullptr : versions->get();
}

void AdapterRegistry::Snapshot::SetVersions(const AdapterId& id, Versions versions) {
  const std::shared_ptr<const Names>* current = tenants.Find(id.tenant);
  auto names = current == nullptr ? std::make_shared<Names>() : std::make_shared<Names>(**current);
  if (versions.empty()) {
    names->Erase(id.name);
  } else {
    names->Set(id.name, std::make_shared<const Versions>(std::move(versions)));
  }
  if (names->empty()) {
    tenants.Erase(id.tenant);
  } else {
    tenants.Set(id.tenant, std::move(names));
  }
}

AdapterRegistry::AdapterRegistry() : snapshot_(std::make_shared<const Snapshot>()) {}

absl::Status AdapterRegistry::Publish(AdapterInfo info) {
  TENON_RETURN_IF_ERROR(ValidateName("tenant", info.id.tenant));
  TENON_RETURN_IF_ERROR(ValidateName("name", info.id.name));
  if (info.id.version < 1) {
    return InvalidFieldError("version",
                             absl::StrCat("version of ", info.id.ToString(), " is less than 1"));
  }
  const auto adapter = std::make_shared<const AdapterInfo>(std::move(info));
  const AdapterId& id = adapter->id;

  absl::MutexLock lock(&write_mutex_);
  auto next = std::make_shared<Snapshot>(*snapshot());
  const Versions* current = next->FindVersions(id.tenant, id.name);
  Versions versions = current == nullptr ? Versions() : *current;
  if (!versions.emplace(id.version, adapter).second || IsDraining(id)) {
    return ResourceConflictError(
        absl::StatusCode::kAlreadyExists, "ADAPTER_EXISTS", id.ToString(),
        absl::StrCat("adapter ", id.ToString(), " is already live or still draining"));
  }
  next->SetVersions(id, std::move(versions));
  ++next->num_live;
  Replace(std::move(next), nullptr);
  return absl::OkStatus();
}

absl::Status AdapterRegistry::Retire(const AdapterId& id) {
  absl::MutexLock lock(&write_mutex_);
  auto next = std::make_shared<Snapshot>(*snapshot());
  const Versions* current = next->FindVersions(id.tenant, id.name);
  if (current == nullptr || !current->contains(id.version)) {
    return ResourceNotFoundError("ADAPTER_NOT_FOUND", id.ToString(),
                                 absl::StrCat("adapter ", id.ToString(), " is not live"));
  }
  Versions versions = *current;
  const std::shared_ptr<const AdapterInfo> retired = versions.at(id.version);
  versions.erase(id.version);
  next->SetVersions(id, std::move(versions));
  --next->num_live;
  Replace(std::move(next), retired);
  return absl::OkStatus();
}

absl::StatusOr<AdapterHandle> AdapterRegistry::Acquire(absl::string_view tenant,
                                                       const AdapterRef& ref) const {
  const std::shared_ptr<const Snapshot> current = snapshot();
  if (const Versions* versions = current->FindVersions(tenant, ref.name); versions != nullptr) {
    if (ref.version == 0) {
      return AdapterHandle(versions->rbegin()->second);
    }
    if (const auto found = versions->find(ref.version); found != versions->end()) {
      return AdapterHandle(found->second);
    }
  }
  // The tenant is left out: to ask for another tenant's adapter reads the same as for none.
  return ResourceNotFoundError("ADAPTER_NOT_FOUND", ref.ToString(),
                               absl::StrCat("adapter ", Quoted(ref.ToString()), " is not live"));
}

std::vector<AdapterStatus> AdapterRegistry::List(absl::string_view tenant) const {
  std::shared_ptr<const Snapshot> current;
  std::vector<AdapterStatus> list;
  {
    absl::MutexLock lock(&mutex_);  // both parts of one moment
    current = snapshot_;
    for (const std::weak_ptr<const AdapterInfo>& weak : draining_) {
      if (auto adapter = weak.lock(); adapter != nullptr && adapter->id.tenant == tenant) {
        list.push_back({AdapterHandle(std::move(adapter)), AdapterState::kDraining, false});
      }
    }
  }
  if (const auto* names = current->tenants.Find(tenant); names != nullptr) {
    (*names)->ForEach([&](const std::string&, const std::shared_ptr<const Versions>& versions) {
      for (const auto& [version, adapter] : *versions) {
        const bool latest = version == versions->rbegin()->first;
        list.push_back({AdapterHandle(adapter), AdapterState::kLive, latest});
      }
    });
  }
  std::sort(list.begin(), list.end(), [](const AdapterStatus& a, const AdapterStatus& b) {
    return a.adapter.id() < b.adapter.id();
  });
  return list;
}

int64_t AdapterRegistry::num_live() const { return snapshot()->num_live; }

std::shared_ptr<const AdapterRegistry::Snapshot> AdapterRegistry::snapshot() const {
  absl::MutexLock lock(&mutex_);
  return snapshot_;
}

void AdapterRegistry::Replace(std::shared_ptr<const Snapshot> next,
                              const std::shared_ptr<const AdapterInfo>& retired) {
  absl::MutexLock lock(&mutex_);
  snapshot_.swap(next);  // `next`, now the old snapshot, is freed by the caller's scope, unlocked
  draining_.erase(std::remove_if(draining_.begin(), draining_.end(),
                                 [](const auto& weak) { return weak.expired(); }),
                  draining_.end());
  if (retired != nullptr) {
    draining_.push_back(retired);
  }
}

bool AdapterRegistry::IsDraining(const AdapterId& id) const {
  absl::MutexLock lock(&mutex_);
  return std::any_of(draining_.begin(), draining_.end(), [&](const auto& weak) {
    const std::shared_ptr<const AdapterInfo> adapter = weak.lock();
    return adapter != nullptr && adapter->id == id;
  });
}

}  // namespace tenon
