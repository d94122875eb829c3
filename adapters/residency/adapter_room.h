// AdapterRoom: whose adapters may be resident at the same time, an account of bytes.
#ifndef TENON_ADAPTERS_RESIDENCY_ADAPTER_ROOM_H_
#define TENON_ADAPTERS_RESIDENCY_ADAPTER_ROOM_H_

#include <cstdint>
#include <span>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"

namespace tenon {

/// Requests claim their adapters before these are loaded, all of them or none, so that nothing is
/// loaded which would have to go again before it is used, and two requests never wait for each
/// other's. An adapter is held while it is claimed or pinned; what is held fits the budget
/// together.
///
/// The oldest request that waits for room is first in line: nobody behind it takes room, but all
/// may join adapters that are held anyway. When it has waited long enough it may Drain: the
/// adapters with the fewest claims are closed to newcomers until what it wants fits. So hot
/// adapters go on, and cold ones are not starved.
///
/// Not thread-safe; no clock, no tensors.
class AdapterRoom {
 public:
  struct Want {
    std::string digest;
    int64_t nbytes = 0;
  };
  enum class Verdict {
    kTaken,
    kWait,   ///< ask again when something was released
    kNever,  ///< more than the budget leaves beside what is pinned
  };

  explicit AdapterRoom(int64_t budget_bytes) : budget_bytes_(budget_bytes) {}

  /// Adds a claim on each, or changes nothing. `first_in_line`: no older request waits for room.
  Verdict Claim(std::span<const Want> wants, bool first_in_line);
  void Release(const std::string& digest);

  /// Holds an adapter without a claim, until Unpin; false when all that is pinned would take more
  /// than half of the budget. Pinned and claimed adapters may exceed the budget for as long as the
  /// claims last that were there before. Pinning twice is pinning once.
  bool Pin(const Want& want);
  /// False when it was not pinned.
  bool Unpin(const std::string& digest);

  /// Closes adapters to newcomers until `wants` fit; what is closed already stays so.
  void Drain(std::span<const Want> wants);
  /// Opens all.
  void EndDrain() { draining_.clear(); }

  bool is_held(const std::string& digest) const { return held_.contains(digest); }
  bool is_pinned(const std::string& digest) const;
  int64_t num_claims(const std::string& digest) const;
  bool is_draining(const std::string& digest) const { return draining_.contains(digest); }
  int64_t held_bytes() const { return held_bytes_; }
  int64_t pinned_bytes() const { return pinned_bytes_; }

 private:
  struct Held {
    int64_t nbytes = 0;
    int64_t num_claims = 0;
    bool pinned = false;
  };

  // Of those that nobody holds yet, each once.
  int64_t NewBytes(std::span<const Want> wants) const;
  Held& Hold(const Want& want);
  void DropIfFree(const std::string& digest);

  const int64_t budget_bytes_;
  absl::flat_hash_map<std::string, Held> held_;
  absl::flat_hash_set<std::string> draining_;
  int64_t held_bytes_ = 0, pinned_bytes_ = 0;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_RESIDENCY_ADAPTER_ROOM_H_
