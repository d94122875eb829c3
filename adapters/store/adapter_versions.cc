#include "adapters/store/adapter_versions.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "spdlog/spdlog.h"

namespace tenon {
namespace {

absl::Status NameNotFound(const AdapterRef& ref) {
  return ResourceNotFoundError("ADAPTER_NOT_FOUND", ref.ToString(),
                               absl::StrCat("adapter ", ref.ToString(), " does not exist"));
}

bool HoldsDigest(const AdapterName* name, const std::string& digest) {
  return name != nullptr &&
         std::any_of(name->versions.begin(), name->versions.end(),
                     [&](const auto& entry) { return entry.second->digest == digest; });
}

}  // namespace

AdapterVersions::AdapterVersions(AdapterStore* store, AdapterRegistry* registry,
                                 int64_t max_versions_per_tenant)
    : store_(store), registry_(registry), max_versions_per_tenant_(max_versions_per_tenant) {}

absl::Status AdapterVersions::Restore() {
  absl::MutexLock lock(&change_mutex_);
  TENON_ASSIGN_OR_RETURN(std::vector<AdapterName> names, store_->Names());
  for (AdapterName& name : names) {
    for (const auto& [version, reason] : name.quarantined) {
      spdlog::error("event=adapter_quarantined adapter={}/{}@{} error=\"{}\"", name.tenant,
                    name.name, version, reason);
    }
    registry_->Replace(std::move(name));
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> AdapterVersions::Refresh() {
  absl::MutexLock lock(&change_mutex_);
  TENON_ASSIGN_OR_RETURN(std::vector<AdapterName> changed, store_->Refresh());
  for (AdapterName& name : changed) {
    const std::shared_ptr<const AdapterName> before = registry_->Find(name.tenant, name.name);
    std::vector<std::shared_ptr<const AdapterInfo>> gone;
    if (before != nullptr) {
      for (const auto& [version, info] : before->versions) {
        if (!name.versions.contains(version)) {
          gone.push_back(info);
        }
      }
    }
    registry_->Replace(std::move(name));
    for (const std::shared_ptr<const AdapterInfo>& info : gone) {
      if (on_retired_) {
        on_retired_(*info);
      }
    }
  }
  return static_cast<int64_t>(changed.size());
}

absl::StatusOr<CommittedVersion> AdapterVersions::Commit(std::unique_ptr<StagedUpload> upload,
                                                         AdapterInfo facts,
                                                         const CommitOrder& order) {
  absl::MutexLock lock(&change_mutex_);
  TENON_RETURN_IF_ERROR(CheckRoom(facts.id, upload->digest()));
  TENON_ASSIGN_OR_RETURN(CommittedVersion committed,
                         store_->Commit(std::move(upload), std::move(facts), order));
  registry_->Replace(committed.name.after);
  ReleaseDrained();
  return committed;
}

absl::Status AdapterVersions::CheckRoom(const AdapterId& id, const std::string& digest) const {
  if (HoldsDigest(registry_->Find(id.tenant, id.name).get(), digest)) {
    return absl::OkStatus();  // will not become a new version
  }
  int64_t num_versions = 0;
  for (const std::shared_ptr<const AdapterName>& name : registry_->Set(id.tenant).names) {
    num_versions += static_cast<int64_t>(name->versions.size());
  }
  if (num_versions >= max_versions_per_tenant_) {
    return QuotaExceededError("ADAPTERS_PER_TENANT", "max_adapters_per_tenant",
                              absl::StrCat("tenant ", id.tenant, " has ", num_versions,
                                           " adapter versions, the limit max_adapters is ",
                                           max_versions_per_tenant_, "; delete some first"));
  }
  return absl::OkStatus();
}

absl::StatusOr<NameChange> AdapterVersions::Promote(AliasMove move) {
  absl::MutexLock lock(&change_mutex_);
  TENON_ASSIGN_OR_RETURN(NameChange moved, store_->MoveAlias(move));
  registry_->Replace(moved.after);
  return moved;
}

absl::StatusOr<NameChange> AdapterVersions::Rollback(absl::string_view tenant,
                                                     absl::string_view name,
                                                     absl::string_view alias,
                                                     std::optional<int64_t> expected_version,
                                                     absl::string_view actor) {
  absl::MutexLock lock(&change_mutex_);
  TENON_ASSIGN_OR_RETURN(const AdapterName current, store_->Name(tenant, name));
  const AdapterRef ref{std::string(name), 0, std::string(alias)};
  const auto pointer = current.pointers.aliases.find(alias);
  if (pointer == current.pointers.aliases.end()) {
    return ResourceNotFoundError("ALIAS_NOT_FOUND", ref.ToString(),
                                 absl::StrCat("alias ", ref.ToString(), " does not exist"));
  }
  TENON_ASSIGN_OR_RETURN(const std::vector<AliasChange> history, store_->History(tenant, name));
  const std::optional<int64_t> target = RollbackTarget(
      history, alias, [&](int64_t version) { return current.versions.contains(version); });
  if (!target.has_value()) {
    return PreconditionError(
        "NO_EARLIER_VERSION", ref.ToString(),
        absl::StrCat("alias ", ref.ToString(), " points to version ", pointer->second,
                     " and has pointed to no other that is still there"));
  }
  AliasMove move{std::string(tenant), std::string(name),      std::string(alias), *target,
                 pointer->second,     AliasAction::kRollback, std::string(actor)};
  move.expected_version = expected_version.value_or(pointer->second);
  TENON_ASSIGN_OR_RETURN(NameChange moved, store_->MoveAlias(move));
  registry_->Replace(moved.after);
  return moved;
}

absl::StatusOr<NameChange> AdapterVersions::SetSplit(absl::string_view tenant,
                                                     absl::string_view name,
                                                     const std::vector<SplitArm>& split,
                                                     absl::string_view actor) {
  TENON_RETURN_IF_ERROR(ValidateSplit("arms", split));
  absl::MutexLock lock(&change_mutex_);
  TENON_ASSIGN_OR_RETURN(const AdapterName current, store_->Name(tenant, name));
  for (const SplitArm& arm : split) {
    if (!current.pointers.aliases.contains(arm.alias)) {
      const std::string subject = absl::StrCat(name, "@", arm.alias);
      return ResourceNotFoundError("ALIAS_NOT_FOUND", subject,
                                   absl::StrCat("alias ", subject, " does not exist"));
    }
  }
  TENON_ASSIGN_OR_RETURN(NameChange changed, store_->SetSplit(tenant, name, split, actor));
  registry_->Replace(changed.after);
  return changed;
}

absl::StatusOr<std::vector<int64_t>> AdapterVersions::Delete(absl::string_view tenant,
                                                             const AdapterRef& ref, bool force,
                                                             absl::string_view actor) {
  absl::MutexLock lock(&change_mutex_);
  const absl::StatusOr<AdapterName> before = store_->Name(tenant, ref.name);
  if (absl::IsNotFound(before.status()) ||
      (before.ok() && ref.version != 0 && !before->versions.contains(ref.version))) {
    return NameNotFound(ref);
  }
  TENON_RETURN_IF_ERROR(before.status());
  // Kept before the rows go: whoever finds a row gone finds its files here.
  KeepFiles(*before, ref.version);
  absl::StatusOr<NameChange> deleted = DeleteFromStore(*before, ref.version, force, actor);
  if (!deleted.ok()) {
    absl::MutexLock draining_lock(&draining_mutex_);
    for (const auto& [version, info] : before->versions) {
      draining_.erase(info->id);
    }
    return deleted.status();
  }
  registry_->Replace(deleted->after);
  std::vector<int64_t> versions;
  for (const auto& [version, info] : before->versions) {
    if (!deleted->after.versions.contains(version)) {
      versions.push_back(version);
      if (on_retired_) {
        on_retired_(*info);
      }
    }
  }
  ReleaseDrained();
  return versions;
}

absl::StatusOr<NameChange> AdapterVersions::DeleteFromStore(const AdapterName& name,
                                                            int64_t version, bool force,
                                                            absl::string_view actor) {
  if (version == 0) {
    return store_->DeleteName(name.tenant, name.name, actor);
  }
  std::vector<AliasMove> moves;
  if (force) {
    TENON_ASSIGN_OR_RETURN(moves, MovesOff(name, version, actor));
  }
  return store_->Delete({name.tenant, name.name, version}, moves, actor);
}

absl::StatusOr<std::vector<AliasMove>> AdapterVersions::MovesOff(const AdapterName& name,
                                                                 int64_t version,
                                                                 absl::string_view actor) {
  TENON_ASSIGN_OR_RETURN(const std::vector<AliasChange> history,
                         store_->History(name.tenant, name.name));
  std::vector<AliasMove> moves;
  for (const auto& [alias, target] : name.pointers.aliases) {
    if (target == version) {
      const std::optional<int64_t> earlier = RollbackTarget(history, alias, [&](int64_t candidate) {
        return candidate != version && name.versions.contains(candidate);
      });
      moves.push_back({name.tenant, name.name, alias, earlier.value_or(0), version,
                       AliasAction::kDelete, std::string(actor)});
    }
  }
  return moves;
}

void AdapterVersions::KeepFiles(const AdapterName& name, int64_t version) {
  for (const auto& [number, info] : name.versions) {
    if (version != 0 && number != version) {
      continue;
    }
    // A version that is damaged has none to keep.
    if (absl::StatusOr<FileSet> files = store_->Open(info->id); files.ok()) {
      absl::MutexLock lock(&draining_mutex_);
      draining_[info->id] = *std::move(files);
    }
  }
}

void AdapterVersions::ReleaseDrained() {
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

absl::StatusOr<FileSet> AdapterVersions::Open(const AdapterId& id) {
  absl::StatusOr<FileSet> files = store_->Open(id);
  if (absl::IsDataLoss(files.status())) {
    spdlog::error("event=adapter_quarantined adapter={} error=\"{}\"", id.ToString(),
                  std::string(files.status().message()));
    registry_->Quarantine(id, std::string(files.status().message()));
  }
  if (!absl::IsNotFound(files.status())) {
    return files;
  }
  absl::MutexLock lock(&draining_mutex_);
  const auto found = draining_.find(id);
  return found == draining_.end() ? std::move(files) : found->second;
}

}  // namespace tenon
