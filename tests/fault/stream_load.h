// StreamLoad: many streams over the same names, each judged by a solo run of what it reports.
#ifndef TENON_TESTS_FAULT_STREAM_LOAD_H_
#define TENON_TESTS_FAULT_STREAM_LOAD_H_

#include <grpcpp/channel.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "tenon/v1/generation.grpc.pb.h"

namespace tenon {

/// The tokens of a prompt under an adapter's bytes, by (digest, prompt): what a solo run gave.
using SoloAnswers = std::map<std::pair<std::string, std::string>, std::vector<int32_t>>;

/// What the streams of a load saw.
struct StreamCounts {
  int64_t finished = 0;
  int64_t failed = 0;   ///< ended with an error
  int64_t dropped = 0;  ///< ended well, but without their finish or with tokens missing
  int64_t wrong = 0;    ///< other tokens than the solo run of the version that they report
  int64_t unknown = 0;  ///< report a version that nobody uploaded
  std::string first_trouble;
};

/// A fixed number of streams that begin again when they end. Thread-safe.
class StreamLoad {
 public:
  struct Options {
    int num_streams = 32;
    int32_t num_tokens = 32;
    std::vector<std::string> adapters;  ///< names, in turn
    std::vector<std::string> prompts;   ///< in turn
  };
  /// Begins. `solo` is borrowed and has all prompts under all digests.
  StreamLoad(std::shared_ptr<grpc::Channel> channel, Options options, const SoloAnswers* solo);
  /// Ends the streams that run.
  ~StreamLoad();

  /// Lets what runs end well, then stops.
  void Finish();

  StreamCounts counts() const ABSL_LOCKS_EXCLUDED(mutex_);
  /// Milliseconds between messages of one stream since the last call.
  std::vector<double> TakeGaps() ABSL_LOCKS_EXCLUDED(mutex_);

  /// The greedy answer of one request alone.
  static std::vector<int32_t> Ask(v1::GenerationService::Stub& stub, const std::string& adapter,
                                  const std::string& prompt, int32_t num_tokens);

 private:
  void RunStream(int index);
  void RunOnce(v1::GenerationService::Stub& stub, const std::string& adapter,
               const std::string& prompt, std::vector<double>& gaps) ABSL_LOCKS_EXCLUDED(mutex_);
  void Judge(const grpc::Status& status, const std::string& prompt,
             const std::vector<int32_t>& tokens, const v1::Finish& finish)
      ABSL_LOCKS_EXCLUDED(mutex_);

  const std::shared_ptr<grpc::Channel> channel_;
  const Options options_;
  const SoloAnswers* const solo_;
  std::atomic<bool> stopping_ = false;
  mutable absl::Mutex mutex_;
  StreamCounts counts_ ABSL_GUARDED_BY(mutex_);
  std::vector<double> gaps_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

/// The value below which `share` of the samples lie. 0 for none.
double Quantile(std::vector<double> samples, double share);

}  // namespace tenon

#endif  // TENON_TESTS_FAULT_STREAM_LOAD_H_
