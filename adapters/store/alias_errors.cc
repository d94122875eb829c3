#include "adapters/store/alias_errors.h"

#include "absl/strings/str_cat.h"
#include "adapters/base/error_metadata.h"
#include "adapters/base/errors.h"

namespace tenon {

std::string AliasOf(const AliasMove& move) { return absl::StrCat(move.name, "@", move.alias); }

absl::Status LostRace(const AliasMove& move, int64_t current) {
  const std::string now =
      current == 0 ? "does not exist" : absl::StrCat("points to version ", current);
  return WithMetadata(
      ResourceConflictError(
          absl::StatusCode::kAborted, "ALIAS_MOVED", AliasOf(move),
          absl::StrCat("alias ", AliasOf(move), " ", now, ", not to the expected version ",
                       *move.expected_version, ": somebody else moved it")),
      "current_version", absl::StrCat(current));
}

}  // namespace tenon
