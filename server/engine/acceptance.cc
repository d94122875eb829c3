#include "server/engine/acceptance.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/registry/adapter_selection.h"

namespace tenon {
namespace {

constexpr int64_t kForwardTokens = 8;

// More than any probe's events, so that none is ever paused.
constexpr int64_t kOutboxEvents = 4096;

// Whether the server, and not the adapter, is why a probe has no answer.
bool IsServersDoing(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsCancelled(status) || absl::IsResourceExhausted(status);
}

// What the engine is asked: the prompt, behind it a target that is to be scored.
std::vector<int32_t> PromptOf(const AcceptanceProbe& probe) {
  std::vector<int32_t> prompt = probe.prompt;
  if (const auto* loss = std::get_if<ExpectedLoss>(&probe.expectation)) {
    prompt.insert(prompt.end(), loss->target.begin(), loss->target.end());
  }
  return prompt;
}

SamplingParams SamplingOf(const AcceptanceProbe& probe) {
  SamplingParams sampling;
  sampling.temperature = 0;
  sampling.ignore_eos = true;
  sampling.max_tokens = 1;
  if (const auto* tokens = std::get_if<ExpectedTokens>(&probe.expectation)) {
    sampling.max_tokens = static_cast<int32_t>(tokens->ids.size());
  } else if (const auto* text = std::get_if<ExpectedText>(&probe.expectation)) {
    sampling.max_tokens = text->max_tokens;
  } else {
    sampling.prompt_logprobs = 0;
  }
  return sampling;
}

ProbeOutcome JudgeTokens(const ExpectedTokens& expected, const std::vector<int32_t>& tokens) {
  ProbeOutcome outcome;
  const auto [wanted, came] =
      std::mismatch(expected.ids.begin(), expected.ids.end(), tokens.begin(), tokens.end());
  outcome.passed = wanted == expected.ids.end();
  outcome.details =
      outcome.passed
          ? absl::StrCat("the ", expected.ids.size(), " tokens that were expected")
          : absl::StrCat("expected token ", *wanted, " at position ", wanted - expected.ids.begin(),
                         ", got ", came == tokens.end() ? "none" : absl::StrCat(*came));
  return outcome;
}

ProbeOutcome JudgeLoss(const ExpectedLoss& expected, const std::vector<float>& logprobs) {
  ProbeOutcome outcome;
  if (logprobs.size() < expected.target.size()) {
    outcome.details = absl::StrCat("only ", logprobs.size(), " log-probabilities came");
    return outcome;
  }
  double sum = 0;
  for (auto logprob = logprobs.end() - expected.target.size(); logprob != logprobs.end();
       ++logprob) {
    sum -= *logprob;
  }
  outcome.loss = sum / static_cast<double>(expected.target.size());
  outcome.passed = *outcome.loss <= expected.max_loss;  // NaN is not
  outcome.details = absl::StrCat("loss ", *outcome.loss, ", at most ", expected.max_loss);
  return outcome;
}

ProbeOutcome JudgeFinite(const std::vector<float>& logprobs) {
  ProbeOutcome outcome;
  const auto bad = std::find_if(logprobs.begin(), logprobs.end(),
                                [](float logprob) { return !std::isfinite(logprob); });
  outcome.passed = bad == logprobs.end();
  outcome.details = outcome.passed ? "finite numbers"
                                   : absl::StrCat("a log-probability of the forward pass is ", *bad,
                                                  " at position ", bad - logprobs.begin() + 1);
  return outcome;
}

}  // namespace

AcceptanceProbe ForwardPassProbe(int32_t vocab_size, int64_t max_tokens) {
  AcceptanceProbe probe;
  probe.name = "forward pass";
  const int64_t count = std::max<int64_t>(1, std::min(kForwardTokens, max_tokens - 1));
  for (int64_t i = 0; i < count; ++i) {
    probe.prompt.push_back(static_cast<int32_t>(vocab_size * i / count));
  }
  return probe;
}

absl::StatusOr<std::shared_ptr<AcceptanceRun>> AcceptanceRun::Start(
    Environment environment, const std::string& tenant, const AdapterHandle& adapter,
    std::vector<AcceptanceProbe> probes, absl::AnyInvocable<void()> on_done) {
  std::shared_ptr<AcceptanceRun> run(
      new AcceptanceRun(std::move(environment), std::move(probes), std::move(on_done)));
  run->self_ = run;
  for (size_t i = 0; i < run->probes_.size(); ++i) {
    TENON_RETURN_IF_ERROR(run->Submit(i, tenant, adapter));
  }
  return run;
}

AcceptanceRun::AcceptanceRun(Environment environment, std::vector<AcceptanceProbe> probes,
                             absl::AnyInvocable<void()> on_done)
    : environment_(std::move(environment)),
      probes_(std::move(probes)),
      started_(environment_.clock()),
      answers_(probes_.size()),
      num_open_(probes_.size()),
      on_done_(std::move(on_done)) {
  for (size_t i = 0; i < probes_.size(); ++i) {
    streams_.push_back(std::make_shared<TokenStream>(kOutboxEvents));
  }
}

AcceptanceRun::~AcceptanceRun() { Cancel(); }

absl::Status AcceptanceRun::Submit(size_t index, const std::string& tenant,
                                   const AdapterHandle& adapter) {
  // The engine holds the stream and so this callback for as long as the probe runs.
  streams_[index]->set_on_readable([weak = self_, index] {
    if (const std::shared_ptr<AcceptanceRun> run = weak.lock(); run != nullptr) {
      run->TakeEvents(index);
    }
  });
  GenerationRequest request;
  request.request_id = absl::StrCat("acceptance-", adapter->digest.substr(0, 12), "-", index);
  request.tenant = tenant;
  request.prompt = PromptOf(probes_[index]);
  request.selection = std::make_shared<const AdapterSelection>(
      std::vector<WeightedAdapter>{{.adapter = adapter, .weight = 1.0f}});
  request.sampling = SamplingOf(probes_[index]);
  request.deadline = started_ + environment_.timeout;
  request.priority = kMinPriority;  // after whatever the tenant itself asks for
  request.share = environment_.share;
  request.stream = streams_[index];
  return environment_.engine->Submit(std::move(request));
}

void AcceptanceRun::Cancel() {
  for (const std::shared_ptr<TokenStream>& stream : streams_) {
    stream->CancelAll(FinishReason::kCancelled);
  }
}

void AcceptanceRun::TakeEvents(size_t index) {
  absl::AnyInvocable<void()> done;
  {
    absl::MutexLock lock(&mutex_);
    Answer& answer = answers_[index];
    while (std::optional<GenerationEvent> event = streams_[index]->Pop()) {
      if (auto* token = std::get_if<TokenEvent>(&*event)) {
        answer.tokens.push_back(token->token.token);
      } else if (auto* prompt = std::get_if<PromptEvent>(&*event)) {
        for (const SampledToken& scored : prompt->prompt_logprobs) {
          answer.prompt_logprobs.push_back(scored.logprob);
        }
      } else {
        answer.end = std::get<FinishEvent>(*event).status;
        answer.ended = environment_.clock();
        if (--num_open_ == 0) {
          done = std::move(on_done_);
        }
      }
    }
  }
  if (done) {
    done();
  }
}

absl::StatusOr<AcceptanceReport> AcceptanceRun::Report() const {
  absl::MutexLock lock(&mutex_);
  AcceptanceReport report;
  report.passed = true;
  report.time = started_;
  for (size_t i = 0; i < probes_.size(); ++i) {
    const Answer& answer = answers_[i];
    if (!answer.end.has_value() || IsServersDoing(*answer.end)) {
      const absl::Status reason = answer.end.value_or(absl::UnavailableError("not finished"));
      return Annotate(reason, absl::StrCat("acceptance, ", probes_[i].name));
    }
    report.results.push_back(Judge(probes_[i], answer));
    report.passed = report.passed && report.results.back().passed;
    report.elapsed = std::max(report.elapsed, answer.ended - started_);
  }
  return report;
}

ProbeOutcome AcceptanceRun::Judge(const AcceptanceProbe& probe, const Answer& answer) const {
  ProbeOutcome outcome;
  if (!answer.end->ok()) {
    outcome.details = std::string(answer.end->message());
  } else if (const auto* tokens = std::get_if<ExpectedTokens>(&probe.expectation)) {
    outcome = JudgeTokens(*tokens, answer.tokens);
  } else if (const auto* loss = std::get_if<ExpectedLoss>(&probe.expectation)) {
    outcome = JudgeLoss(*loss, answer.prompt_logprobs);
  } else if (const auto* text = std::get_if<ExpectedText>(&probe.expectation)) {
    const absl::StatusOr<std::string> came =
        environment_.tokenizer->Decode(answer.tokens, /*skip_special_tokens=*/true);
    outcome.passed = came.ok() && absl::StartsWith(absl::StripLeadingAsciiWhitespace(*came),
                                                   absl::StripLeadingAsciiWhitespace(text->text));
    outcome.details = outcome.passed ? "the text that was expected"
                                     : absl::StrCat("expected ", Quoted(text->text), ", got ",
                                                    came.ok() ? Quoted(*came) : "no text");
  } else {
    outcome = JudgeFinite(answer.prompt_logprobs);
  }
  outcome.name = probe.name;
  return outcome;
}

}  // namespace tenon
