// The history of an adapter name, and what a rollback means in it.
#ifndef TENON_ADAPTERS_REGISTRY_ALIAS_HISTORY_H_
#define TENON_ADAPTERS_REGISTRY_ALIAS_HISTORY_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace tenon {

enum class AliasAction {
  kUpload,    ///< a version was made; the alias, if any, moved to it
  kPromote,   ///< somebody pointed the alias there
  kRollback,  ///< somebody took the alias back to where it had been
  kDelete,    ///< a version went, and took the alias with it or back
  kSplit,     ///< the shares of a bare name's requests changed; no alias moved
};

/// "upload", "promote", ...: as the catalogue stores it.
absl::string_view AliasActionName(AliasAction action);
/// DATA_LOSS for a text that is no action's name.
absl::StatusOr<AliasAction> ParseAliasAction(absl::string_view name);

/// One line of a name's history.
struct AliasChange {
  /// Order of the changes of a catalogue. Not the time: clocks jump.
  int64_t sequence = 0;
  absl::Time time = absl::InfinitePast();
  std::string actor;  ///< Identity::credential of who asked, "key:...", or "server"
  AliasAction action = AliasAction::kPromote;
  std::string alias;    ///< empty when none moved
  int64_t from = 0;     ///< version; 0: there was none
  int64_t to = 0;       ///< version; 0: there is none any more
  std::string details;  ///< kSplit: the shares, "canary=5%"
};

/// The version that `alias` pointed to before the one that it points to now, or nothing.
///
/// Moves forward (kUpload, kPromote) are a stack and a rollback takes the top off, so that a second
/// rollback goes one further back instead of forth again. Versions for which `exists` says no are
/// passed over. `oldest_first` may lack its beginning.
std::optional<int64_t> RollbackTarget(std::span<const AliasChange> oldest_first,
                                      absl::string_view alias,
                                      const std::function<bool(int64_t version)>& exists);

}  // namespace tenon

#endif  // TENON_ADAPTERS_REGISTRY_ALIAS_HISTORY_H_
