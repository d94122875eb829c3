#include "adapters/registry/adapter_registry.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"

namespace tenon {
namespace {

// The tenant is left out: to ask for another tenant's adapter reads the same as for none.
absl::Status NotFound(const AdapterRef& ref) {
  return ResourceNotFoundError("ADAPTER_NOT_FOUND", ref.ToString(),
                               absl::StrCat("adapter ", Quoted(ref.ToString()), " is not live"));
}

// A name without the alias that was asked for says what it has.
absl::Status AliasNotFound(const AdapterRef& ref, absl::string_view alias,
                           const AdapterName& name) {
  std::string there;
  for (const auto& [other, version] : name.pointers.aliases) {
    absl::StrAppend(&there, there.empty() ? "" : ", ", other, " = ", version);
  }
  return ResourceNotFoundError("ADAPTER_NOT_FOUND", ref.ToString(),
                               absl::StrCat("adapter ", Quoted(ref.ToString()), " is not live: ",
                                            name.name, " has no alias ", Quoted(alias), "; it has ",
                                            there.empty() ? "versions only" : there));
}

absl::Status Quarantined(const AdapterRef& ref, int64_t version, absl::string_view reason) {
  return ResourceConflictError(
      absl::StatusCode::kDataLoss, "ADAPTER_QUARANTINED", ref.ToString(),
      absl::StrCat("adapter ", Quoted(ref.ToString()), ": version ", version,
                   " is quarantined: ", reason, "; uploading the same files once more repairs it"));
}

// Versions that were there keep their object, by which handles know each other.
void KeepIdentity(const AdapterName& before, AdapterName& after) {
  for (auto& [version, info] : after.versions) {
    const auto found = before.versions.find(version);
    if (found != before.versions.end() && found->second->digest == info->digest) {
      info = found->second;
    }
  }
}

}  // namespace

std::shared_ptr<const AdapterName> AdapterRegistry::Snapshot::Find(absl::string_view tenant,
                                                                   absl::string_view name) const {
  const TenantNames* of_tenant = tenants.Find(tenant);
  if (of_tenant == nullptr || of_tenant->names == nullptr) {
    return nullptr;
  }
  const std::shared_ptr<const AdapterName>* found = of_tenant->names->Find(name);
  return found == nullptr ? nullptr : *found;
}

void AdapterRegistry::Snapshot::Set(std::shared_ptr<const AdapterName> name) {
  const TenantNames* current = tenants.Find(name->tenant);
  const bool has_names = current != nullptr && current->names != nullptr;
  auto names = has_names ? std::make_shared<Names>(*current->names) : std::make_shared<Names>();
  TenantNames next;
  next.generation = std::max(name->generation, current == nullptr ? 0 : current->generation);
  const std::string tenant = name->tenant;
  if (name->versions.empty()) {
    names->Erase(name->name);
  } else {
    const std::string key = name->name;
    names->Set(key, std::move(name));
  }
  if (!names->empty()) {
    next.names = std::move(names);
  }
  tenants.Set(tenant, std::move(next));
}

AdapterRegistry::AdapterRegistry() : snapshot_(std::make_shared<const Snapshot>()) {}

void AdapterRegistry::Replace(AdapterName name) {
  const std::string tenant = name.tenant;
  {
    absl::MutexLock lock(&write_mutex_);
    ReplaceLocked(std::move(name));
  }
  Notify(tenant);
}

void AdapterRegistry::Quarantine(const AdapterId& id, std::string reason) {
  {
    absl::MutexLock lock(&write_mutex_);
    const std::shared_ptr<const AdapterName> current = Find(id.tenant, id.name);
    if (current == nullptr || !current->versions.contains(id.version)) {
      return;
    }
    AdapterName next = *current;
    next.quarantined[id.version] = std::move(reason);
    ReplaceLocked(std::move(next));
  }
  Notify(id.tenant);
}

void AdapterRegistry::ReplaceLocked(AdapterName name) {
  std::shared_ptr<const Snapshot> current = snapshot();
  auto next = std::make_shared<Snapshot>(*current);
  const std::shared_ptr<const AdapterName> before = current->Find(name.tenant, name.name);
  current.reset();
  std::vector<std::weak_ptr<const AdapterInfo>> retired;
  if (before != nullptr) {
    KeepIdentity(*before, name);
    for (const auto& [version, info] : before->versions) {
      if (!name.versions.contains(version)) {
        retired.push_back(info);
      }
    }
    next->num_versions -= static_cast<int64_t>(before->versions.size());
    next->num_quarantined -= static_cast<int64_t>(before->quarantined.size());
  }
  next->num_versions += static_cast<int64_t>(name.versions.size());
  next->num_quarantined += static_cast<int64_t>(name.quarantined.size());
  next->Set(std::make_shared<const AdapterName>(std::move(name)));
  std::shared_ptr<const Snapshot> replacement = std::move(next);
  absl::MutexLock lock(&mutex_);
  snapshot_.swap(replacement);  // the old one is freed by this scope, after the lock
  draining_.erase(std::remove_if(draining_.begin(), draining_.end(),
                                 [](const auto& weak) { return weak.expired(); }),
                  draining_.end());
  draining_.insert(draining_.end(), retired.begin(), retired.end());
}

absl::StatusOr<AdapterHandle> AdapterRegistry::Acquire(absl::string_view tenant,
                                                       const AdapterRef& ref,
                                                       absl::string_view routing_key,
                                                       AdapterRoute* route) const {
  const std::shared_ptr<const AdapterName> name = Find(tenant, ref.name);
  if (name == nullptr) {
    return NotFound(ref);
  }
  int64_t version = ref.version;
  absl::string_view alias = ref.alias;
  if (version == 0) {
    if (ref.is_bare()) {
      alias = name->pointers.split.empty()
                  ? kLatestAlias
                  : AliasAt(name->pointers, RoutingPoint(tenant, ref.name, routing_key));
    }
    const auto pointer = name->pointers.aliases.find(alias);
    if (pointer == name->pointers.aliases.end()) {
      return AliasNotFound(ref, alias, *name);
    }
    version = pointer->second;
  }
  const auto found = name->versions.find(version);
  if (found == name->versions.end()) {
    return NotFound(ref);
  }
  if (const auto bad = name->quarantined.find(version); bad != name->quarantined.end()) {
    return Quarantined(ref, version, bad->second);
  }
  if (route != nullptr) {
    *route = {std::string(alias), ref.is_bare() && !name->pointers.split.empty()};
  }
  return AdapterHandle(found->second);
}

std::vector<AdapterStatus> AdapterRegistry::List(absl::string_view tenant) const {
  std::shared_ptr<const Snapshot> current;
  std::vector<AdapterStatus> list;
  {
    absl::MutexLock lock(&mutex_);  // both parts of one moment
    current = snapshot_;
    for (const std::weak_ptr<const AdapterInfo>& weak : draining_) {
      if (auto adapter = weak.lock(); adapter != nullptr && adapter->id.tenant == tenant) {
        list.push_back({AdapterHandle(std::move(adapter)), AdapterState::kDraining, false, {}});
      }
    }
  }
  const TenantNames* of_tenant = current->tenants.Find(tenant);
  if (of_tenant != nullptr && of_tenant->names != nullptr) {
    of_tenant->names->ForEach(
        [&](const std::string&, const std::shared_ptr<const AdapterName>& name) {
          for (AdapterStatus& status : StatusesOf(*name)) {
            list.push_back(std::move(status));
          }
        });
  }
  std::sort(list.begin(), list.end(), [](const AdapterStatus& a, const AdapterStatus& b) {
    return a.adapter.id() < b.adapter.id();
  });
  return list;
}

std::vector<AdapterStatus> StatusesOf(const AdapterName& name) {
  std::vector<AdapterStatus> statuses;
  for (const auto& [version, info] : name.versions) {
    AdapterStatus status;
    status.adapter = AdapterHandle(info);
    status.state =
        name.quarantined.contains(version) ? AdapterState::kQuarantined : AdapterState::kLive;
    for (const auto& [alias, target] : name.pointers.aliases) {
      if (target == version) {
        status.latest = status.latest || alias == kLatestAlias;
        status.aliases.push_back(alias);
      }
    }
    statuses.push_back(std::move(status));
  }
  return statuses;
}

std::shared_ptr<const AdapterName> AdapterRegistry::Find(absl::string_view tenant,
                                                         absl::string_view name) const {
  return snapshot()->Find(tenant, name);
}

AdapterSet AdapterRegistry::Set(absl::string_view tenant) const {
  const std::shared_ptr<const Snapshot> current = snapshot();
  AdapterSet set;
  if (const TenantNames* of_tenant = current->tenants.Find(tenant); of_tenant != nullptr) {
    set.generation = of_tenant->generation;
    if (of_tenant->names != nullptr) {
      of_tenant->names->ForEach(
          [&](const std::string&, const std::shared_ptr<const AdapterName>& name) {
            set.names.push_back(name);
          });
    }
  }
  return set;
}

int64_t AdapterRegistry::num_live() const {
  const std::shared_ptr<const Snapshot> current = snapshot();
  return current->num_versions - current->num_quarantined;
}

int64_t AdapterRegistry::num_quarantined() const { return snapshot()->num_quarantined; }

std::shared_ptr<void> AdapterRegistry::Subscribe(absl::string_view tenant,
                                                 std::function<void()> on_change) {
  auto subscriber =
      std::make_shared<const Subscriber>(Subscriber{std::string(tenant), std::move(on_change)});
  absl::MutexLock lock(&mutex_);
  subscribers_.erase(std::remove_if(subscribers_.begin(), subscribers_.end(),
                                    [](const auto& weak) { return weak.expired(); }),
                     subscribers_.end());
  subscribers_.push_back(subscriber);
  return std::const_pointer_cast<Subscriber>(subscriber);
}

void AdapterRegistry::Notify(absl::string_view tenant) const {
  std::vector<std::shared_ptr<const Subscriber>> told;
  {
    absl::MutexLock lock(&mutex_);
    for (const std::weak_ptr<const Subscriber>& weak : subscribers_) {
      auto subscriber = weak.lock();
      if (subscriber != nullptr && subscriber->tenant == tenant) {
        told.push_back(std::move(subscriber));
      }
    }
  }
  for (const std::shared_ptr<const Subscriber>& subscriber : told) {
    subscriber->on_change();
  }
}

std::shared_ptr<const AdapterRegistry::Snapshot> AdapterRegistry::snapshot() const {
  absl::MutexLock lock(&mutex_);
  return snapshot_;
}

}  // namespace tenon
