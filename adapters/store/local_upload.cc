#include "adapters/store/local_upload.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/registry/adapter_id.h"

namespace tenon {
namespace {

std::string DigestOf(const std::vector<StoredFile>& files) {
  Sha256 hash;
  for (const StoredFile& file : files) {
    hash.Update(absl::StrCat(file.sha256, "  ", file.name, "\n"));
  }
  return hash.HexDigest();
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalUpload>> LocalUpload::Create(int tmp_dirfd, std::string name,
                                                                 int64_t max_bytes) {
  TENON_RETURN_IF_ERROR(MakeDirectory(tmp_dirfd, name, "begin an upload"));
  absl::StatusOr<UniqueFd> folder = OpenDirectory(tmp_dirfd, name, "begin an upload");
  if (!folder.ok()) {
    RemoveTree(tmp_dirfd, name, "drop an upload").IgnoreError();
    return folder.status();
  }
  return std::unique_ptr<LocalUpload>(
      new LocalUpload(tmp_dirfd, std::move(name), *std::move(folder), max_bytes));
}

LocalUpload::LocalUpload(int tmp_dirfd, std::string name, UniqueFd folder, int64_t max_bytes)
    : tmp_dirfd_(tmp_dirfd),
      name_(std::move(name)),
      folder_(std::move(folder)),
      max_bytes_(max_bytes) {}

LocalUpload::~LocalUpload() {
  // Nobody is left to tell; the sweep at the next start takes what stays behind.
  RemoveTree(tmp_dirfd_, name_, "drop an upload").IgnoreError();
}

absl::Status LocalUpload::Append(absl::string_view file_name, std::span<const std::byte> bytes) {
  if (status_.ok()) {
    status_ = Write(file_name, bytes);
  }
  return status_;
}

absl::Status LocalUpload::Write(absl::string_view file_name, std::span<const std::byte> bytes) {
  TENON_RETURN_IF_ERROR(CheckAdapterFileName(file_name));
  if (!files_.empty()) {
    return absl::FailedPreconditionError("the upload is sealed");
  }
  if (static_cast<int64_t>(bytes.size()) > max_bytes_ - num_bytes_) {
    return QuotaExceededError(
        "UPLOAD_TOO_LARGE", "max_upload_bytes",
        absl::StrCat(num_bytes_ + static_cast<int64_t>(bytes.size()),
                     " bytes of adapter files exceed max_upload_bytes ", max_bytes_));
  }
  auto found = open_files_.find(file_name);
  if (found == open_files_.end()) {
    const std::string name(file_name);
    TENON_ASSIGN_OR_RETURN(UniqueFd fd,
                           CreateFile(folder_.get(), name, absl::StrCat("create ", name)));
    found = open_files_.emplace(name, OpenFile{std::move(fd), Sha256(), 0}).first;
  }
  OpenFile& file = found->second;
  TENON_RETURN_IF_ERROR(WriteAll(file.fd.get(), bytes, absl::StrCat("write ", file_name)));
  file.hash.Update(bytes);
  file.num_bytes += static_cast<int64_t>(bytes.size());
  num_bytes_ += static_cast<int64_t>(bytes.size());
  return absl::OkStatus();
}

absl::StatusOr<FileSet> LocalUpload::Seal() {
  TENON_RETURN_IF_ERROR(status_);
  if (!files_.empty()) {
    return absl::FailedPreconditionError("the upload is sealed");
  }
  if (open_files_.empty()) {
    return InvalidAdapterError("NO_FILES", "files", "the upload holds no files");
  }
  FileSet mapped;
  std::vector<StoredFile> files;
  for (auto& [name, file] : open_files_) {
    const std::string context = absl::StrCat("store ", name);
    status_ = Sync(file.fd.get(), context);
    TENON_RETURN_IF_ERROR(status_);
    TENON_ASSIGN_OR_RETURN(mapped[name], MapFile(file.fd.get(), context));
    files.push_back(StoredFile{name, file.hash.HexDigest(), file.num_bytes});
  }
  open_files_.clear();
  files_ = std::move(files);
  digest_ = DigestOf(files_);
  return mapped;
}

absl::StatusOr<LocalUpload*> LocalUpload::FindSealed(StagedUpload* upload) {
  auto* const local = dynamic_cast<LocalUpload*>(upload);
  if (local == nullptr || local->files().empty()) {
    return absl::FailedPreconditionError("the upload is not a sealed one of this store");
  }
  return local;
}

absl::StatusOr<StoredVersion> LocalUpload::ToVersion(AdapterInfo facts, absl::Time created) const {
  TENON_RETURN_IF_ERROR(ValidateName("tenant", facts.id.tenant));
  TENON_RETURN_IF_ERROR(ValidateName("name", facts.id.name));
  StoredVersion version{std::move(facts), files_};
  version.info.digest = digest_;
  version.info.stored_bytes = num_bytes_;
  version.info.created = created;
  return version;
}

absl::Status LocalUpload::MoveTo(int blobs_dirfd) {
  for (const StoredFile& file : files_) {
    TENON_RETURN_IF_ERROR(Rename(folder_.get(), file.name, blobs_dirfd, file.sha256,
                                 absl::StrCat("store ", file.name)));
  }
  return absl::OkStatus();
}

}  // namespace tenon
