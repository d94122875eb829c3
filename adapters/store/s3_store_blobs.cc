// S3AdapterStore's uploads, blobs and local copy.
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/json_text.h"
#include "adapters/base/status_macros.h"
#include "adapters/store/local_upload.h"
#include "adapters/store/s3_store.h"
#include "nlohmann/json.hpp"
#include "spdlog/spdlog.h"

namespace tenon {
namespace {

constexpr int kMaxClaims = 64;  // numbers in a row that others may have taken
// How long a blob that was found wrong is not fetched again: another replica may have repaired it.
constexpr absl::Duration kSecondLook = absl::Seconds(20);
constexpr char kCopyName[] = "catalogue.json";

std::string BlobKey(absl::string_view sha256) { return absl::StrCat("blobs/sha256/", sha256); }

absl::string_view View(const FileBytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.bytes.data()), bytes.bytes.size()};
}

}  // namespace

absl::StatusOr<std::unique_ptr<StagedUpload>> S3AdapterStore::Begin(int64_t max_bytes) {
  const int64_t number = num_uploads_.fetch_add(1, std::memory_order_relaxed);
  return LocalUpload::Create(folders_.tmp.get(), absl::StrCat("upload-", number), max_bytes);
}

absl::StatusOr<CommittedVersion> S3AdapterStore::Commit(std::unique_ptr<StagedUpload> upload,
                                                        AdapterInfo facts,
                                                        const CommitOrder& order) {
  TENON_ASSIGN_OR_RETURN(LocalUpload* const local, LocalUpload::FindSealed(upload.get()));
  TENON_ASSIGN_OR_RETURN(StoredVersion version,
                         local->ToVersion(std::move(facts), options_.clock()));
  TENON_RETURN_IF_ERROR(local->MoveTo(folders_.blobs.get()));
  for (const StoredFile& file : version.files) {
    cache_->Adopt(file.sha256, file.num_bytes);
  }
  TENON_RETURN_IF_ERROR(PutBlobs(version.files));
  CommittedVersion committed;
  TENON_ASSIGN_OR_RETURN(committed.name,
                         Alter(version.info.id.tenant, version.info.id.name,
                               [&](NameState& state) -> absl::StatusOr<AliasChange> {
                                 const int64_t same = state.VersionWith(version.info.digest);
                                 committed.created = same == 0;
                                 if (same != 0) {
                                   version = state.versions.at(same);
                                 } else if (version.info.id.version <= state.last_version) {
                                   TENON_RETURN_IF_ERROR(ClaimNumber(state, version));
                                 }
                                 return state.Add(version, order, options_.clock());
                               }));
  // A deletion elsewhere may have taken a blob between our look and our write.
  TENON_RETURN_IF_ERROR(PutBlobs(version.files));
  committed.info = std::move(version.info);
  return committed;
}

absl::Status S3AdapterStore::ClaimNumber(const NameState& state, StoredVersion& version) {
  AdapterId& id = version.info.id;
  for (int64_t number = state.last_version + 1; number <= state.last_version + kMaxClaims;
       ++number) {
    id.version = number;
    const std::string key =
        absl::StrCat("versions/", id.tenant, "/", id.name, "/", number, ".json");
    const absl::Status claimed =
        client_.Put(key, EncodeVersion(version, options_.draw_nonce()), {.absent = true}).status();
    if (!absl::IsAborted(claimed)) {
      return claimed;
    }
  }
  return absl::AbortedError(absl::StrCat("other uploads of ", id.name, " took ", kMaxClaims,
                                         " numbers in a row; try again"));
}

absl::Status S3AdapterStore::PutBlobs(const std::vector<StoredFile>& files) {
  for (const StoredFile& file : files) {
    TENON_RETURN_IF_ERROR(PutBlob(file));
  }
  return absl::OkStatus();
}

absl::Status S3AdapterStore::PutBlob(const StoredFile& file) {
  bool is_damaged = false;
  {
    absl::MutexLock lock(&mutex_);
    is_damaged = damaged_blobs_.contains(file.sha256);
  }
  const std::string key = BlobKey(file.sha256);
  if (!is_damaged) {
    TENON_ASSIGN_OR_RETURN(const std::vector<S3Entry> there, client_.List(key));
    if (!there.empty() && there[0].num_bytes == file.num_bytes) {
      return absl::OkStatus();
    }
  }
  TENON_ASSIGN_OR_RETURN(const FileBytes bytes, cache_->Open(file.sha256, [](int) {
    return absl::NotFoundError("the upload's own copy is gone");
  }));
  TENON_RETURN_IF_ERROR(client_.Put(key, View(bytes)).status());
  absl::MutexLock lock(&mutex_);
  damaged_blobs_.erase(file.sha256);
  return absl::OkStatus();
}

absl::StatusOr<FileSet> S3AdapterStore::Open(const AdapterId& id) {
  std::vector<StoredFile> wanted;
  {
    absl::MutexLock lock(&mutex_);
    const auto entry = names_.find(absl::StrCat("names/", id.tenant, "/", id.name, ".json"));
    const StoredVersion* version = nullptr;
    if (entry != names_.end()) {
      const auto found = entry->second.state.versions.find(id.version);
      version = found == entry->second.state.versions.end() ? nullptr : &found->second;
    }
    if (version == nullptr) {
      return ResourceNotFoundError("ADAPTER_NOT_FOUND", id.ToString(),
                                   absl::StrCat("adapter ", id.ToString(), " is not in the store"));
    }
    wanted = version->files;
  }
  FileSet files;
  for (const StoredFile& file : wanted) {
    absl::StatusOr<FileBytes> bytes = OpenBlob(file.sha256);
    if (!bytes.ok()) {
      return Annotate(bytes.status(),
                      absl::StrCat("adapter ", id.ToString(), ": stored file ", file.name));
    }
    files[file.name] = *std::move(bytes);
  }
  return files;
}

absl::StatusOr<FileBytes> S3AdapterStore::OpenBlob(const std::string& sha256) {
  const auto fetch = [&](int fd) {
    const auto write = [fd](absl::string_view piece) {
      return WriteAll(fd, std::as_bytes(std::span(piece.data(), piece.size())), "fetch a blob");
    };
    const auto restart = [fd] {
      return ftruncate(fd, 0) == 0 && lseek(fd, 0, SEEK_SET) == 0
                 ? absl::OkStatus()
                 : absl::UnavailableError("cannot begin a file anew");
    };
    return client_.Download(BlobKey(sha256), write, restart);
  };
  absl::StatusOr<FileBytes> bytes = cache_->Open(sha256, fetch);
  absl::Status wrong;
  if (absl::IsDataLoss(bytes.status())) {
    wrong = bytes.status();
  } else if (absl::IsNotFound(bytes.status())) {
    wrong = absl::DataLossError("is missing in the object store");
  } else {
    return bytes;
  }
  absl::MutexLock lock(&mutex_);
  damaged_blobs_[sha256] = {std::string(wrong.message()), options_.clock()};
  return wrong;
}

std::vector<AdapterName> S3AdapterStore::ForgetDamage() {
  absl::flat_hash_set<std::string> repaired;
  std::vector<AdapterName> names;
  absl::MutexLock lock(&mutex_);
  for (const auto& [sha256, damage] : damaged_blobs_) {
    if (options_.clock() - damage.found >= kSecondLook) {
      repaired.insert(sha256);
    }
  }
  for (const std::string& sha256 : repaired) {
    damaged_blobs_.erase(sha256);
  }
  for (const auto& [key, entry] : names_) {
    const auto& versions = entry.state.versions;
    const bool holds = std::any_of(versions.begin(), versions.end(), [&](const auto& version) {
      const auto& files = version.second.files;
      return std::any_of(files.begin(), files.end(),
                         [&](const StoredFile& file) { return repaired.contains(file.sha256); });
    });
    if (holds) {
      names.push_back(Describe(entry.state));
    }
  }
  return names;
}

bool S3AdapterStore::IsReferenced(absl::string_view sha256) const {
  absl::MutexLock lock(&mutex_);
  for (const auto& [key, entry] : names_) {
    for (const auto& [number, version] : entry.state.versions) {
      for (const StoredFile& file : version.files) {
        if (file.sha256 == sha256) {
          return true;
        }
      }
    }
  }
  return false;
}

// Only what is here too goes: should somebody have begun to mention the blob while it went, his
// name shows in the second look, and it is put back. A blob that stays costs room and nothing else.
void S3AdapterStore::DropUnreferenced(const std::vector<StoredVersion>& removed) {
  std::vector<StoredFile> dropped;
  if (!Refresh().ok()) {
    return;
  }
  for (const StoredVersion& version : removed) {
    for (const StoredFile& file : version.files) {
      if (!IsReferenced(file.sha256) && cache_->Contains(file.sha256) &&
          client_.Delete(BlobKey(file.sha256)).ok()) {
        dropped.push_back(file);
      }
    }
  }
  if (dropped.empty() || !Refresh().ok()) {
    return;
  }
  for (const StoredFile& file : dropped) {
    if (IsReferenced(file.sha256)) {
      const absl::Status put = PutBlob(file);
      if (!put.ok()) {
        spdlog::error("event=blob_not_put_back sha256={} error=\"{}\"", file.sha256,
                      std::string(put.message()));
      }
    }
  }
}

// A cache of the catalogue, for a start without the bucket: what is torn or missing is read as
// nothing, so that it needs no fsync.
void S3AdapterStore::WriteCopy() {
  nlohmann::json copy = nlohmann::json::array();
  {
    absl::MutexLock lock(&mutex_);
    if (!std::exchange(copy_is_stale_, false)) {
      return;
    }
    for (const auto& [key, entry] : names_) {
      nlohmann::json versions = nlohmann::json::array();
      for (const auto& [number, version] : entry.state.versions) {
        versions.push_back(EncodeVersion(version, ""));
      }
      copy.push_back(
          {{"etag", entry.etag}, {"name", EncodeName(entry.state, "")}, {"versions", versions}});
    }
  }
  const std::string text = JsonText(copy);
  const absl::Status written = [&]() -> absl::Status {
    TENON_RETURN_IF_ERROR(RemoveFile(folders_.tmp.get(), kCopyName, "copy the catalogue"));
    TENON_ASSIGN_OR_RETURN(const UniqueFd fd,
                           CreateFile(folders_.tmp.get(), kCopyName, "copy the catalogue"));
    TENON_RETURN_IF_ERROR(WriteAll(fd.get(), std::as_bytes(std::span(text.data(), text.size())),
                                   "copy the catalogue"));
    return Rename(folders_.tmp.get(), kCopyName, folders_.root.get(), kCopyName,
                  "copy the catalogue");
  }();
  if (!written.ok()) {
    spdlog::warn("event=catalogue_not_copied error=\"{}\"", std::string(written.message()));
  }
}

void S3AdapterStore::ReadCopy() {
  const absl::StatusOr<UniqueFd> fd =
      OpenFile(folders_.root.get(), kCopyName, "read the catalogue");
  if (!fd.ok()) {
    return;
  }
  const absl::StatusOr<FileBytes> bytes = MapFile(fd->get(), "read the catalogue");
  if (!bytes.ok()) {
    return;
  }
  const absl::string_view text = View(*bytes);
  const nlohmann::json copy = ParseJson(text);
  for (const nlohmann::json& item : copy) {
    if (!item.is_object() || !item.contains("etag") || !item["etag"].is_string() ||
        !item.contains("name") || !item["name"].is_string() || !item.contains("versions")) {
      continue;
    }
    std::vector<int64_t> numbers;
    absl::StatusOr<NameState> state = DecodeName(item["name"].get<std::string>(), &numbers);
    if (!state.ok()) {
      continue;
    }
    for (const nlohmann::json& version : item["versions"]) {
      absl::StatusOr<StoredVersion> decoded =
          DecodeVersion(version.is_string() ? version.get<std::string>() : "");
      if (decoded.ok()) {
        state->versions.emplace(decoded->info.id.version, *std::move(decoded));
      }
    }
    if (state->versions.size() == numbers.size()) {
      Keep(Entry{item["etag"].get<std::string>(), *std::move(state)});
    }
  }
}

}  // namespace tenon
