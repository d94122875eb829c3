// Floods: h2_flood.py against a server, and what it does to somebody else meanwhile.
#ifndef TENON_TESTS_INTEGRATION_FLOOD_H_
#define TENON_TESTS_INTEGRATION_FLOOD_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "tests/child_process.h"

namespace tenon {

/// Starts h2_flood.py with `arguments` after the target.
std::unique_ptr<ChildProcess> StartFlood(const std::string& target,
                                         const std::vector<std::string>& arguments);

/// Runs it to its end and gives what it printed.
nlohmann::json RunFlood(const std::string& target, const std::vector<std::string>& arguments);

/// The bytes of a request that h2_flood.py sends, as its --request takes them.
std::string FloodRequest();

/// Latencies of one client that calls again and again.
struct Latencies {
  int num_failed = 0;
  std::vector<absl::Duration> sorted;
  absl::Duration Quantile(double q) const;
};

/// Calls `call` (true: it was answered) for `duration`, and for as long as `other` is not done.
Latencies CallFor(absl::Duration duration, const std::function<bool()>& call,
                  const std::function<bool()>& other_is_done);

}  // namespace tenon

#endif  // TENON_TESTS_INTEGRATION_FLOOD_H_
