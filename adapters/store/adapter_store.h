// AdapterStore: which adapters exist, and their bytes.
#ifndef TENON_ADAPTERS_STORE_ADAPTER_STORE_H_
#define TENON_ADAPTERS_STORE_ADAPTER_STORE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "adapters/formats/file_set.h"
#include "adapters/registry/adapter_registry.h"

namespace tenon {

/// An upload in progress: bytes on disk that no catalogue row names yet. Destroying it drops them.
/// Not thread-safe; methods do I/O. Ends before its store. After an error, only destroy it.
class StagedUpload {
 public:
  virtual ~StagedUpload() = default;

  /// Appends to the file `name` (created on first use). Names are a fixed list (see
  /// IsAdapterFileName), so no client string ever becomes a path. RESOURCE_EXHAUSTED over the size
  /// limit or when the disk is full.
  virtual absl::Status Append(absl::string_view file_name, std::span<const std::byte> bytes) = 0;

  /// Closes the files for writing and gives them, mapped, for validation.
  virtual absl::StatusOr<FileSet> Seal() = 0;

  /// sha256 over one line "<sha256 hex>  <file name>\n" per file, sorted by file name: what
  /// `sha256sum * | sha256sum` prints in the adapter's folder. Valid after Seal.
  virtual const std::string& digest() const = 0;
  /// Bytes of all files so far.
  virtual int64_t num_bytes() const = 0;
};

/// Versions of adapters, immutable and durable: what Commit acknowledged is there after a crash,
/// what it did not is not there at all. Thread-safe; methods do I/O, so never call one from the
/// engine thread.
class AdapterStore {
 public:
  virtual ~AdapterStore() = default;

  /// Opens an upload limited to `max_bytes` in all files together.
  virtual absl::StatusOr<std::unique_ptr<StagedUpload>> Begin(int64_t max_bytes) = 0;

  /// Makes a sealed upload (of this store) the next version of facts.id's tenant and name, and
  /// returns its catalogue row with id.version, digest, stored_bytes and created filled in; `facts`
  /// gives the rest. When the newest version of that name holds the same bytes, that version is
  /// returned and `*created` is false. This is the point of acknowledgement.
  virtual absl::StatusOr<AdapterInfo> Commit(std::unique_ptr<StagedUpload> upload,
                                             AdapterInfo facts, bool* created) = 0;

  /// The files of a version, mapped; their digests are checked on each open. The mapping survives
  /// Delete. DATA_LOSS when a blob is missing or does not match: the version is then damaged, and
  /// further opens fail at once.
  virtual absl::StatusOr<FileSet> Open(const AdapterId& id) = 0;

  /// All versions of all tenants, ordered by tenant, name and version.
  virtual absl::StatusOr<std::vector<AdapterInfo>> List() = 0;

  /// The versions that are known to be damaged, each with the DATA_LOSS that Open gives. Committing
  /// the same bytes once more repairs them.
  virtual absl::StatusOr<std::map<AdapterId, absl::Status>> Damaged() = 0;

  /// Removes a version from the catalogue; its blobs go when nothing else names them. NOT_FOUND
  /// when absent. A version number is never used again.
  virtual absl::Status Delete(const AdapterId& id) = 0;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_STORE_ADAPTER_STORE_H_
