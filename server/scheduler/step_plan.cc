#include "server/scheduler/step_plan.h"

#include <algorithm>
#include <string>
#include <tuple>

namespace tenon {
namespace {

/// The order of a batch's rows: equal selections adjacent, merged ones last.
bool ComesBefore(const StepPlan::Row& a, const StepPlan::Row& b) {
  const auto rank = [](const Sequence& sequence) {
    return std::tuple<bool, const std::string&, SequenceId>(
        sequence.merged(), sequence.selection()->key(), sequence.id());
  };
  return rank(*a.sequence) < rank(*b.sequence);
}

bool IsOfSegment(const Sequence& sequence, const BatchSegment& segment) {
  return segment.merged == sequence.merged() &&
         segment.selection->key() == sequence.selection()->key();
}

void AppendRow(const StepPlan::Row& planned, Batch& batch) {
  const Sequence& sequence = *planned.sequence;
  const int64_t row = static_cast<int64_t>(batch.rows.size());
  batch.rows.push_back({.sequence = &sequence,
                        .first_token = sequence.num_computed_tokens(),
                        .num_tokens = planned.num_tokens,
                        .samples = planned.num_tokens == sequence.num_uncomputed_tokens()});
  if (batch.segments.empty() || !IsOfSegment(sequence, batch.segments.back())) {
    batch.segments.push_back({.row_begin = row,
                              .row_end = row,
                              .token_begin = batch.num_tokens,
                              .token_end = batch.num_tokens,
                              .selection = sequence.selection(),
                              .merged = sequence.merged()});
  }
  batch.num_tokens += planned.num_tokens;
  batch.segments.back().row_end = row + 1;
  batch.segments.back().token_end = batch.num_tokens;
}

}  // namespace

StepPlan::StepPlan(uint64_t number, absl::Time time, int64_t max_tokens,
                   const std::vector<Sequence*>& active)
    : step(number),
      now(time),
      tokens_left(max_tokens),
      oldest(active.empty() ? nullptr : active.front()) {
  for (const Sequence* sequence : active) {
    AddActive(*sequence);
  }
}

void StepPlan::AddActive(const Sequence& sequence) {
  ++num_active[sequence.owner()];
  ++total_active;
}

void StepPlan::RemoveActive(const Sequence& sequence) {
  --num_active[sequence.owner()];
  --total_active;
}

std::vector<Sequence*> StepPlan::placed() const {
  std::vector<Sequence*> all = prefills;
  for (const Row& row : rows) {
    all.push_back(row.sequence);
  }
  return all;
}

int64_t StepPlan::NumPrefillTokens() const {
  int64_t count = 0;
  for (const Sequence* sequence : prefills) {
    count += sequence->num_uncomputed_tokens();
  }
  return count;
}

std::vector<StepPlan::ContextPart>::iterator StepPlan::FindContext(const Context& context) {
  return std::find_if(contexts.begin(), contexts.end(),
                      [&](const ContextPart& part) { return part.context.get() == &context; });
}

void StepPlan::DropPlace(const Sequence* sequence) {
  const auto place = std::find(prefills.begin(), prefills.end(), sequence);
  if (place != prefills.end()) {
    prefills.erase(place);
  }
  const auto row =
      std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return r.sequence == sequence; });
  if (row != rows.end()) {
    tokens_left += row->num_tokens;
    rows.erase(row);
  }
}

void StepPlan::DropContext(const Context& context) {
  const auto part = FindContext(context);
  if (part != contexts.end()) {
    tokens_left += part->num_tokens;
    contexts.erase(part);
  }
}

Batch StepPlan::Build(const std::vector<std::unique_ptr<Sequence>>& running) const {
  std::vector<Row> sorted = rows;
  std::sort(sorted.begin(), sorted.end(), ComesBefore);
  Batch batch;
  for (const Row& row : sorted) {
    AppendRow(row, batch);
  }
  for (const ContextPart& part : contexts) {
    const auto user = std::find_if(running.begin(), running.end(), [&](const auto& sequence) {
      return sequence->context() == part.context;
    });
    batch.contexts.push_back({.context = part.context,
                              .user = user->get(),
                              .first_token = part.context->num_computed_tokens(),
                              .num_tokens = part.num_tokens});
    batch.num_context_tokens += part.num_tokens;
  }
  return batch;
}

}  // namespace tenon
