// WatchRoom: how many watchers there are, and when they shall end.
#ifndef TENON_SERVER_RPC_WATCH_ROOM_H_
#define TENON_SERVER_RPC_WATCH_ROOM_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace tenon {

/// Watchers of one tenant at the same time.
inline constexpr int64_t kMaxWatchesPerTenant = 32;

/// Counts watchers by tenant and ends them all at once. Thread-safe.
class WatchRoom {
 public:
  /// Lets a watcher in: RESOURCE_EXHAUSTED over kMaxWatchesPerTenant, UNAVAILABLE while draining.
  /// `end` is run by Drain; it only passes the news on. `*ticket` names the watcher for Leave.
  absl::Status Enter(const std::string& tenant, std::function<void()> end, uint64_t* ticket)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Leave(uint64_t ticket) ABSL_LOCKS_EXCLUDED(mutex_);

  /// Ends all watchers; nobody enters any more.
  void Drain() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Watcher {
    std::string tenant;
    std::function<void()> end;
  };

  absl::Mutex mutex_;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t last_ticket_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, Watcher> watchers_ ABSL_GUARDED_BY(mutex_);
};

/// What a watcher hears when the server goes.
absl::Status WatchDrained();

}  // namespace tenon

#endif  // TENON_SERVER_RPC_WATCH_ROOM_H_
