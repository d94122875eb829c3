// UploadOrder: what may follow what in the messages of one upload.
#ifndef TENON_SERVER_RPC_UPLOAD_ORDER_H_
#define TENON_SERVER_RPC_UPLOAD_ORDER_H_

#include <cstdint>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "tenon/v1/adapters.pb.h"

namespace tenon {

inline constexpr int64_t kMaxChunkBytes = int64_t{1} << 20;

/// header -> (chunk of a file ...) ... -> digest, with the chunks of one file next to each other.
/// Pure; one per upload. After an error the upload is over.
class UploadOrder {
 public:
  /// OK when the message may come now and is well-formed by itself. INVALID_ARGUMENT, naming the
  /// field, otherwise.
  absl::Status Accept(const v1::UploadAdapterRequest& message);

  /// What is missing when no message follows any more: never OK.
  absl::Status Incomplete() const;

  /// Valid once it was accepted. Its probes are not checked here: they need the model.
  const v1::UploadHeader& header() const { return header_; }
  const std::string& name() const { return header_.name(); }

 private:
  absl::Status AcceptHeader(const v1::UploadHeader& header);
  absl::Status AcceptChunk(const v1::FileChunk& chunk);
  absl::Status AcceptDigest(const v1::UploadDigest& digest);

  bool has_header_ = false;
  bool has_digest_ = false;
  v1::UploadHeader header_;
  std::string current_file_;
  std::set<std::string> finished_files_;
};

}  // namespace tenon

#endif  // TENON_SERVER_RPC_UPLOAD_ORDER_H_
