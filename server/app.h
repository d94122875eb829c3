// App: the process's parts, put together. The composition root beside main.
#ifndef TENON_SERVER_APP_H_
#define TENON_SERVER_APP_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/server_config.h"

namespace tenon {

/// A server from loading to draining.
///
///   TENON_ASSIGN_OR_RETURN(std::unique_ptr<App> app, App::Start(config));   // SERVING
///   ... wait for a signal ...
///   app->Drain(deadline);                                                  // NOT_SERVING, then
///   done
///
/// Not thread-safe.
class App {
 public:
  /// Loads the model, restores the adapters, opens the listeners, which say that they are not
  /// ready, runs one step, then serves. Errors name what failed.
  static absl::StatusOr<std::unique_ptr<App>> Start(const ServerConfig& config);
  ~App();
  App(const App&) = delete;
  App& operator=(const App&) = delete;

  /// Refuses new requests, lets those in flight finish until `deadline`, ends the rest.
  void Drain(absl::Time deadline);

  const std::string& rpc_address() const;
  const std::string& admin_address() const;
  std::string http_address() const;

 private:
  struct Parts;
  explicit App(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace tenon

#endif  // TENON_SERVER_APP_H_
