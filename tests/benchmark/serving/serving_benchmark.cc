// A load generator over real gRPC: serving_benchmark --help.
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "client/cpp/client.h"
#include "tests/benchmark/serving/load_generator.h"
#include "tests/benchmark/serving/report.h"
#include "tests/benchmark/serving/workload.h"

ABSL_FLAG(std::string, server, "127.0.0.1:50051", "host:port or unix:/path of the server");
ABSL_FLAG(std::vector<std::string>, adapters, {}, "names, comma-separated; empty: the base only");
ABSL_FLAG(double, base_share, 0.0, "share of requests to the bare base, 0 to 1");
ABSL_FLAG(double, zipf, 0.0, "popularity of the i-th adapter ~ 1 / i^zipf; 0: round robin");
ABSL_FLAG(int64_t, requests, 128, "requests of the measured run");
ABSL_FLAG(int64_t, warmup, 8, "requests before it, not measured");
ABSL_FLAG(int32_t, concurrency, 32, "requests in flight at most");
ABSL_FLAG(double, rate, 0.0, "Poisson arrivals per second; 0: closed loop");
ABSL_FLAG(int64_t, prompt_tokens, 64, "tokens of a prompt");
ABSL_FLAG(int32_t, output_tokens, 64, "tokens of an answer");
ABSL_FLAG(uint64_t, seed, 1, "of prompts, adapters and arrivals");
ABSL_FLAG(std::string, requests_file, "", "JSON lines instead of random requests, without warm-up");
ABSL_FLAG(std::string, json, "", "file for the report as JSON");
ABSL_FLAG(bool, outputs, false, "include every answer's token ids in the JSON");
ABSL_FLAG(bool, token_times, false,
          "include in the JSON, by request, when it was sent (sent_s) and when each token came "
          "(token_s), in seconds since the run began");

namespace tenon::benchmark {
namespace {

WorkloadOptions OptionsFromFlags(const Client& client) {
  const absl::StatusOr<v1::GetModelResponse> model = client.GetModel();
  if (!model.ok()) {
    std::cerr << model.status() << "\n";
    std::exit(1);
  }
  return {.num_requests = absl::GetFlag(FLAGS_requests),
          .prompt_tokens = absl::GetFlag(FLAGS_prompt_tokens),
          .output_tokens = absl::GetFlag(FLAGS_output_tokens),
          .vocab_size = model->vocab_size(),
          .adapters = absl::GetFlag(FLAGS_adapters),
          .base_share = absl::GetFlag(FLAGS_base_share),
          .zipf_exponent = absl::GetFlag(FLAGS_zipf),
          .requests_per_second = absl::GetFlag(FLAGS_rate),
          .seed = absl::GetFlag(FLAGS_seed)};
}

/// The measured requests; runs the warm-up first when they are random ones.
std::vector<BenchmarkRequest> Prepare(const Client& client) {
  const std::string file = absl::GetFlag(FLAGS_requests_file);
  if (!file.empty()) {
    absl::StatusOr<std::vector<BenchmarkRequest>> requests = ReadWorkload(file);
    if (!requests.ok()) {
      std::cerr << requests.status() << "\n";
      std::exit(1);
    }
    return *std::move(requests);
  }
  const WorkloadOptions options = OptionsFromFlags(client);
  WorkloadOptions warmup = options;
  warmup.num_requests = absl::GetFlag(FLAGS_warmup);
  warmup.requests_per_second = 0;
  warmup.seed = options.seed + 1;
  RunWorkload(client, MakeWorkload(warmup), absl::GetFlag(FLAGS_concurrency));
  return MakeWorkload(options);
}

int Main() {
  const Client client = Client::Connect(absl::GetFlag(FLAGS_server));
  const std::vector<BenchmarkRequest> requests = Prepare(client);
  const RunOutcome run = RunWorkload(client, requests, absl::GetFlag(FLAGS_concurrency));
  const Report report = MakeReport(run);
  std::cout << ToTable(report);
  if (const std::string path = absl::GetFlag(FLAGS_json); !path.empty()) {
    nlohmann::json json = ToJson(report);
    if (absl::GetFlag(FLAGS_outputs)) {
      for (const RequestOutcome& request : run.requests) {
        json["outputs"].push_back(request.tokens);
      }
    }
    if (absl::GetFlag(FLAGS_token_times)) {
      for (const RequestOutcome& request : run.requests) {
        json["sent_s"].push_back(absl::ToDoubleSeconds(request.sent));
        nlohmann::json& times = json["token_s"].emplace_back(nlohmann::json::array());
        for (const absl::Duration time : request.token_times) {
          times.push_back(absl::ToDoubleSeconds(time));
        }
      }
    }
    std::ofstream(path) << json.dump(1) << "\n";
  }
  return report.num_failed == 0 && report.num_requests > 0 ? 0 : 1;
}

}  // namespace
}  // namespace tenon::benchmark

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "Sends generated requests to a server and prints tokens per second and latencies.\n"
      "  serving_benchmark --adapters=a,b,c --base_share=0.1 --concurrency=32 --json=out.json\n"
      "  serving_benchmark --rate=4 --requests=200      # open loop, Poisson");
  absl::ParseCommandLine(argc, argv);
  return tenon::benchmark::Main();
}
