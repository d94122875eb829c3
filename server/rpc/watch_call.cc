#include "server/rpc/watch_call.h"

#include <algorithm>
#include <vector>

#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "server/rpc/adapter_catalogue.h"

namespace tenon {
namespace {

// A message is closed when it has grown beyond this; clients take 4 MiB by default.
constexpr size_t kMessageBytes = size_t{1} << 20;

}  // namespace

WatchCall::WatchCall(const AdapterBackend* backend, const CallEnvironment* environment,
                     const grpc::CallbackServerContext& context, SerialExecutor* worker,
                     WatchRoom* room)
    : backend_(backend),
      worker_(worker),
      room_(room),
      record_(environment, context, "WatchAdapters") {}

WatchCall::~WatchCall() { room_->Leave(ticket_); }

void WatchCall::Begin(const v1::WatchAdaptersRequest& request) {
  self_ = shared_from_this();
  if (absl::Status status = Enter(request); !status.ok()) {
    End(status);
    return;
  }
  Post([this] { Pump(); });
}

absl::Status WatchCall::Enter(const v1::WatchAdaptersRequest& request) {
  TENON_RETURN_IF_ERROR(record_.admission());
  if (request.after_generation() < 0) {
    return InvalidFieldError("after_generation", "is less than 0");
  }
  const std::weak_ptr<WatchCall> weak = weak_from_this();
  TENON_RETURN_IF_ERROR(room_->Enter(
      record_.tenant(),
      [weak] {
        if (const std::shared_ptr<WatchCall> call = weak.lock(); call != nullptr) {
          call->Post([raw = call.get()] { raw->End(WatchDrained()); });
        }
      },
      &ticket_));
  subscription_ = backend_->registry->Subscribe(record_.tenant(), [weak] {
    const std::shared_ptr<WatchCall> call = weak.lock();
    if (call != nullptr && !call->pump_posted_.exchange(true)) {
      call->Post([raw = call.get()] { raw->Pump(); });
    }
  });
  // A client that has the very state that is here is sent what follows only.
  const AdapterSet set = backend_->registry->Set(record_.tenant());
  const bool damaged = std::any_of(set.names.begin(), set.names.end(),
                                   [](const auto& name) { return !name->quarantined.empty(); });
  if (request.after_generation() > 0 && request.after_generation() == set.generation && !damaged) {
    reset_ = false;
    for (const std::shared_ptr<const AdapterName>& name : set.names) {
      known_[name->name] = {name->generation, 0};
    }
    pending_.emplace_back().set_generation(set.generation);
    pending_.back().set_complete(true);
  }
  return absl::OkStatus();
}

void WatchCall::Post(absl::AnyInvocable<void()> task) {
  worker_->Post([claim = shared_from_this(), work = std::move(task)]() mutable { work(); });
}

void WatchCall::OnWriteDone(bool ok) {
  Post([this, ok] {
    write_in_flight_ = false;
    if (ok) {
      Pump();
    } else {
      End(absl::CancelledError("the watcher went away"));
    }
  });
}

void WatchCall::OnCancel() {
  Post([this] { End(absl::CancelledError("the watcher went away")); });
}

// The last claim goes with a task, so that the call ends on the worker.
void WatchCall::OnDone() {
  worker_->Post([claim = std::move(self_)] {});
}

void WatchCall::Pump() {
  pump_posted_ = false;  // before looking: what changes from here on posts again
  if (ended_ || write_in_flight_) {
    return;
  }
  if (pending_.empty()) {
    Compare();
  }
  if (!pending_.empty()) {
    message_ = std::move(pending_.front());
    pending_.pop_front();
    write_in_flight_ = true;
    StartWrite(&message_);
  }
}

void WatchCall::Compare() {
  AdapterSet set = backend_->registry->Set(record_.tenant());
  std::sort(set.names.begin(), set.names.end(),
            [](const auto& a, const auto& b) { return a->name < b->name; });
  const AdapterCatalogue catalogue(backend_->registry, backend_->cache);
  std::map<std::string, Mark> gone = std::exchange(known_, {});
  v1::WatchAdaptersResponse message;
  message.set_reset(reset_);
  for (const std::shared_ptr<const AdapterName>& name : set.names) {
    const Mark mark{name->generation, name->quarantined.size()};
    const auto before = gone.find(name->name);
    const bool same = before != gone.end() && before->second == mark;
    if (before != gone.end()) {
      gone.erase(before);
    }
    known_[name->name] = mark;
    if (same) {
      continue;
    }
    if (message.ByteSizeLong() > kMessageBytes) {
      message.set_generation(set.generation);
      pending_.push_back(std::exchange(message, {}));
    }
    *message.add_names() = catalogue.ToProto(*name);
  }
  for (const auto& [name, mark] : gone) {
    message.add_removed(name);
  }
  if (reset_ || message.names_size() > 0 || message.removed_size() > 0 || !pending_.empty()) {
    message.set_generation(set.generation);
    message.set_complete(true);
    pending_.push_back(std::move(message));
  }
  reset_ = false;
}

void WatchCall::End(const absl::Status& status) {
  if (ended_) {
    return;
  }
  ended_ = true;
  subscription_.reset();
  Finish(record_.End(status));
}

}  // namespace tenon
