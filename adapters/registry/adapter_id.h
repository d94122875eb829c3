// Names of adapters. A name is scoped by tenant; a version is one immutable upload of that name.
#ifndef TENON_ADAPTERS_REGISTRY_ADAPTER_ID_H_
#define TENON_ADAPTERS_REGISTRY_ADAPTER_ID_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tenon {

/// The tenant of a server that has no credentials configured.
inline constexpr absl::string_view kDefaultTenant = "default";

/// One version of one tenant's adapter. Versions count from 1.
struct AdapterId {
  std::string tenant;
  std::string name;
  int64_t version = 0;

  friend bool operator==(const AdapterId&, const AdapterId&) = default;
  friend auto operator<=>(const AdapterId&, const AdapterId&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const AdapterId& id) {
    return H::combine(std::move(h), id.tenant, id.name, id.version);
  }

  /// "tenant/name@version".
  std::string ToString() const;
};

/// What a request writes: "name" (what `latest` points to, or a split's choice), "name@7" (a
/// version) or "name@canary" (what an alias points to).
struct AdapterRef {
  std::string name;
  int64_t version = 0;     ///< 0: see alias
  std::string alias = "";  ///< empty with version 0: the bare name

  /// Whether it is the name alone.
  bool is_bare() const { return version == 0 && alias.empty(); }
  std::string ToString() const;
};

/// The alias that a bare name means. An upload moves it, unless it says otherwise.
inline constexpr absl::string_view kLatestAlias = "latest";

/// Longest adapter or tenant name, in bytes.
inline constexpr int kMaxNameBytes = 128;
/// Longest alias, in bytes.
inline constexpr int kMaxAliasBytes = 64;

/// OK when `name` is 1 to 128 bytes of [a-z0-9A-Z._-] that begin with a letter or digit. Such a
/// name is also safe in a log line, a metric label and a URL. INVALID_ARGUMENT, naming `field`,
/// otherwise.
absl::Status ValidateName(absl::string_view field, absl::string_view name);

/// OK when `alias` is a name of at most 64 bytes that begins with a letter, so that it is no
/// version. INVALID_ARGUMENT, naming `field`, otherwise.
absl::Status ValidateAlias(absl::string_view field, absl::string_view alias);

/// Parses "name", "name@version" or "name@alias". INVALID_ARGUMENT, naming `field`, otherwise.
absl::StatusOr<AdapterRef> ParseAdapterRef(absl::string_view field, absl::string_view text);

}  // namespace tenon

#endif  // TENON_ADAPTERS_REGISTRY_ADAPTER_ID_H_
