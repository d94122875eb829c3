#include "server/app.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "adapters/base/status_macros.h"
#include "server/app_parts.h"
#include "server/telemetry/logging.h"

namespace tenon {
namespace {

// How long answers that are complete may take to leave after the last step.
constexpr absl::Duration kFlushTime = absl::Seconds(2);

}  // namespace

// One token through the whole engine: readiness means that a request would be answered.
absl::Status App::Parts::WarmUp() {
  auto stream = std::make_shared<TokenStream>(/*capacity=*/4);
  absl::Notification finished;
  absl::Status status;
  stream->set_on_readable([&, raw = stream.get()] {
    while (std::optional<GenerationEvent> event = raw->Pop()) {
      if (const auto* finish = std::get_if<FinishEvent>(&*event)) {
        status = finish->status;
        finished.Notify();
      }
    }
  });
  GenerationRequest request;
  request.request_id = "warm-up";
  request.tenant = std::string(kDefaultTenant);
  request.prompt = {0};
  request.selection = std::make_shared<const AdapterSelection>();
  request.sampling.temperature = 0;
  request.sampling.max_tokens = 1;
  request.stream = stream;
  TENON_RETURN_IF_ERROR(engine->Submit(std::move(request)));
  finished.WaitForNotification();
  return status;
}

// A catalogue that could not be reached at start is served as far as it is cached: generation is
// SERVING, the adapters and the server as a whole are when a look has succeeded.
void App::Parts::Serve() {
  rpc->SetServing(true);
  admin_rpc->SetServing(true);
  ready = true;
  if (!IsObjectStore(config)) {
    return;
  }
  const auto show = [this](bool reached) {
    rpc->SetServing("", reached);
    rpc->SetServing(v1::AdapterService::service_full_name(), reached);
  };
  show(store->status().reached);
  poll = std::make_unique<CataloguePoll>(config.store_poll_interval, [this, show] {
    const absl::Status refreshed = versions->Refresh().status();
    if (refreshed.ok()) {
      show(store->status().reached);
    }
    return refreshed;
  });
}

absl::StatusOr<std::unique_ptr<App>> App::Start(const ServerConfig& config) {
  TENON_RETURN_IF_ERROR(SetLogLevel(config.log_level));
  auto parts = std::make_unique<Parts>();
  parts->config = config;
  TENON_RETURN_IF_ERROR(parts->LoadBase());
  TENON_RETURN_IF_ERROR(parts->OpenAdapters());
  TENON_RETURN_IF_ERROR(parts->StartEngine());
  TENON_ASSIGN_OR_RETURN(parts->access, Access::Open(config, [] { return absl::Now(); }));
  parts->StartMeter();
  parts->MakeServices();
  TENON_RETURN_IF_ERROR(parts->StartListeners());
  TENON_RETURN_IF_ERROR(parts->WarmUp());
  parts->Serve();
  return std::unique_ptr<App>(new App(std::move(parts)));
}

App::App(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

App::~App() = default;

void App::Drain(absl::Time deadline) {
  parts_->poll.reset();  // it would say SERVING again
  parts_->ready = false;
  parts_->rpc->SetServing(false);
  parts_->admin_rpc->SetServing(false);
  parts_->adapter_service->Drain();
  parts_->engine->Drain(deadline);
  parts_->engine->Stop();
  const absl::Time last = std::min(absl::Now() + kFlushTime, deadline + kFlushTime);
  parts_->admin_rpc->Shutdown(last);
  parts_->rpc->Shutdown(last);
}

const std::string& App::rpc_address() const { return parts_->rpc->address(); }

const std::string& App::admin_address() const { return parts_->admin_rpc->address(); }

std::string App::http_address() const {
  const std::string& address = parts_->config.http_listen;
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", parts_->http->port());
}

}  // namespace tenon
