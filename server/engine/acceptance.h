// Acceptance: what an uploaded adapter must show before it goes live.
#ifndef TENON_SERVER_ENGINE_ACCEPTANCE_H_
#define TENON_SERVER_ENGINE_ACCEPTANCE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "adapters/registry/adapter_registry.h"
#include "server/engine/engine.h"
#include "server/engine/token_stream.h"
#include "server/tokenizer/tokenizer.h"

namespace tenon {

/// The greedy answer begins with these tokens.
struct ExpectedTokens {
  std::vector<int32_t> ids;  ///< at least one
};
/// The greedy answer begins with this text, white space at the front of either aside.
struct ExpectedText {
  std::string text;    ///< not empty
  int32_t max_tokens;  ///< of the answer that is looked at
};
/// The mean negative log-probability of `target` after the prompt is at most `max_loss`.
struct ExpectedLoss {
  std::vector<int32_t> target;  ///< at least one
  double max_loss = 0;          ///< nats a token
};
/// Nothing but finite numbers.
struct ExpectedFinite {};

/// A question with its answer.
struct AcceptanceProbe {
  std::string name;
  std::vector<int32_t> prompt;  ///< at least one token
  std::variant<ExpectedFinite, ExpectedTokens, ExpectedText, ExpectedLoss> expectation;
};

struct ProbeOutcome {
  std::string name;
  bool passed = false;
  std::string details;  ///< what was expected and what came; never the prompt
  std::optional<double> loss;
};

struct AcceptanceReport {
  bool passed = false;  ///< all of them
  absl::Time time;
  absl::Duration elapsed;
  std::vector<ProbeOutcome> results;
};

/// The forward pass that every upload makes: a few tokens from all over the vocabulary.
AcceptanceProbe ForwardPassProbe(int32_t vocab_size, int64_t max_tokens);

/// Runs probes on an adapter that nobody can ask for yet, as requests of the engine with the lowest
/// priority: in the batch, beside whatever is served.
///
///   TENON_ASSIGN_OR_RETURN(auto run, AcceptanceRun::Start(environment, "acme", handle, probes,
///                                                         [worker] { worker->Post(...); }));
///   ... later, on the worker: run->Report()
///
/// Thread-safe. `on_done` runs once, on the engine thread or within Start, when the last probe has
/// ended: it only passes the news on. The run may go before; its probes then end at the next step.
class AcceptanceRun {
 public:
  /// Borrowed; outlive the run.
  struct Environment {
    Engine* engine = nullptr;
    const Tokenizer* tokenizer = nullptr;
    std::function<absl::Time()> clock;
    /// A run that takes longer has failed: the server has no room for it.
    absl::Duration timeout = absl::Seconds(60);
    TenantShare share = {};  ///< of the tenant, in which its uploads count
  };

  /// `adapter` is resident, and somebody holds its tensors until the run is done. Errors are those
  /// of Engine::Submit; `on_done` does not run then.
  static absl::StatusOr<std::shared_ptr<AcceptanceRun>> Start(Environment environment,
                                                              const std::string& tenant,
                                                              const AdapterHandle& adapter,
                                                              std::vector<AcceptanceProbe> probes,
                                                              absl::AnyInvocable<void()> on_done);
  ~AcceptanceRun();
  AcceptanceRun(const AcceptanceRun&) = delete;
  AcceptanceRun& operator=(const AcceptanceRun&) = delete;

  /// Ends what still runs; on_done follows.
  void Cancel();

  /// What came out. Only after on_done. UNAVAILABLE, DEADLINE_EXCEEDED or CANCELLED when the server
  /// and not the adapter is the reason that there is no answer.
  absl::StatusOr<AcceptanceReport> Report() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // What the engine said to one probe.
  struct Answer {
    std::vector<int32_t> tokens;
    std::vector<float> prompt_logprobs;  // of prompt tokens 1..n-1
    std::optional<absl::Status> end;
    absl::Time ended;
  };

  AcceptanceRun(Environment environment, std::vector<AcceptanceProbe> probes,
                absl::AnyInvocable<void()> on_done);

  absl::Status Submit(size_t index, const std::string& tenant, const AdapterHandle& adapter);
  void TakeEvents(size_t index) ABSL_LOCKS_EXCLUDED(mutex_);
  ProbeOutcome Judge(const AcceptanceProbe& probe, const Answer& answer) const;

  const Environment environment_;
  const std::vector<AcceptanceProbe> probes_;
  const absl::Time started_;
  std::weak_ptr<AcceptanceRun> self_;
  std::vector<std::shared_ptr<TokenStream>> streams_;  // one a probe

  mutable absl::Mutex mutex_;
  std::vector<Answer> answers_ ABSL_GUARDED_BY(mutex_);  // one a probe
  size_t num_open_ ABSL_GUARDED_BY(mutex_);
  absl::AnyInvocable<void()> on_done_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tenon

#endif  // TENON_SERVER_ENGINE_ACCEPTANCE_H_
