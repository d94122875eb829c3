#include "server/model/flat_batch.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace tenon {
namespace {

int64_t SlotOf(std::span<const BlockId> blocks, int64_t index, int64_t block_size) {
  return blocks[index / block_size] * block_size + index % block_size;
}

int64_t NumTokens(const Batch& batch, std::span<const size_t> soft_prompts) {
  int64_t count = batch.num_tokens;
  for (const size_t index : soft_prompts) {
    count += batch.contexts[index].num_tokens;
  }
  return count;
}

}  // namespace

const AdapterContext* FindContext(std::span<const ResolvedAdapter> adapters, int64_t rank) {
  for (const ResolvedAdapter& resolved : adapters) {
    if (const AdapterContext* context = resolved.adapter->OfRank(rank).context();
        context != nullptr) {
      return context;
    }
  }
  return nullptr;
}

at::Tensor ContextSlots(const ContextRow& row, int64_t block_size) {
  const at::Tensor slots = at::zeros({row.num_tokens}, at::TensorOptions(at::kLong));
  int64_t* const data = slots.mutable_data_ptr<int64_t>();
  const int64_t first = row.context->first_slot() + row.first_token;
  for (int64_t i = 0; i < row.num_tokens; ++i) {
    data[i] = SlotOf(row.context->blocks(), first + i, block_size);
  }
  return slots;
}

int64_t NumScored(const BatchRow& row) {
  if (!row.sequence->sampling().prompt_logprobs.has_value()) {
    return 0;
  }
  return std::clamp<int64_t>(row.sequence->num_prompt_tokens() - 1 - row.first_token, 0,
                             row.num_tokens);
}

FlatBatch::FlatBatch(const Batch& batch, std::span<const ResolvedSelection> adapters,
                     std::span<const size_t> soft_prompts, int64_t block_size) {
  const int64_t count = NumTokens(batch, soft_prompts);
  tokens = at::zeros({count}, at::TensorOptions(at::kLong));
  slots = at::zeros({count}, at::TensorOptions(at::kLong));
  positions.reserve(count);
  wanted.reserve(batch.rows.size());
  for (size_t i = 0; i < batch.segments.size(); ++i) {
    if (!adapters[i].adapters.empty()) {
      segments.push_back({batch.segments[i].token_begin, batch.segments[i].token_end,
                          adapters[i].adapters, adapters[i].merged});
    }
  }
  for (const BatchRow& row : batch.rows) {
    AddRow(row, block_size);
  }
  std::vector<at::Tensor> embeddings;
  for (const size_t index : soft_prompts) {
    const ContextRow& row = batch.contexts[index];
    const std::vector<ResolvedAdapter>& resolved = adapters[batch.segments.size() + index].adapters;
    const int64_t begin = static_cast<int64_t>(positions.size());
    segments.push_back({begin, begin + row.num_tokens, resolved, nullptr});
    embeddings.push_back(
        FindContext(resolved)->embeddings.narrow(0, row.first_token, row.num_tokens));
    AddSoftPrompt(row, block_size);
  }
  if (!embeddings.empty()) {
    virtual_embeddings = at::cat(embeddings);
  }
}

void FlatBatch::AddRow(const BatchRow& row, int64_t block_size) {
  const Sequence& sequence = *row.sequence;
  AttentionRow attention;
  attention.token_begin = static_cast<int64_t>(positions.size());
  attention.num_tokens = row.num_tokens;
  attention.first_position = sequence.num_context_slots() + row.first_token;
  attention.first_key = sequence.context() == nullptr ? 0 : sequence.context()->first_slot();
  attention.blocks = sequence.blocks();
  std::copy_n(sequence.tokens().begin() + row.first_token, row.num_tokens,
              tokens.mutable_data_ptr<int64_t>() + attention.token_begin);
  AddSlots(attention, block_size);
  const int64_t before = sequence.num_virtual_tokens();
  for (int64_t i = row.first_token; i < row.first_token + row.num_tokens; ++i) {
    positions.push_back({before + i, before + std::max(sequence.num_prompt_tokens(), i + 1)});
  }
  rows.push_back(attention);
  const int64_t scored = NumScored(row);
  for (int64_t i = 0; i < row.num_tokens; ++i) {
    if (i < scored || (row.samples && i + 1 == row.num_tokens)) {
      wanted.push_back(attention.token_begin + i);
    }
  }
}

void FlatBatch::AddSoftPrompt(const ContextRow& row, int64_t block_size) {
  AttentionRow attention;
  attention.token_begin = static_cast<int64_t>(positions.size());
  attention.num_tokens = row.num_tokens;
  attention.first_position = row.context->first_slot() + row.first_token;
  attention.first_key = row.context->first_slot();
  attention.blocks = row.context->blocks();
  AddSlots(attention, block_size);
  for (int64_t i = row.first_token; i < row.first_token + row.num_tokens; ++i) {
    positions.push_back({i, i + 1});
  }
  rows.push_back(attention);
}

void FlatBatch::AddSlots(const AttentionRow& row, int64_t block_size) {
  int64_t* const data = slots.mutable_data_ptr<int64_t>() + row.token_begin;
  for (int64_t i = 0; i < row.num_tokens; ++i) {
    data[i] = SlotOf(row.blocks, row.first_position + i, block_size);
  }
}

}  // namespace tenon
