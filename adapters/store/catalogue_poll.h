// CataloguePoll: looks for what other replicas changed, at times and when told.
#ifndef TENON_ADAPTERS_STORE_CATALOGUE_POLL_H_
#define TENON_ADAPTERS_STORE_CATALOGUE_POLL_H_

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace tenon {

/// A thread that runs `refresh` each `interval`. An outage is logged when it begins and when it
/// ends, and is looked at each interval all the same: one listing is cheap, and a store that is
/// back should be noticed soon.
class CataloguePoll {
 public:
  CataloguePoll(absl::Duration interval, std::function<absl::Status()> refresh);
  ~CataloguePoll();
  CataloguePoll(const CataloguePoll&) = delete;
  CataloguePoll& operator=(const CataloguePoll&) = delete;

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);

  const absl::Duration interval_;
  const std::function<absl::Status()> refresh_;
  absl::Mutex mutex_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses what is above
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_STORE_CATALOGUE_POLL_H_
