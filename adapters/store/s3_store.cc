#include "adapters/store/s3_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <span>
#include <system_error>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/store/local_upload.h"
#include "spdlog/spdlog.h"

namespace tenon {
namespace {

constexpr int kMaxTries = 16;  // of a change that others keep overtaking
constexpr size_t kParallelLoads = 16;
constexpr absl::string_view kNames = "names/";

std::string NameKey(absl::string_view tenant, absl::string_view name) {
  return absl::StrCat(kNames, tenant, "/", name, ".json");
}
std::string VersionKey(absl::string_view tenant, absl::string_view name, int64_t number) {
  return absl::StrCat("versions/", tenant, "/", name, "/", number, ".json");
}

absl::StatusOr<UniqueFd> EnsureDirectory(int dirfd, const std::string& name) {
  const std::string context = absl::StrCat("open the store's folder ", name);
  TENON_RETURN_IF_ERROR(MakeDirectory(dirfd, name, context));
  return OpenDirectory(dirfd, name, context);
}

absl::StatusOr<UniqueFd> LockFolder(int root_dirfd) {
  UniqueFd lock(
      openat(root_dirfd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, mode_t{0600}));
  if (!lock) {
    return ErrnoError(errno, "open the store's lock file");
  }
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return errno == EWOULDBLOCK
               ? absl::FailedPreconditionError("another process has this cache folder open")
               : ErrnoError(errno, "lock the cache folder");
  }
  return lock;
}

absl::Status Overtaken(const std::string& key) {
  return ResourceConflictError(absl::StatusCode::kAborted, "CHANGED_MEANWHILE", key,
                               absl::StrCat(key, " was changed by somebody else"));
}

bool IsOvertaken(const absl::Status& status) {
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  return absl::IsAborted(status) && detail.has_value() && detail->reason == "CHANGED_MEANWHILE";
}

absl::Status NoVersions(absl::string_view name) {
  return ResourceNotFoundError("ADAPTER_NOT_FOUND", name,
                               absl::StrCat("adapter ", name, " has no versions"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<S3AdapterStore>> S3AdapterStore::Create(Options options) {
  std::error_code error;
  std::filesystem::create_directories(options.cache_folder, error);
  if (error) {
    return ErrnoError(error.value(), "create the cache folder");
  }
  Folders folders;
  TENON_ASSIGN_OR_RETURN(folders.root,
                         OpenDirectory(AT_FDCWD, options.cache_folder + "/.", "open the cache"));
  TENON_ASSIGN_OR_RETURN(folders.lock, LockFolder(folders.root.get()));
  TENON_RETURN_IF_ERROR(RemoveTree(folders.root.get(), "tmp", "sweep tmp"));
  TENON_ASSIGN_OR_RETURN(folders.tmp, EnsureDirectory(folders.root.get(), "tmp"));
  TENON_ASSIGN_OR_RETURN(const UniqueFd blobs, EnsureDirectory(folders.root.get(), "blobs"));
  TENON_ASSIGN_OR_RETURN(folders.blobs, EnsureDirectory(blobs.get(), "sha256"));
  TENON_ASSIGN_OR_RETURN(
      std::unique_ptr<BlobCache> cache,
      BlobCache::Create(folders.blobs.get(), folders.tmp.get(), options.cache_bytes));
  std::unique_ptr<S3AdapterStore> store(
      new S3AdapterStore(std::move(options), std::move(folders), std::move(cache)));
  store->ReadCopy();
  const absl::Status refreshed = store->Refresh().status();
  if (absl::IsUnavailable(refreshed)) {
    spdlog::error("event=store_unreachable served=\"what is cached\" error=\"{}\"",
                  std::string(refreshed.message()));
    return store;
  }
  TENON_RETURN_IF_ERROR(Annotate(refreshed, "adapter store"));
  return store;
}

S3AdapterStore::S3AdapterStore(Options options, Folders folders, std::unique_ptr<BlobCache> cache)
    : options_(std::move(options)),
      client_(options_.client),
      folders_(std::move(folders)),
      cache_(std::move(cache)) {
  status_.current = false;
  status_.reached = false;
}

StoreStatus S3AdapterStore::status() const {
  absl::MutexLock lock(&mutex_);
  StoreStatus status = status_;
  status.generation = 0;
  for (const auto& [key, entry] : names_) {
    status.generation += entry.state.changes;
  }
  return status;
}

absl::StatusOr<StoredVersion> S3AdapterStore::LoadVersion(const NameState& state,
                                                          int64_t number) const {
  const std::string key = VersionKey(state.tenant, state.name, number);
  absl::StatusOr<S3Object> object = client_.Get(key);
  if (absl::IsNotFound(object.status())) {
    return absl::DataLossError(absl::StrCat(key, " is missing"));
  }
  TENON_RETURN_IF_ERROR(object.status());
  TENON_ASSIGN_OR_RETURN(StoredVersion version, DecodeVersion(object->bytes));
  if (version.info.id != AdapterId{state.tenant, state.name, number}) {
    return absl::DataLossError(absl::StrCat(key, " is about ", version.info.id.ToString()));
  }
  return version;
}

absl::StatusOr<S3AdapterStore::Entry> S3AdapterStore::LoadObject(const std::string& key) {
  TENON_ASSIGN_OR_RETURN(const S3Object object, client_.Get(key));
  Entry entry;
  entry.etag = object.etag;
  std::vector<int64_t> numbers;
  TENON_ASSIGN_OR_RETURN(entry.state, DecodeName(object.bytes, &numbers));
  if (NameKey(entry.state.tenant, entry.state.name) != key) {
    return absl::DataLossError(absl::StrCat(key, " is about another name"));
  }
  for (const int64_t number : numbers) {
    {
      absl::MutexLock lock(
          &mutex_);  // a version never changes: one that is known is not read again
      const auto known = names_.find(key);
      if (known != names_.end()) {
        const auto version = known->second.state.versions.find(number);
        if (version != known->second.state.versions.end()) {
          entry.state.versions.emplace(number, version->second);
          continue;
        }
      }
    }
    TENON_ASSIGN_OR_RETURN(StoredVersion version, LoadVersion(entry.state, number));
    entry.state.versions.emplace(number, std::move(version));
  }
  return entry;
}

absl::StatusOr<S3AdapterStore::Entry> S3AdapterStore::Load(const std::string& tenant,
                                                           const std::string& name) {
  absl::StatusOr<Entry> entry = LoadObject(NameKey(tenant, name));
  if (absl::IsNotFound(entry.status())) {
    entry = Entry();
    entry->state.tenant = tenant;
    entry->state.name = name;
  }
  return entry;
}

std::vector<S3AdapterStore::Entry> S3AdapterStore::LoadAll(const std::vector<std::string>& keys) {
  std::vector<absl::StatusOr<Entry>> loaded(keys.size(), absl::UnknownError(""));
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < keys.size(); i = next++) {
      loaded[i] = LoadObject(keys[i]);
    }
  };
  std::vector<std::thread> helpers;
  for (size_t i = 1; i < std::min(keys.size(), kParallelLoads); ++i) {
    helpers.emplace_back(work);
  }
  work();
  for (std::thread& helper : helpers) {
    helper.join();
  }
  std::vector<Entry> entries;
  for (size_t i = 0; i < keys.size(); ++i) {
    if (loaded[i].ok()) {
      entries.push_back(*std::move(loaded[i]));
    } else {
      spdlog::error("event=adapter_name_unreadable object={} error=\"{}\"", keys[i],
                    std::string(loaded[i].status().message()));
    }
  }
  return entries;
}

AdapterName S3AdapterStore::Describe(const NameState& state) const {
  int64_t generation = 0;  // changes that this tenant's names have ever had
  const std::string prefix = absl::StrCat(kNames, state.tenant, "/");
  for (auto next = names_.lower_bound(prefix);
       next != names_.end() && absl::StartsWith(next->first, prefix); ++next) {
    generation += next->second.state.changes;
  }
  AdapterName name = state.ToName(generation);
  for (const auto& [number, version] : state.versions) {
    for (const StoredFile& file : version.files) {
      if (const auto found = damaged_blobs_.find(file.sha256); found != damaged_blobs_.end()) {
        name.quarantined.emplace(
            number, absl::StrCat("stored file ", file.name, " ", found->second.reason));
      }
    }
  }
  return name;
}

AdapterName S3AdapterStore::Keep(Entry entry) {
  absl::MutexLock lock(&mutex_);
  const std::string key = NameKey(entry.state.tenant, entry.state.name);
  Entry& kept = names_[key];
  if (entry.state.changes >= kept.state.changes) {  // of two that read, the later one counts
    kept = std::move(entry);
    copy_is_stale_ = true;
  }
  return Describe(kept.state);
}

absl::StatusOr<std::vector<AdapterName>> S3AdapterStore::Refresh() {
  absl::StatusOr<std::vector<S3Entry>> listed = client_.List(kNames);
  std::vector<std::string> changed;
  {
    absl::MutexLock lock(&mutex_);
    status_.current = listed.ok();
    TENON_RETURN_IF_ERROR(listed.status());
    for (const S3Entry& entry : *listed) {
      const auto known = names_.find(entry.key);
      if (known == names_.end() || known->second.etag != entry.etag) {
        changed.push_back(entry.key);
      }
    }
  }
  std::vector<Entry> entries = LoadAll(changed);
  std::vector<AdapterName> names;
  for (Entry& entry : entries) {
    names.push_back(Keep(std::move(entry)));
  }
  for (AdapterName& name : ForgetDamage()) {
    names.push_back(std::move(name));
  }
  {
    absl::MutexLock lock(&mutex_);
    status_.current = entries.size() == changed.size();
    status_.reached = status_.reached || status_.current;
    status_.synced = options_.clock();
  }
  WriteCopy();
  return names;
}

absl::StatusOr<NameChange> S3AdapterStore::AlterOnce(Entry entry, Change change) {
  const int64_t before = entry.state.changes;
  NameChange result;
  TENON_ASSIGN_OR_RETURN(result.change, change(entry.state));
  if (entry.state.changes != before) {
    const std::string key = NameKey(entry.state.tenant, entry.state.name);
    const PutCondition condition{.absent = entry.etag.empty(), .etag = entry.etag};
    absl::StatusOr<std::string> etag =
        client_.Put(key, EncodeName(entry.state, options_.draw_nonce()), condition);
    if (absl::IsAborted(etag.status())) {
      return Overtaken(key);
    }
    TENON_ASSIGN_OR_RETURN(entry.etag, std::move(etag));
  }
  result.after = Keep(std::move(entry));
  return result;
}

absl::StatusOr<NameChange> S3AdapterStore::Alter(const std::string& tenant, const std::string& name,
                                                 Change change) {
  absl::MutexLock write_lock(&write_mutex_);
  for (int tries = 1;; ++tries) {
    TENON_ASSIGN_OR_RETURN(Entry entry, Load(tenant, name));
    absl::StatusOr<NameChange> altered = AlterOnce(std::move(entry), change);
    if (!IsOvertaken(altered.status()) || tries == kMaxTries) {
      return altered;
    }
  }
}

absl::StatusOr<NameChange> S3AdapterStore::MoveAlias(const AliasMove& move) {
  return Alter(move.tenant, move.name,
               [&](NameState& state) { return state.MoveAlias(move, options_.clock()); });
}

absl::StatusOr<NameChange> S3AdapterStore::SetSplit(absl::string_view tenant,
                                                    absl::string_view name,
                                                    const std::vector<SplitArm>& split,
                                                    absl::string_view actor) {
  return Alter(std::string(tenant), std::string(name),
               [&](NameState& state) { return state.SetSplit(split, actor, options_.clock()); });
}

absl::StatusOr<NameChange> S3AdapterStore::Delete(const AdapterId& id,
                                                  const std::vector<AliasMove>& moves,
                                                  absl::string_view actor) {
  return Remove(id.tenant, id.name, [&](NameState& state) {
    return state.Remove(id.version, moves, actor, options_.clock());
  });
}

absl::StatusOr<NameChange> S3AdapterStore::DeleteName(absl::string_view tenant,
                                                      absl::string_view name,
                                                      absl::string_view actor) {
  return Remove(std::string(tenant), std::string(name),
                [&](NameState& state) { return state.RemoveAll(actor, options_.clock()); });
}

absl::StatusOr<NameChange> S3AdapterStore::Remove(const std::string& tenant,
                                                  const std::string& name, Change change) {
  std::map<int64_t, StoredVersion> before;
  TENON_ASSIGN_OR_RETURN(NameChange changed, Alter(tenant, name, [&](NameState& state) {
                           before = state.versions;
                           return change(state);
                         }));
  std::vector<StoredVersion> removed;
  for (auto& [number, version] : before) {
    if (!changed.after.versions.contains(number)) {
      client_.Delete(VersionKey(tenant, name, number)).IgnoreError();  // nobody mentions it
      removed.push_back(std::move(version));
    }
  }
  DropUnreferenced(removed);
  return changed;
}

absl::StatusOr<std::vector<AdapterName>> S3AdapterStore::Names() {
  absl::MutexLock lock(&mutex_);
  std::vector<AdapterName> names;
  for (const auto& [key, entry] : names_) {
    names.push_back(Describe(entry.state));
  }
  return names;
}

absl::StatusOr<AdapterName> S3AdapterStore::Name(absl::string_view tenant, absl::string_view name) {
  TENON_ASSIGN_OR_RETURN(Entry entry, Load(std::string(tenant), std::string(name)));
  if (entry.state.versions.empty()) {
    return NoVersions(name);
  }
  return Keep(std::move(entry));
}

absl::StatusOr<std::vector<AliasChange>> S3AdapterStore::History(absl::string_view tenant,
                                                                 absl::string_view name) {
  TENON_ASSIGN_OR_RETURN(const Entry entry, Load(std::string(tenant), std::string(name)));
  return entry.state.history;
}

}  // namespace tenon
