#include "adapters/store/local_store.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/store/local_upload.h"

namespace tenon {
namespace {

// The lock file holds no data; the kernel drops the lock with the process, however it ends.
absl::StatusOr<UniqueFd> LockStore(int root_dirfd) {
  UniqueFd lock(
      openat(root_dirfd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, mode_t{0600}));
  if (!lock) {
    return ErrnoError(errno, "open the store's lock file");
  }
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return errno == EWOULDBLOCK
               ? absl::FailedPreconditionError("another process has this adapter store open")
               : ErrnoError(errno, "lock the store");
  }
  return lock;
}

absl::StatusOr<UniqueFd> EnsureDirectory(int dirfd, const std::string& name) {
  const std::string context = absl::StrCat("open the store's folder ", name);
  TENON_RETURN_IF_ERROR(MakeDirectory(dirfd, name, context));
  return OpenDirectory(dirfd, name, context);
}

absl::Status SweepTmp(int tmp_dirfd) {
  TENON_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                         ListDirectory(tmp_dirfd, "sweep tmp"));
  for (const std::string& name : names) {
    TENON_RETURN_IF_ERROR(RemoveTree(tmp_dirfd, name, "sweep tmp"));
  }
  return absl::OkStatus();
}

absl::Status DamageError(const AdapterId& id, absl::string_view file_name,
                         absl::string_view reason) {
  return absl::DataLossError(
      absl::StrCat("adapter ", id.ToString(), ": stored file ", file_name, " ", reason));
}

// Checks one open blob against its row and maps it. DATA_LOSS when it does not match.
absl::StatusOr<FileBytes> ReadBlob(const AdapterId& id, const StoredFile& file, int fd) {
  const std::string context = absl::StrCat("read ", file.name, " of adapter ", id.ToString());
  TENON_ASSIGN_OR_RETURN(const std::string sha256, HashFile(fd, context));
  if (sha256 != file.sha256) {
    return DamageError(id, file.name, "does not match its digest");
  }
  return MapFile(fd, context);
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalAdapterStore>> LocalAdapterStore::Create(
    const std::string& root, Clock clock) {
  const std::string context = absl::StrCat("adapter store ", root);
  absl::StatusOr<Folders> folders = OpenFolders(root);
  if (!folders.ok()) {
    return Annotate(folders.status(), context);
  }
  absl::StatusOr<Catalogue> catalogue = Catalogue::Open(absl::StrCat(root, "/catalogue.db"));
  if (!catalogue.ok()) {
    return Annotate(catalogue.status(), context);
  }
  std::unique_ptr<LocalAdapterStore> store(
      new LocalAdapterStore(*std::move(folders), *std::move(catalogue), std::move(clock)));
  absl::MutexLock lock(&store->mutex_);
  TENON_RETURN_IF_ERROR(Annotate(store->Recover(), context));
  return store;
}

LocalAdapterStore::LocalAdapterStore(Folders folders, Catalogue catalogue, Clock clock)
    : folders_(std::move(folders)), clock_(std::move(clock)), catalogue_(std::move(catalogue)) {}

absl::StatusOr<LocalAdapterStore::Folders> LocalAdapterStore::OpenFolders(const std::string& root) {
  std::error_code error;
  std::filesystem::create_directories(root, error);
  if (error) {
    return ErrnoError(error.value(), "create the root folder");
  }
  // The root itself may be a symbolic link; what lies below it may not.
  TENON_ASSIGN_OR_RETURN(
      const UniqueFd root_fd,
      OpenDirectory(AT_FDCWD, std::filesystem::path(root) / ".", "open the root folder"));
  Folders folders;
  TENON_ASSIGN_OR_RETURN(folders.lock, LockStore(root_fd.get()));
  TENON_ASSIGN_OR_RETURN(folders.tmp, EnsureDirectory(root_fd.get(), "tmp"));
  TENON_ASSIGN_OR_RETURN(const UniqueFd blobs, EnsureDirectory(root_fd.get(), "blobs"));
  TENON_ASSIGN_OR_RETURN(folders.blobs, EnsureDirectory(blobs.get(), "sha256"));
  TENON_RETURN_IF_ERROR(Sync(blobs.get(), "create the store's folders"));
  TENON_RETURN_IF_ERROR(Sync(root_fd.get(), "create the store's folders"));
  return folders;
}

absl::Status LocalAdapterStore::Recover() {
  TENON_RETURN_IF_ERROR(SweepTmp(folders_.tmp.get()));
  TENON_ASSIGN_OR_RETURN(auto expected, catalogue_.Blobs());
  TENON_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                         ListDirectory(folders_.blobs.get(), "list blobs"));
  for (const std::string& name : names) {
    const auto found = expected.find(name);
    if (found == expected.end()) {
      TENON_RETURN_IF_ERROR(RemoveTree(folders_.blobs.get(), name, "sweep blobs"));
      continue;
    }
    TENON_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(folders_.blobs.get(), name, "check a blob"));
    TENON_ASSIGN_OR_RETURN(const int64_t num_bytes, FileSize(fd.get(), "check a blob"));
    if (num_bytes != found->second) {
      damaged_blobs_[name] = absl::StrCat("has ", num_bytes, " bytes, not ", found->second);
    }
    expected.erase(found);
  }
  for (const auto& [missing, num_bytes] : expected) {
    damaged_blobs_[missing] = "is missing";
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<StagedUpload>> LocalAdapterStore::Begin(int64_t max_bytes) {
  const int64_t number = num_uploads_.fetch_add(1, std::memory_order_relaxed);
  return LocalUpload::Create(folders_.tmp.get(), absl::StrCat("upload-", number), max_bytes);
}

absl::StatusOr<CommittedVersion> LocalAdapterStore::Commit(std::unique_ptr<StagedUpload> upload,
                                                           AdapterInfo facts,
                                                           const CommitOrder& order) {
  TENON_ASSIGN_OR_RETURN(LocalUpload* const local, LocalUpload::FindSealed(upload.get()));
  TENON_ASSIGN_OR_RETURN(StoredVersion version, local->ToVersion(std::move(facts), clock_()));
  const std::string context =
      absl::StrCat("commit ", version.info.id.tenant, "/", version.info.id.name);

  absl::MutexLock lock(&mutex_);
  absl::StatusOr<CommittedVersion> committed = Install(local, std::move(version), order);
  if (!committed.ok()) {
    return Annotate(committed.status(), context);
  }
  return committed;
}

absl::StatusOr<CommittedVersion> LocalAdapterStore::Install(LocalUpload* upload,
                                                            StoredVersion version,
                                                            const CommitOrder& order) {
  const std::vector<StoredFile> files = version.files;
  absl::Status moved = upload->MoveTo(folders_.blobs.get());
  if (moved.ok()) {
    moved = Sync(folders_.blobs.get(), "store the files");
  }
  if (!moved.ok()) {
    Discard(files);
    return moved;
  }
  for (const StoredFile& file : files) {
    damaged_blobs_.erase(file.sha256);
  }
  absl::StatusOr<CommittedVersion> added = catalogue_.Add(std::move(version), order, clock_());
  if (!added.ok()) {
    // A full disk shows before the commit record, a lost race before anything: nothing can come
    // back then, and the room is needed.
    if (absl::IsResourceExhausted(added.status()) || absl::IsAborted(added.status())) {
      Discard(files);
    } else {
      in_doubt_.insert(in_doubt_.end(), files.begin(), files.end());
    }
    return added.status();
  }
  if (added->name.change.sequence != 0) {
    DropUnreferenced(std::exchange(in_doubt_, {}));
  }
  AddDamage({&added->name.after, 1});
  return added;
}

void LocalAdapterStore::Discard(const std::vector<StoredFile>& files) {
  if (in_doubt_.empty()) {
    DropUnreferenced(files);
  } else {  // They may hold the very blobs that are in doubt.
    in_doubt_.insert(in_doubt_.end(), files.begin(), files.end());
  }
}

absl::StatusOr<FileSet> LocalAdapterStore::Open(const AdapterId& id) {
  std::vector<OpenBlob> blobs;
  {
    absl::MutexLock lock(&mutex_);
    TENON_ASSIGN_OR_RETURN(blobs, OpenBlobs(id));
  }
  FileSet files;
  for (const OpenBlob& blob : blobs) {
    absl::StatusOr<FileBytes> bytes = ReadBlob(id, blob.file, blob.fd.get());
    if (absl::IsDataLoss(bytes.status())) {
      absl::MutexLock lock(&mutex_);
      damaged_blobs_[blob.file.sha256] = "does not match its digest";
    }
    TENON_ASSIGN_OR_RETURN(files[blob.file.name], std::move(bytes));
  }
  return files;
}

absl::StatusOr<std::vector<LocalAdapterStore::OpenBlob>> LocalAdapterStore::OpenBlobs(
    const AdapterId& id) {
  TENON_ASSIGN_OR_RETURN(StoredVersion version, catalogue_.Find(id));
  std::vector<OpenBlob> blobs;
  for (StoredFile& file : version.files) {
    const auto damage = damaged_blobs_.find(file.sha256);
    if (damage != damaged_blobs_.end()) {
      return DamageError(id, file.name, damage->second);
    }
    absl::StatusOr<UniqueFd> fd =
        OpenFile(folders_.blobs.get(), file.sha256,
                 absl::StrCat("open ", file.name, " of adapter ", id.ToString()));
    if (absl::IsNotFound(fd.status())) {
      damaged_blobs_[file.sha256] = "is missing";
      return DamageError(id, file.name, "is missing");
    }
    TENON_RETURN_IF_ERROR(fd.status());
    blobs.push_back(OpenBlob{std::move(file), *std::move(fd)});
  }
  return blobs;
}

std::map<AdapterId, std::string> LocalAdapterStore::DamagedVersions() {
  std::map<AdapterId, std::string> damaged;
  for (const auto& [sha256, reason] : damaged_blobs_) {
    const absl::StatusOr<std::vector<AdapterId>> ids = catalogue_.VersionsWithBlob(sha256);
    if (ids.ok()) {
      for (const AdapterId& id : *ids) {
        damaged.emplace(id, std::string(DamageError(id, sha256, reason).message()));
      }
    }
  }
  return damaged;
}

void LocalAdapterStore::AddDamage(std::span<AdapterName> names) {
  if (damaged_blobs_.empty()) {
    return;
  }
  const std::map<AdapterId, std::string> damaged = DamagedVersions();
  for (AdapterName& name : names) {
    auto next = damaged.lower_bound({name.tenant, name.name, 0});
    for (; next != damaged.end() && next->first.tenant == name.tenant &&
           next->first.name == name.name;
         ++next) {
      name.quarantined.emplace(next->first.version, next->second);
    }
  }
}

absl::StatusOr<std::vector<AdapterName>> LocalAdapterStore::Names() {
  absl::MutexLock lock(&mutex_);
  TENON_ASSIGN_OR_RETURN(std::vector<AdapterName> names, catalogue_.Names());
  AddDamage(names);
  return names;
}

absl::StatusOr<AdapterName> LocalAdapterStore::Name(absl::string_view tenant,
                                                    absl::string_view name) {
  absl::MutexLock lock(&mutex_);
  TENON_ASSIGN_OR_RETURN(AdapterName found, catalogue_.Name(tenant, name));
  if (found.versions.empty()) {
    return ResourceNotFoundError("ADAPTER_NOT_FOUND", name,
                                 absl::StrCat("adapter ", name, " has no versions"));
  }
  AddDamage({&found, 1});
  return found;
}

absl::StatusOr<NameChange> LocalAdapterStore::MoveAlias(const AliasMove& move) {
  absl::MutexLock lock(&mutex_);
  TENON_ASSIGN_OR_RETURN(NameChange moved, catalogue_.MoveAlias(move, clock_()));
  AddDamage({&moved.after, 1});
  return moved;
}

absl::StatusOr<NameChange> LocalAdapterStore::SetSplit(absl::string_view tenant,
                                                       absl::string_view name,
                                                       const std::vector<SplitArm>& split,
                                                       absl::string_view actor) {
  absl::MutexLock lock(&mutex_);
  TENON_ASSIGN_OR_RETURN(NameChange changed,
                         catalogue_.SetSplit(tenant, name, split, actor, clock_()));
  AddDamage({&changed.after, 1});
  return changed;
}

absl::StatusOr<NameChange> LocalAdapterStore::Delete(const AdapterId& id,
                                                     const std::vector<AliasMove>& moves,
                                                     absl::string_view actor) {
  absl::MutexLock lock(&mutex_);
  return FinishRemoval(catalogue_.Remove(id, moves, actor, clock_()));
}

absl::StatusOr<NameChange> LocalAdapterStore::DeleteName(absl::string_view tenant,
                                                         absl::string_view name,
                                                         absl::string_view actor) {
  absl::MutexLock lock(&mutex_);
  return FinishRemoval(catalogue_.RemoveName(tenant, name, actor, clock_()));
}

absl::StatusOr<NameChange> LocalAdapterStore::FinishRemoval(absl::StatusOr<RemovedFiles> removed) {
  TENON_RETURN_IF_ERROR(removed.status());
  DropUnreferenced(removed->files);
  DropUnreferenced(std::exchange(in_doubt_, {}));
  AddDamage({&removed->name.after, 1});
  return std::move(removed->name);
}

absl::StatusOr<std::vector<AliasChange>> LocalAdapterStore::History(absl::string_view tenant,
                                                                    absl::string_view name) {
  absl::MutexLock lock(&mutex_);
  return catalogue_.History(tenant, name);
}

void LocalAdapterStore::DropUnreferenced(const std::vector<StoredFile>& files) {
  for (const StoredFile& file : files) {
    const absl::StatusOr<std::vector<AdapterId>> ids = catalogue_.VersionsWithBlob(file.sha256);
    // What cannot be asked or removed now is swept at the next start.
    if (ids.ok() && ids->empty()) {
      damaged_blobs_.erase(file.sha256);
      RemoveFile(folders_.blobs.get(), file.sha256, "drop a blob").IgnoreError();
    }
  }
}

}  // namespace tenon
