// AdapterStore: which adapters exist, what their aliases mean, and their bytes.
#ifndef TENON_ADAPTERS_STORE_ADAPTER_STORE_H_
#define TENON_ADAPTERS_STORE_ADAPTER_STORE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "adapters/formats/file_set.h"
#include "adapters/registry/adapter_name.h"
#include "adapters/registry/alias_history.h"

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

/// Where an alias goes, who says so, and what he believes. `version` 0 removes the alias.
struct AliasMove {
  std::string tenant;
  std::string name;
  std::string alias;
  int64_t version = 0;
  /// Compare-and-set: the version that the alias must point to now, 0 for none. ABORTED (reason
  /// ALIAS_MOVED, metadata current_version) otherwise, unless it is at `version` already: to ask
  /// twice is fine.
  std::optional<int64_t> expected_version;
  AliasAction action = AliasAction::kPromote;
  std::string actor;  ///< for the history
};

/// What an upload asks for beside its files.
struct CommitOrder {
  std::string alias = std::string(kLatestAlias);  ///< that moves to the version; empty: none
  std::optional<int64_t> expected_version;        ///< as in AliasMove
  std::string actor;
};

/// A change that is durable: the name as it is from now on.
struct NameChange {
  AdapterName after;
  AliasChange change;  ///< its line of the history; sequence 0 when nothing had to change
};

struct CommittedVersion {
  AdapterInfo info;
  bool created = false;  ///< false: a version of the name held these bytes already, and is `info`
  NameChange name;
};

/// How a store that keeps its catalogue elsewhere stands with it.
struct StoreStatus {
  bool reached = true;  ///< ever since the start: what is served is at least that new
  bool current = true;  ///< at the last look
  /// Changes that were ever made, of all names that are known here. Equal on two replicas when both
  /// serve the same.
  int64_t generation = 0;
  absl::Time synced = absl::InfiniteFuture();  ///< the last look that succeeded
};

/// Versions of adapters, immutable and durable, and the aliases that point to them: what was
/// acknowledged is there after a crash, what was not is not there at all. Every changing method is
/// atomic and answers with the name as it then is, ready for AdapterRegistry::Replace. Names that
/// are answered say which versions are quarantined.
///
/// Thread-safe; methods do I/O, so never call one from the engine thread.
class AdapterStore {
 public:
  virtual ~AdapterStore() = default;

  /// Opens an upload limited to `max_bytes` in all files together.
  virtual absl::StatusOr<std::unique_ptr<StagedUpload>> Begin(int64_t max_bytes) = 0;

  /// Makes a sealed upload (of this store) the next version of facts.id's tenant and name, with
  /// id.version, digest, stored_bytes and created filled in; `facts` gives the rest. When a version
  /// of that name holds the same bytes, it is that version instead. Moves the alias of `order`
  /// in the same step. This is the point of acknowledgement. ABORTED as for AliasMove.
  virtual absl::StatusOr<CommittedVersion> Commit(std::unique_ptr<StagedUpload> upload,
                                                  AdapterInfo facts, const CommitOrder& order) = 0;

  /// The files of a version, mapped; their digests are checked on each open. The mapping survives
  /// Delete. DATA_LOSS when a blob is missing or does not match: the version is then quarantined,
  /// and further opens fail at once. Committing the same bytes once more repairs it.
  virtual absl::StatusOr<FileSet> Open(const AdapterId& id) = 0;

  /// All names of all tenants, ordered by tenant and name.
  virtual absl::StatusOr<std::vector<AdapterName>> Names() = 0;
  /// One name. NOT_FOUND when it has no versions.
  virtual absl::StatusOr<AdapterName> Name(absl::string_view tenant, absl::string_view name) = 0;

  /// Moves an alias. NOT_FOUND when the name has no such version, or no such alias to remove;
  /// RESOURCE_EXHAUSTED over kMaxAliases.
  virtual absl::StatusOr<NameChange> MoveAlias(const AliasMove& move) = 0;

  /// Sets the shares of a bare name's requests; no arms end the split. NOT_FOUND when the name has
  /// no versions. The arms are valid ones.
  virtual absl::StatusOr<NameChange> SetSplit(absl::string_view tenant, absl::string_view name,
                                              const std::vector<SplitArm>& split,
                                              absl::string_view actor) = 0;

  /// Removes a version, after `moves` (of its name, with their expectations) have been made; its
  /// files go when nothing else names them. NOT_FOUND when absent, FAILED_PRECONDITION (reason
  /// VERSION_IN_USE) while an alias still points to it. A version number is never used again.
  virtual absl::StatusOr<NameChange> Delete(const AdapterId& id,
                                            const std::vector<AliasMove>& moves,
                                            absl::string_view actor) = 0;

  /// Removes all versions of a name with its aliases and split. Its history stays. NOT_FOUND when
  /// it has none.
  virtual absl::StatusOr<NameChange> DeleteName(absl::string_view tenant, absl::string_view name,
                                                absl::string_view actor) = 0;

  /// What happened to a name, oldest first, the last kMaxHistory changes. Empty for a name that
  /// never was.
  virtual absl::StatusOr<std::vector<AliasChange>> History(absl::string_view tenant,
                                                           absl::string_view name) = 0;

  /// Looks for what other processes changed, and returns the names that are different from what
  /// this store answered before. UNAVAILABLE when the catalogue cannot be reached.
  virtual absl::StatusOr<std::vector<AdapterName>> Refresh() { return std::vector<AdapterName>(); }
  virtual StoreStatus status() const { return StoreStatus(); }

  /// All versions of all tenants, ordered by tenant, name and version.
  absl::StatusOr<std::vector<AdapterInfo>> List();
};

/// Aliases of one name at most.
inline constexpr int64_t kMaxAliases = 64;
/// Changes of one name that are remembered.
inline constexpr int64_t kMaxHistory = 1000;

}  // namespace tenon

#endif  // TENON_ADAPTERS_STORE_ADAPTER_STORE_H_
