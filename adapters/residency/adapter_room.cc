#include "adapters/residency/adapter_room.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace tenon {
namespace {

// Bytes of the wants with `counts(digest)`, each digest once.
template <typename Counts>
int64_t Sum(std::span<const AdapterRoom::Want> wants, Counts counts) {
  int64_t nbytes = 0;
  absl::flat_hash_set<std::string> seen;
  for (const AdapterRoom::Want& want : wants) {
    if (counts(want.digest) && seen.insert(want.digest).second) {
      nbytes += want.nbytes;
    }
  }
  return nbytes;
}

}  // namespace

bool AdapterRoom::is_pinned(const std::string& digest) const {
  const auto found = held_.find(digest);
  return found != held_.end() && found->second.pinned;
}

int64_t AdapterRoom::num_claims(const std::string& digest) const {
  const auto found = held_.find(digest);
  return found == held_.end() ? 0 : found->second.num_claims;
}

int64_t AdapterRoom::NewBytes(std::span<const Want> wants) const {
  return Sum(wants, [this](const std::string& digest) { return !is_held(digest); });
}

AdapterRoom::Held& AdapterRoom::Hold(const Want& want) {
  const auto [found, is_new] = held_.try_emplace(want.digest);
  if (is_new) {
    found->second.nbytes = want.nbytes;
    held_bytes_ += want.nbytes;
  }
  return found->second;
}

void AdapterRoom::DropIfFree(const std::string& digest) {
  const auto found = held_.find(digest);
  if (found->second.num_claims == 0 && !found->second.pinned) {
    held_bytes_ -= found->second.nbytes;
    held_.erase(found);
    draining_.erase(digest);
  }
}

AdapterRoom::Verdict AdapterRoom::Claim(std::span<const Want> wants, bool first_in_line) {
  const int64_t unpinned_bytes =
      Sum(wants, [this](const std::string& digest) { return !is_pinned(digest); });
  if (unpinned_bytes + pinned_bytes_ > budget_bytes_) {
    return Verdict::kNever;
  }
  const bool needs_room = std::any_of(wants.begin(), wants.end(),
                                      [this](const Want& want) { return !is_held(want.digest); });
  const bool meets_drain = std::any_of(
      wants.begin(), wants.end(), [this](const Want& want) { return is_draining(want.digest); });
  if ((!first_in_line && (needs_room || meets_drain)) ||
      (needs_room && held_bytes_ + NewBytes(wants) > budget_bytes_)) {
    return Verdict::kWait;
  }
  for (const Want& want : wants) {
    ++Hold(want).num_claims;
  }
  return Verdict::kTaken;
}

void AdapterRoom::Release(const std::string& digest) {
  --held_.at(digest).num_claims;
  DropIfFree(digest);
}

bool AdapterRoom::Pin(const Want& want) {
  if (is_pinned(want.digest)) {
    return true;
  }
  if (pinned_bytes_ + want.nbytes > budget_bytes_ / 2) {
    return false;
  }
  Held& held = Hold(want);
  held.pinned = true;
  pinned_bytes_ += held.nbytes;
  return true;
}

bool AdapterRoom::Unpin(const std::string& digest) {
  if (!is_pinned(digest)) {
    return false;
  }
  Held& held = held_.at(digest);
  held.pinned = false;
  pinned_bytes_ -= held.nbytes;
  DropIfFree(digest);
  return true;
}

void AdapterRoom::Drain(std::span<const Want> wants) {
  int64_t missing = held_bytes_ + NewBytes(wants) - budget_bytes_;
  for (const std::string& digest : draining_) {
    missing -= held_.at(digest).nbytes;
  }
  std::vector<std::pair<int64_t, std::string>> candidates;  // by the number of claims
  for (const auto& [digest, held] : held_) {
    const bool is_wanted = std::any_of(wants.begin(), wants.end(),
                                       [&](const Want& want) { return want.digest == digest; });
    if (!held.pinned && !is_wanted && !draining_.contains(digest)) {
      candidates.emplace_back(held.num_claims, digest);
    }
  }
  std::sort(candidates.begin(), candidates.end());
  for (const auto& [num_claims, digest] : candidates) {
    if (missing <= 0) {
      return;
    }
    missing -= held_.at(digest).nbytes;
    draining_.insert(digest);
  }
}

}  // namespace tenon
