#include "adapters/registry/adapter_name.h"

#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/sha256.h"
#include "adapters/base/status_macros.h"

namespace tenon {

absl::Status ValidateSplit(absl::string_view field, const std::vector<SplitArm>& split) {
  if (split.size() > kMaxSplitArms) {
    return InvalidFieldError(
        field, absl::StrCat(split.size(), " arms exceed the limit of ", kMaxSplitArms));
  }
  int64_t sum = 0;
  std::set<absl::string_view> seen;
  for (size_t i = 0; i < split.size(); ++i) {
    const std::string arm = absl::StrCat(field, "[", i, "]");
    TENON_RETURN_IF_ERROR(ValidateAlias(absl::StrCat(arm, ".alias"), split[i].alias));
    if (split[i].alias == kLatestAlias) {
      return InvalidFieldError(absl::StrCat(arm, ".alias"), "latest has what the arms leave");
    }
    if (!seen.insert(split[i].alias).second) {
      return InvalidFieldError(absl::StrCat(arm, ".alias"),
                               absl::StrCat(split[i].alias, " is named twice"));
    }
    if (split[i].basis_points < 1 || split[i].basis_points > kSplitWhole) {
      return InvalidFieldError(absl::StrCat(arm, ".percent"),
                               absl::StrCat(split[i].basis_points / 100.0,
                                            " is not in [0.01, 100]; to end a split, set none"));
    }
    sum += split[i].basis_points;
  }
  if (sum > kSplitWhole) {
    return InvalidFieldError(field, absl::StrCat("arms of ", sum / 100.0, " % exceed 100 %"));
  }
  return absl::OkStatus();
}

int32_t RoutingPoint(absl::string_view tenant, absl::string_view name,
                     absl::string_view routing_key) {
  // Each part with its length in front: no two different triples are written the same way.
  Sha256 hash;
  for (const absl::string_view part : {tenant, name, routing_key}) {
    hash.Update(absl::StrCat(part.size(), ":", part));
  }
  uint64_t head = 0;
  const std::string digest = hash.HexDigest();
  if (!absl::SimpleHexAtoi(digest.substr(0, 15), &head)) {
    return 0;  // a digest is hex
  }
  return static_cast<int32_t>(head % kSplitWhole);
}

absl::string_view AliasAt(const AdapterPointers& pointers, int32_t point) {
  int32_t end = 0;
  for (const SplitArm& arm : pointers.split) {
    end += arm.basis_points;
    if (point < end) {
      return pointers.aliases.contains(arm.alias) ? absl::string_view(arm.alias) : kLatestAlias;
    }
  }
  return kLatestAlias;
}

}  // namespace tenon
