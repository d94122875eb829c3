// Catalogue: the rows of a local adapter store. A version exists exactly when it has a row.
#ifndef TENON_ADAPTERS_STORE_CATALOGUE_H_
#define TENON_ADAPTERS_STORE_CATALOGUE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "adapters/base/sqlite.h"
#include "adapters/registry/adapter_registry.h"

namespace tenon {

/// One file of a version.
struct StoredFile {
  std::string name;    ///< one of IsAdapterFileName's
  std::string sha256;  ///< of the content, lower-case hex: the blob's name
  int64_t num_bytes = 0;
};

/// A version and its files, ordered by name.
struct StoredVersion {
  AdapterInfo info;
  std::vector<StoredFile> files;
};

/// Versions and files in an SQLite database (WAL, synchronous=FULL: a commit is on disk when it
/// returns).
///
/// Not thread-safe; does I/O. Every method is one transaction. A method that fails changed nothing
/// that this process sees; only after a failed *commit* (UNAVAILABLE) may a crash bring the change
/// back, whole, until the next change succeeds. So the blobs that a failed Add names must stay
/// until then.
class Catalogue {
 public:
  /// Opens or creates the database and checks its structure. FAILED_PRECONDITION when a newer
  /// Tenon made it; DATA_LOSS when it is damaged.
  static absl::StatusOr<Catalogue> Open(const std::string& path);

  /// Adds `version` under the next number of its tenant and name, one never used before, and
  /// returns true. When the newest version has the same digest, adds nothing, replaces
  /// version->info by that version and returns false.
  absl::StatusOr<bool> Add(StoredVersion* version);

  /// Removes a version and returns its files. NOT_FOUND when absent.
  absl::StatusOr<std::vector<StoredFile>> Remove(const AdapterId& id);

  /// NOT_FOUND when absent.
  absl::StatusOr<StoredVersion> Find(const AdapterId& id);

  /// All versions, ordered by tenant, name and version.
  absl::StatusOr<std::vector<AdapterInfo>> List();

  /// The size of every blob that a row names, by sha256.
  absl::StatusOr<absl::flat_hash_map<std::string, int64_t>> Blobs();

  /// The versions that hold the blob `sha256`.
  absl::StatusOr<std::vector<AdapterId>> VersionsWithBlob(absl::string_view sha256);

 private:
  explicit Catalogue(SqliteConnection db) : db_(std::move(db)) {}

  absl::Status Migrate();
  absl::StatusOr<int64_t> NextVersion(const AdapterId& id);
  absl::Status Insert(const StoredVersion& version);

  SqliteConnection db_;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_STORE_CATALOGUE_H_
