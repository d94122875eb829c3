#include "adapters/store/catalogue_poll.h"

#include <string>
#include <utility>

#include "spdlog/spdlog.h"

namespace tenon {

CataloguePoll::CataloguePoll(absl::Duration interval, std::function<absl::Status()> refresh)
    : interval_(interval), refresh_(std::move(refresh)), thread_([this] { Run(); }) {}

CataloguePoll::~CataloguePoll() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
}

void CataloguePoll::Run() {
  bool reachable = true;
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&stop_), interval_)) {
        return;
      }
    }
    const absl::Status status = refresh_();
    if (status.ok() != reachable) {
      reachable = status.ok();
      if (reachable) {
        spdlog::info("event=store_reachable");
      } else {
        spdlog::error("event=store_unreachable served=\"what is known\" error=\"{}\"",
                      std::string(status.message()));
      }
    }
  }
}

}  // namespace tenon
