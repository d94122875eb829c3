#include "server/rpc/upload_order.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/file_set.h"
#include "adapters/registry/adapter_id.h"

namespace tenon {
namespace {

constexpr size_t kSha256HexBytes = 64;

bool IsLowerHex(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isdigit(static_cast<unsigned char>(c)) || (c >= 'a' && c <= 'f');
  });
}

}  // namespace

absl::Status UploadOrder::Accept(const v1::UploadAdapterRequest& message) {
  if (has_digest_) {
    return InvalidFieldError("part", "the digest is the last message of an upload");
  }
  if (!has_header_ && !message.has_header()) {
    return InvalidFieldError("part", "the first message of an upload is its header");
  }
  switch (message.part_case()) {
    case v1::UploadAdapterRequest::kHeader:
      return AcceptHeader(message.header());
    case v1::UploadAdapterRequest::kChunk:
      return AcceptChunk(message.chunk());
    case v1::UploadAdapterRequest::kDigest:
      return AcceptDigest(message.digest());
    case v1::UploadAdapterRequest::PART_NOT_SET:
      break;
  }
  return InvalidFieldError("part", "one of header, chunk and digest must be set");
}

absl::Status UploadOrder::Incomplete() const {
  if (!has_header_) {
    return InvalidFieldError("header", "the upload ended before its header");
  }
  return InvalidFieldError("digest", "the upload ended before its digest; nothing was kept");
}

absl::Status UploadOrder::AcceptHeader(const v1::UploadHeader& header) {
  if (has_header_) {
    return InvalidFieldError("header", "an upload has one header");
  }
  TENON_RETURN_IF_ERROR(ValidateName("header.name", header.name()));
  if (!header.alias().empty()) {
    TENON_RETURN_IF_ERROR(ValidateAlias("header.alias", header.alias()));
  }
  if (header.no_promote() && (!header.alias().empty() || header.has_expected_version())) {
    return InvalidFieldError("header.no_promote",
                             "stands beside neither alias nor expected_version");
  }
  if (header.has_expected_version() && header.expected_version() < 0) {
    return InvalidFieldError("header.expected_version",
                             absl::StrCat(header.expected_version(), " is less than 0"));
  }
  has_header_ = true;
  header_ = header;
  return absl::OkStatus();
}

absl::Status UploadOrder::AcceptChunk(const v1::FileChunk& chunk) {
  if (!IsAdapterFileName(chunk.file_name())) {
    return InvalidFieldError("chunk.file_name",
                             absl::StrCat("'", absl::Utf8SafeCEscape(chunk.file_name()),
                                          "' is no file of an adapter folder (adapter_config.json, "
                                          "adapter_model.safetensors)"));
  }
  if (static_cast<int64_t>(chunk.data().size()) > kMaxChunkBytes) {
    return InvalidFieldError("chunk.data",
                             absl::StrCat(chunk.data().size(), " bytes exceed the limit of ",
                                          kMaxChunkBytes, " per message"));
  }
  if (chunk.file_name() != current_file_) {
    if (finished_files_.count(chunk.file_name()) > 0) {
      return InvalidFieldError("chunk.file_name", absl::StrCat("chunks of ", chunk.file_name(),
                                                               " do not follow each other"));
    }
    finished_files_.insert(current_file_);
    current_file_ = chunk.file_name();
  }
  return absl::OkStatus();
}

absl::Status UploadOrder::AcceptDigest(const v1::UploadDigest& digest) {
  if (current_file_.empty()) {
    return InvalidFieldError("chunk", "the upload has no files");
  }
  if (!digest.sha256().empty() &&
      (digest.sha256().size() != kSha256HexBytes || !IsLowerHex(digest.sha256()))) {
    return InvalidFieldError("digest.sha256", "must be 64 lower-case hex digits, or empty");
  }
  has_digest_ = true;
  return absl::OkStatus();
}

}  // namespace tenon
