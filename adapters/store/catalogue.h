// Catalogue: the rows of a local adapter store. A version or an alias exists exactly when it has a
// row.
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
#include "absl/time/time.h"
#include "adapters/base/sqlite.h"
#include "adapters/registry/adapter_name.h"
#include "adapters/registry/alias_history.h"
#include "adapters/store/adapter_store.h"

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

/// The files that rows of a removed version named, and its name as it then is.
struct RemovedFiles {
  std::vector<StoredFile> files;
  NameChange name;
};

/// Versions, aliases and files in an SQLite database (WAL, synchronous=FULL: a commit is on disk
/// when it returns).
///
/// Not thread-safe; does I/O. Every method is one transaction. A method that fails changed nothing
/// that this process sees; only after a failed *commit* (UNAVAILABLE) may a crash bring the change
/// back, whole, until the next change succeeds. So the blobs that a failed Add names must stay
/// until then. `now` is written into the history and decides nothing: clocks jump.
class Catalogue {
 public:
  /// Opens or creates the database: see OpenCatalogueDatabase.
  static absl::StatusOr<Catalogue> Open(const std::string& path);

  /// AdapterStore::Commit: `version` gets the next number of its tenant and name, one never used
  /// before, unless a version of the name has its digest.
  absl::StatusOr<CommittedVersion> Add(StoredVersion version, const CommitOrder& order,
                                       absl::Time now);

  /// AdapterStore::Delete and DeleteName.
  absl::StatusOr<RemovedFiles> Remove(const AdapterId& id, const std::vector<AliasMove>& moves,
                                      absl::string_view actor, absl::Time now);
  absl::StatusOr<RemovedFiles> RemoveName(absl::string_view tenant, absl::string_view name,
                                          absl::string_view actor, absl::Time now);

  /// NOT_FOUND when absent.
  absl::StatusOr<StoredVersion> Find(const AdapterId& id);

  /// All names, ordered by tenant and name, those without versions too: they have generations.
  absl::StatusOr<std::vector<AdapterName>> Names();
  /// One name, empty when there is none.
  absl::StatusOr<AdapterName> Name(absl::string_view tenant, absl::string_view name);

  /// AdapterStore::MoveAlias, SetSplit and History.
  absl::StatusOr<NameChange> MoveAlias(const AliasMove& move, absl::Time now);
  absl::StatusOr<NameChange> SetSplit(absl::string_view tenant, absl::string_view name,
                                      const std::vector<SplitArm>& split, absl::string_view actor,
                                      absl::Time now);
  absl::StatusOr<std::vector<AliasChange>> History(absl::string_view tenant,
                                                   absl::string_view name);

  /// The size of every blob that a row names, by sha256.
  absl::StatusOr<absl::flat_hash_map<std::string, int64_t>> Blobs();

  /// The versions that hold the blob `sha256`.
  absl::StatusOr<std::vector<AdapterId>> VersionsWithBlob(absl::string_view sha256);

 private:
  explicit Catalogue(SqliteConnection db) : db_(std::move(db)) {}

  // Steps of a transaction that the caller has begun.
  absl::StatusOr<int64_t> NextVersion(const AdapterId& id);
  absl::Status Insert(const StoredVersion& version);
  absl::StatusOr<std::vector<StoredFile>> RemoveRow(const AdapterId& id);
  absl::Status CheckUnused(const AdapterId& id);
  // Moves an alias, without a line in the history; from == to when it was there already.
  absl::StatusOr<AliasChange> PointAlias(const AliasMove& move, absl::Time now);
  absl::StatusOr<int64_t> AliasTarget(const AliasMove& move);
  absl::Status WriteAlias(const AliasMove& move);
  absl::Status WriteSplit(absl::string_view tenant, absl::string_view name,
                          const std::vector<SplitArm>& split);
  // Adds a line to the history, fills in its sequence, and gives the name the next generation.
  absl::Status Record(absl::string_view tenant, absl::string_view name, AliasChange& change);

  // Of one name, or with tenant "" of all.
  absl::StatusOr<std::vector<AdapterInfo>> Versions(absl::string_view tenant,
                                                    absl::string_view name);
  absl::StatusOr<std::vector<AdapterName>> Pointers(absl::string_view tenant,
                                                    absl::string_view name);

  SqliteConnection db_;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_STORE_CATALOGUE_H_
