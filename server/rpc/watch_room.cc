#include "server/rpc/watch_room.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "adapters/base/errors.h"

namespace tenon {

absl::Status WatchDrained() {
  return RetryLaterError("DRAINING", "the server is draining; watch another one", absl::Seconds(1));
}

absl::Status WatchRoom::Enter(const std::string& tenant, std::function<void()> end,
                              uint64_t* ticket) {
  absl::MutexLock lock(&mutex_);
  if (draining_) {
    return WatchDrained();
  }
  const int64_t others = std::count_if(watchers_.begin(), watchers_.end(), [&](const auto& entry) {
    return entry.second.tenant == tenant;
  });
  if (others >= kMaxWatchesPerTenant) {
    return QuotaExceededError("TOO_MANY_WATCHES", "watches",
                              absl::StrCat("tenant ", tenant, " has ", others,
                                           " watchers, the limit is ", kMaxWatchesPerTenant));
  }
  *ticket = ++last_ticket_;
  watchers_.emplace(*ticket, Watcher{tenant, std::move(end)});
  return absl::OkStatus();
}

void WatchRoom::Leave(uint64_t ticket) {
  Watcher gone;  // freed after the lock
  absl::MutexLock lock(&mutex_);
  const auto found = watchers_.find(ticket);
  if (found != watchers_.end()) {
    gone = std::move(found->second);
    watchers_.erase(found);
  }
}

void WatchRoom::Drain() {
  std::vector<std::function<void()>> ends;
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
    for (const auto& [ticket, watcher] : watchers_) {
      ends.push_back(watcher.end);
    }
  }
  for (const std::function<void()>& end : ends) {
    end();
  }
}

}  // namespace tenon
