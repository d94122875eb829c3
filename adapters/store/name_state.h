// NameState: what a shared store keeps of one adapter name, and every change of it.
#ifndef TENON_ADAPTERS_STORE_NAME_STATE_H_
#define TENON_ADAPTERS_STORE_NAME_STATE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "adapters/registry/adapter_name.h"
#include "adapters/registry/alias_history.h"
#include "adapters/store/adapter_store.h"
#include "adapters/store/catalogue.h"

namespace tenon {

/// A plain value and its rules, without I/O: the same ones that Catalogue has as SQL. A change that
/// fails leaves it in no defined state: change a copy.
struct NameState {
  std::string tenant;
  std::string name;
  int64_t last_version = 0;  ///< the highest number that was ever given
  int64_t changes = 0;       ///< how often it changed, ever; the sequence of its history
  std::map<int64_t, StoredVersion> versions;
  AdapterPointers pointers;
  std::vector<AliasChange> history;  ///< oldest first, the last kMaxHistory

  /// The newest version that holds these bytes, or 0.
  int64_t VersionWith(absl::string_view digest) const;

  /// AdapterStore::Commit of a version that is new (its number is above last_version) or there.
  absl::StatusOr<AliasChange> Add(StoredVersion version, const CommitOrder& order, absl::Time now);
  /// As the methods of AdapterStore. The change has sequence 0 when nothing had to change.
  absl::StatusOr<AliasChange> MoveAlias(const AliasMove& move, absl::Time now);
  absl::StatusOr<AliasChange> SetSplit(const std::vector<SplitArm>& split, absl::string_view actor,
                                       absl::Time now);
  absl::StatusOr<AliasChange> Remove(int64_t version, const std::vector<AliasMove>& moves,
                                     absl::string_view actor, absl::Time now);
  absl::StatusOr<AliasChange> RemoveAll(absl::string_view actor, absl::Time now);

  /// As the registry takes it.
  AdapterName ToName(int64_t generation) const;

 private:
  absl::StatusOr<AliasChange> Point(const AliasMove& move, absl::Time now);
  absl::Status CheckUnused(int64_t version) const;
  void Record(AliasChange& change);
};

/// The small objects of the bucket, as JSON. `nonce` tells two writers of the same words apart.
std::string EncodeName(const NameState& state, absl::string_view nonce);
std::string EncodeVersion(const StoredVersion& version, absl::string_view nonce);

/// What EncodeName wrote, with the numbers of the versions that are there; their content comes from
/// their own objects. DATA_LOSS for other texts, FAILED_PRECONDITION for those of a newer Tenon.
absl::StatusOr<NameState> DecodeName(absl::string_view text, std::vector<int64_t>* versions);
absl::StatusOr<StoredVersion> DecodeVersion(absl::string_view text);

}  // namespace tenon

#endif  // TENON_ADAPTERS_STORE_NAME_STATE_H_
