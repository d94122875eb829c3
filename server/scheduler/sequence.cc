#include "server/scheduler/sequence.h"

#include <cassert>
#include <utility>

namespace tenon {

Sequence::Sequence(Options options)
    : options_(std::move(options)),
      tokens_(std::move(options_.prompt)),
      num_prompt_tokens_(static_cast<int64_t>(tokens_.size())),
      phase_since_(options_.arrival) {
  assert(!tokens_.empty() && options_.selection != nullptr);
}

void Sequence::EnterPhase(Phase phase, absl::Time now) {
  if (now > phase_since_) {  // a wall clock may step back; the timings only grow
    const absl::Duration spent = now - phase_since_;
    switch (phase_) {
      case Phase::kQueue:
        timings_.queue += spent;
        break;
      case Phase::kAdapterWait:
        timings_.adapter_wait += spent;
        break;
      case Phase::kPrefill:
        timings_.prefill += spent;
        break;
      case Phase::kDecode:
        timings_.decode += spent;
        break;
    }
    phase_since_ = now;
  }
  phase_ = phase;
}

}  // namespace tenon
