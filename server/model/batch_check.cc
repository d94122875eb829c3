#include "server/model/batch_check.h"

#include <iterator>
#include <span>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "adapters/base/status_macros.h"
#include "server/scheduler/context.h"
#include "server/scheduler/sequence.h"

namespace tenon {
namespace {

absl::Status CheckBlocks(std::span<const BlockId> blocks, const Sequence& sequence,
                         const BatchLimits& limits) {
  for (const BlockId block : blocks) {
    if (block < 0 || block >= limits.num_blocks) {
      return absl::InternalError(absl::StrCat("request ", sequence.request_id(), ": block ", block,
                                              " of ", limits.num_blocks));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRow(const BatchRow& row, const BatchLimits& limits) {
  const Sequence& sequence = *row.sequence;
  const auto internal = [&sequence](absl::string_view problem) {
    return absl::InternalError(absl::StrCat("request ", sequence.request_id(), ": ", problem));
  };
  const int64_t end = row.first_token + row.num_tokens;
  if (row.first_token < 0 || row.num_tokens <= 0 ||
      end > static_cast<int64_t>(sequence.tokens().size())) {
    return internal(absl::StrCat("row of tokens ", row.first_token, " to ", end, " of ",
                                 sequence.tokens().size()));
  }
  const int64_t num_positions = sequence.num_virtual_tokens() + end;
  if (num_positions > limits.max_positions) {
    return internal(
        absl::StrCat("position ", num_positions - 1, " is not below ", limits.max_positions));
  }
  if (sequence.num_virtual_tokens() > 0 && sequence.context() == nullptr) {
    return internal(
        absl::StrCat("no context for ", sequence.num_virtual_tokens(), " virtual tokens"));
  }
  if (sequence.num_context_slots() + end >
      static_cast<int64_t>(sequence.blocks().size()) * limits.block_size) {
    return internal(absl::StrCat(sequence.blocks().size(), " blocks do not hold ", end, " tokens"));
  }
  TENON_RETURN_IF_ERROR(CheckBlocks(sequence.blocks(), sequence, limits));
  // Earlier tokens, which the sampler looks back at, were in a row of their own before.
  for (int64_t i = row.first_token; i < end; ++i) {
    const int32_t token = sequence.tokens()[i];
    if (token < 0 || token >= limits.vocab_size) {
      return internal(absl::StrCat("token ", token, " of a vocabulary of ", limits.vocab_size));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckContextRow(const ContextRow& row, const BatchLimits& limits) {
  const Context& context = *row.context;
  const int64_t end = row.first_token + row.num_tokens;
  if (row.first_token < 0 || row.num_tokens <= 0 || end > context.num_tokens() ||
      end > limits.max_positions ||
      context.num_slots() != static_cast<int64_t>(context.blocks().size()) * limits.block_size) {
    return absl::InternalError(absl::StrCat("request ", row.user->request_id(), ": virtual tokens ",
                                            row.first_token, " to ", end, " of ",
                                            context.num_tokens(), " in ", context.blocks().size(),
                                            " blocks, of ", limits.max_positions, " positions"));
  }
  return CheckBlocks(context.blocks(), *row.user, limits);
}

}  // namespace

absl::Status CheckBatch(const Batch& batch, int64_t num_selections, const BatchLimits& limits) {
  if (num_selections != std::ssize(batch.segments) + std::ssize(batch.contexts)) {
    return absl::InternalError(absl::StrCat(num_selections, " adapter lists for ",
                                            batch.segments.size(), " segments and ",
                                            batch.contexts.size(), " contexts"));
  }
  for (const ContextRow& row : batch.contexts) {
    TENON_RETURN_IF_ERROR(CheckContextRow(row, limits));
  }
  int64_t num_tokens = 0;
  for (const BatchRow& row : batch.rows) {
    TENON_RETURN_IF_ERROR(CheckRow(row, limits));
    num_tokens += row.num_tokens;
  }
  if (num_tokens != batch.num_tokens) {
    return absl::InternalError(
        absl::StrCat("rows of ", num_tokens, " tokens in a batch of ", batch.num_tokens));
  }
  return absl::OkStatus();
}

}  // namespace tenon
