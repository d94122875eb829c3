#include "tests/integration/flood.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/time/clock.h"
#include "tenon/v1/generation.pb.h"
#include "tests/source_dir.h"

namespace tenon {

std::unique_ptr<ChildProcess> StartFlood(const std::string& target,
                                         const std::vector<std::string>& arguments) {
  std::vector<std::string> all = {TestPython(), SourcePath("tests/integration/h2_flood.py"),
                                  target};
  all.insert(all.end(), arguments.begin(), arguments.end());
  all.push_back("--request=" + FloodRequest());
  return std::make_unique<ChildProcess>(std::move(all));
}

nlohmann::json RunFlood(const std::string& target, const std::vector<std::string>& arguments) {
  const std::unique_ptr<ChildProcess> flood = StartFlood(target, arguments);
  const std::string output = flood->ReadAll();
  EXPECT_EQ(flood->Wait(), 0);
  const nlohmann::json result = nlohmann::json::parse(output, nullptr, /*allow_exceptions=*/false);
  EXPECT_TRUE(result.is_object()) << output;
  return result;
}

std::string FloodRequest() {
  v1::GenerateRequest request;
  for (const int id : {1, 2, 3}) {
    request.mutable_tokens()->add_ids(id);
  }
  request.mutable_stopping()->set_max_tokens(60);
  request.mutable_stopping()->set_ignore_eos(true);
  return absl::BytesToHexString(request.SerializeAsString());
}

absl::Duration Latencies::Quantile(double q) const {
  return sorted.empty() ? absl::InfiniteDuration()
                        : sorted[static_cast<size_t>(q * static_cast<double>(sorted.size() - 1))];
}

Latencies CallFor(absl::Duration duration, const std::function<bool()>& call,
                  const std::function<bool()>& other_is_done) {
  Latencies latencies;
  const absl::Time end = absl::Now() + duration;
  while (absl::Now() < end || !other_is_done()) {
    const absl::Time begin = absl::Now();
    latencies.num_failed += !call();
    latencies.sorted.push_back(absl::Now() - begin);
  }
  std::sort(latencies.sorted.begin(), latencies.sorted.end());
  return latencies;
}

}  // namespace tenon
