#include "server/model/decoder_runner.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <exception>
#include <iterator>
#include <numeric>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/kernels/device.h"
#include "adapters/kernels/parallel.h"
#include "adapters/kernels/serial_scope.h"
#include "server/kernels/cuda_ops.h"
#include "server/model/batch_check.h"
#include "server/model/token_selection.h"

namespace tenon {
namespace {

// Logits of this many prompt positions at a time: 32 x 128 Ki entries are 16 MiB.
constexpr int64_t kPromptLogitsRows = 32;
// Rows for which another sampler, with memory of its own, is worth it.
constexpr int64_t kRowsPerSampler = 4;

at::Tensor IndexTensor(int64_t size) { return at::empty({size}, at::TensorOptions(at::kLong)); }

// Row `index` of a contiguous [R, V] fp32 tensor.
std::span<const float> LogitsRow(const at::Tensor& logits, int64_t index) {
  const int64_t width = logits.size(1);
  return {logits.const_data_ptr<float>() + index * width, static_cast<size_t>(width)};
}

// Whether no log-probabilities are asked for.
bool NeedsTokenAlone(const Sequence& sequence) { return !sequence.sampling().logprobs.has_value(); }

SamplingContext ContextOf(const Sequence& sequence) {
  SamplingContext context;
  context.params = &sequence.sampling();
  context.tokens = sequence.tokens();
  context.num_prompt_tokens = sequence.num_prompt_tokens();
  context.sample_index = sequence.sample_index();
  return context;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DecoderRunner>> DecoderRunner::Create(
    std::shared_ptr<const Decoder> decoder, int64_t num_blocks, int64_t block_size,
    int64_t max_positions) {
  if (max_positions <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_positions is ", max_positions, ", must be positive"));
  }
  const ModelConfig& config = decoder->config();
  if (config.ropes.empty() && max_positions > config.max_position_embeddings) {
    return absl::InvalidArgumentError(absl::StrCat("max_positions is ", max_positions,
                                                   ", the model has learned ",
                                                   config.max_position_embeddings));
  }
  TENON_ASSIGN_OR_RETURN(KvCache cache,
                         KvCache::Create(decoder->config(), num_blocks, block_size,
                                         decoder->options().dtype, decoder->options().device));
  try {
    return std::unique_ptr<DecoderRunner>(
        new DecoderRunner(std::move(decoder), std::move(cache), max_positions));
  } catch (const std::exception& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat("rotary table of ", max_positions, " positions: ", error.what()));
  }
}

DecoderRunner::DecoderRunner(std::shared_ptr<const Decoder> decoder, KvCache cache,
                             int64_t max_positions)
    : decoder_(std::move(decoder)),
      cache_(std::move(cache)),
      max_positions_(max_positions),
      adjustments_(decoder_->config().vocab_size) {
  for (const RopeConfig& rope : decoder_->config().ropes) {
    ropes_.emplace_back(rope, max_positions, device());
  }
  if (!device().is_cpu()) {
    stream_ = NewStream(device());
    WaitForStream(device());  // for weights, cache and tables, which come from another one
  }
  set_use_graphs(true);
#ifndef NDEBUG
  set_poison_freed_blocks(true);
#endif
}

void DecoderRunner::set_poison_freed_blocks(bool poison) {
  poison_freed_blocks_ = poison;
  if (poison) {
    const c10::InferenceMode inference_mode;
    cache_.PoisonAll();
    WaitForStream(device());
  }
}

void DecoderRunner::set_use_graphs(bool use) {
  graphs_.reset();
  if (use && decoder_->options().kernels == KernelKind::kCuda && decoder_->num_ranks() == 1) {
    const c10::InferenceMode inference_mode;
    graphs_ = std::make_unique<DecodeGraphs>(decoder_.get(), &cache_, ropes_, max_positions_);
  }
}

bool DecoderRunner::is_batch_invariant() const {
  return decoder_->options().kernels == KernelKind::kCpu;
}

bool DecoderRunner::prefix_sharing_is_exact() const {
  return std::none_of(ropes_.begin(), ropes_.end(),
                      [](const RopeTable& rope) { return rope.depends_on_length(); });
}

absl::Status DecoderRunner::CheckContext(const ContextRow& row,
                                         const AdapterContext* context) const {
  if (context == nullptr || context->num_tokens != row.context->num_tokens()) {
    return absl::InternalError(absl::StrCat("the catalogue promises ", row.context->num_tokens(),
                                            " virtual tokens, the adapters have ",
                                            context == nullptr ? 0 : context->num_tokens));
  }
  if (context->embeddings.defined() && !prefix_sharing_is_exact()) {
    return PreconditionError(
        "VIRTUAL_TOKENS_NOT_SHAREABLE", "adapter",
        "a soft prompt (prompt tuning, P-tuning) cannot be served on a model with dynamic rope "
        "scaling, where its keys depend on the length of each prompt; prefix tuning can");
  }
  return absl::OkStatus();
}

std::vector<size_t> DecoderRunner::StartContexts(const Batch& batch,
                                                 std::span<const ResolvedSelection> adapters,
                                                 StepOutput& output) {
  std::vector<size_t> soft_prompts;
  bool all_ok = true;
  for (size_t i = 0; i < batch.contexts.size(); ++i) {
    const ContextRow& row = batch.contexts[i];
    const AdapterContext* const context =
        FindContext(adapters[batch.segments.size() + i].adapters, decoder_->rank());
    output.context_status.push_back(CheckContext(row, context));
    if (!output.context_status.back().ok()) {
      all_ok = false;
    } else if (context->embeddings.defined()) {
      soft_prompts.push_back(i);
    } else {
      CopyPrefix(row, *context);
    }
  }
  if (all_ok) {
    output.context_status.clear();
  }
  return soft_prompts;
}

void DecoderRunner::CopyPrefix(const ContextRow& row, const AdapterContext& context) {
  const at::Tensor slots = ContextSlots(row, cache_.block_size()).to(device());
  for (int64_t layer = 0; layer < decoder_->config().num_layers; ++layer) {
    const at::Tensor keys =
        context.keys.select(0, layer).narrow(0, row.first_token, row.num_tokens);
    const at::Tensor values =
        context.values.select(0, layer).narrow(0, row.first_token, row.num_tokens);
    switch (decoder_->options().kernels) {
      case KernelKind::kReference:
        WriteKvReference(keys, values, slots, cache_.keys(layer), cache_.values(layer));
        break;
      case KernelKind::kCpu:
        WriteKv(keys, values, slots, cache_.keys(layer), cache_.values(layer));
        break;
      case KernelKind::kCuda:
        AppendKvCuda(keys, keys, values, nullptr, slots, cache_.keys(layer), cache_.values(layer));
        break;
    }
  }
}

at::Tensor DecoderRunner::Forward(const FlatBatch& flat) {
  DecoderInput input;
  input.tokens = flat.tokens;
  input.virtual_embeddings = flat.virtual_embeddings;
  input.slots = flat.slots.to(device());
  input.positions = IndexTensor(static_cast<int64_t>(flat.positions.size()));
  std::transform(flat.positions.begin(), flat.positions.end(),
                 input.positions.mutable_data_ptr<int64_t>(),
                 [](const RopePosition& token) { return token.position; });
  input.positions = input.positions.to(device());
  std::vector<RopeRows> ropes;
  for (const RopeTable& rope : ropes_) {
    ropes.push_back(rope.Select(flat.positions));
  }
  input.ropes = ropes;
  input.rows = flat.rows;
  input.segments = flat.segments;
  input.wanted = flat.wanted;
  input.collective = collective_;
  return decoder_->Forward(input, cache_);
}

std::vector<absl::StatusOr<SampledToken>> DecoderRunner::Sample(
    const at::Tensor& logits, std::span<const Sequence* const> sequences) {
  std::vector<absl::StatusOr<SampledToken>> sampled(sequences.size());
  std::vector<int64_t> rest;  // rows that the device has not chosen for
  const std::vector<std::optional<int32_t>> chosen = SampleOnDevice(logits, sequences);
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (chosen[i].has_value()) {
      sampled[i] = SampledToken();
      sampled[i]->token = *chosen[i];
    } else {
      rest.push_back(static_cast<int64_t>(i));
    }
  }
  if (!rest.empty()) {
    SampleOnCpu(logits.cpu(), sequences, rest, sampled);
  }
  return sampled;
}

void DecoderRunner::SampleOnCpu(const at::Tensor& logits,
                                std::span<const Sequence* const> sequences,
                                std::span<const int64_t> which,
                                std::span<absl::StatusOr<SampledToken>> sampled) {
  const auto rows = static_cast<int64_t>(which.size());
  const int64_t parts = std::clamp<int64_t>(rows / kRowsPerSampler, 1, NumKernelThreads());
  while (static_cast<int64_t>(samplers_.size()) < parts) {
    samplers_.emplace_back(decoder_->config().vocab_size);
  }
  const int64_t cost = rows / parts * logits.size(1) / 4;  // about as much for a greedy choice
  ParallelFor(parts, cost, [&](int64_t part) {
    for (int64_t i = rows * part / parts; i < rows * (part + 1) / parts; ++i) {
      const auto row = static_cast<size_t>(which[static_cast<size_t>(i)]);
      sampled[row] = samplers_[static_cast<size_t>(part)].Sample(
          LogitsRow(logits, static_cast<int64_t>(row)), ContextOf(*sequences[row]));
    }
  });
}

void DecoderRunner::SampleRows(const Batch& batch, const at::Tensor& hidden, const FlatBatch& flat,
                               StepOutput& output) {
  std::vector<int64_t> last_tokens;
  std::vector<const Sequence*> sequences;
  int64_t token_end = 0;
  for (const BatchRow& row : batch.rows) {
    token_end += row.num_tokens;
    if (row.samples) {
      last_tokens.push_back(token_end - 1);
      sequences.push_back(row.sequence);
    }
  }
  if (sequences.empty()) {
    return;
  }
  const at::Tensor index = IndexTensor(static_cast<int64_t>(last_tokens.size()));
  std::transform(last_tokens.begin(), last_tokens.end(), index.mutable_data_ptr<int64_t>(),
                 [&flat](int64_t token) { return IndexIn(flat.wanted, token); });
  const at::Tensor logits = decoder_->Logits(at::index_select(hidden, 0, index.to(device())),
                                             last_tokens, flat.segments, collective_);
  if (logits.defined()) {  // else rank 0 has them
    SampleLogits(logits, sequences, output);
  }
}

void DecoderRunner::SampleLogits(const at::Tensor& logits,
                                 std::span<const Sequence* const> sequences, StepOutput& output) {
  bool all_ok = true;
  for (absl::StatusOr<SampledToken>& sampled : Sample(logits, sequences)) {
    output.row_status.push_back(sampled.status());
    all_ok = all_ok && sampled.ok();
    output.sampled.push_back(sampled.ok() ? *std::move(sampled) : SampledToken{});
  }
  if (all_ok) {
    output.row_status.clear();
  }
}

void DecoderRunner::RunFlat(const Batch& batch, const FlatBatch& flat, StepOutput& output) {
  const auto samples_alone = [](const BatchRow& row) { return row.samples && NumScored(row) == 0; };
  if (graphs_ != nullptr && std::all_of(batch.rows.begin(), batch.rows.end(), samples_alone)) {
    const int64_t replays = graphs_->num_replays();
    if (const std::optional<at::Tensor> logits = graphs_->Run(flat); logits.has_value()) {
      output.is_replay = graphs_->num_replays() > replays;
      std::vector<const Sequence*> sequences;
      for (const BatchRow& row : batch.rows) {
        sequences.push_back(row.sequence);
      }
      SampleLogits(*logits, sequences, output);
      output.prompt_logprobs.resize(batch.rows.size());
      return;
    }
  }
  const at::Tensor hidden = Forward(flat);
  SampleRows(batch, hidden, flat, output);
  ScorePrompts(batch, hidden, flat, output);
}

std::vector<std::optional<int32_t>> DecoderRunner::SampleOnDevice(
    const at::Tensor& logits, std::span<const Sequence* const> sequences) {
  std::vector<std::optional<int32_t>> chosen(sequences.size());
  if (decoder_->options().kernels != KernelKind::kCuda) {
    return chosen;
  }
  std::vector<cuda::RowSampling> rows;
  bool any = false;
  adjustments_.Clear();
  for (const Sequence* const sequence : sequences) {
    const SamplingContext context = ContextOf(*sequence);
    const SamplingParams& params = *context.params;
    if (NeedsTokenAlone(*sequence)) {
      adjustments_.Add(static_cast<int32_t>(rows.size()), context);
      any = true;
    }
    rows.push_back(
        {Sampler::Uniform(context), params.temperature, params.top_k, params.top_p, params.min_p});
  }
  if (!any) {
    return chosen;
  }
  AdjustLogitsCuda(logits, adjustments_.entries());
  const std::vector<cuda::SampledRow> sampled = SampleCuda(logits, rows);
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (NeedsTokenAlone(*sequences[i]) && sampled[i].status == cuda::SampledStatus::kOk) {
      chosen[i] = sampled[i].token;
    }
  }
  return chosen;
}

void DecoderRunner::ScorePrompts(const Batch& batch, const at::Tensor& hidden,
                                 const FlatBatch& flat, StepOutput& output) {
  output.prompt_logprobs.resize(batch.rows.size());
  int64_t token_begin = 0;
  for (size_t r = 0; r < batch.rows.size(); ++r) {
    const BatchRow& row = batch.rows[r];
    const int64_t scored = NumScored(row);
    for (int64_t begin = 0; begin < scored; begin += kPromptLogitsRows) {
      const int64_t count = std::min(kPromptLogitsRows, scored - begin);
      std::vector<int64_t> token_of_row(static_cast<size_t>(count));
      std::iota(token_of_row.begin(), token_of_row.end(), token_begin + begin);
      const at::Tensor of_device =
          decoder_->Logits(hidden.narrow(0, IndexIn(flat.wanted, token_of_row.front()), count),
                           token_of_row, flat.segments, collective_);
      if (!of_device.defined()) {
        continue;  // rank 0 has them
      }
      const at::Tensor logits = of_device.cpu();
      for (int64_t i = 0; i < count; ++i) {
        const int32_t next = row.sequence->tokens()[row.first_token + begin + i + 1];
        output.prompt_logprobs[r].push_back(
            Sampler::Score(LogitsRow(logits, i), next, *row.sequence->sampling().prompt_logprobs));
      }
    }
    token_begin += row.num_tokens;
  }
}

absl::StatusOr<StepOutput> DecoderRunner::Run(const Batch& batch,
                                              std::span<const ResolvedSelection> adapters) {
  TENON_RETURN_IF_ERROR(CheckBatch(
      batch, std::ssize(adapters),
      {decoder_->config().vocab_size, cache_.num_blocks(), cache_.block_size(), max_positions_}));
  StepOutput output;
  if (batch.empty()) {
    return output;
  }
  try {
    const c10::InferenceMode inference_mode;
    std::optional<c10::StreamGuard> stream;  // of the device, for Tenon's own kernels as well
    if (stream_.has_value()) {
      stream.emplace(*stream_);
    }
    std::optional<LibTorchSerialScope> serial;
    if (decoder_->options().kernels == KernelKind::kCpu) {
      serial.emplace();  // what is left to LibTorch is small, the threads are the kernels'
    }
    if (poison_freed_blocks_) {
      cache_.Poison(batch.recycled_blocks);
    }
    const std::vector<size_t> soft_prompts = StartContexts(batch, adapters, output);
    FlatBatch flat(batch, adapters, soft_prompts, cache_.block_size());
    output.num_merged_tokens =
        ChooseMerged(merge_costs_, static_cast<int64_t>(flat.positions.size()), flat.segments);
    if (flat.positions.empty()) {
      return output;  // nothing but prefixes, which are copied
    }
    RunFlat(batch, flat, output);
    WaitForStream(device());  // what it read may go now, and its tables be written again
  } catch (const c10::Error& error) {
    return absl::InternalError(absl::StrCat("forward pass: ", error.what_without_backtrace()));
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("forward pass: ", error.what()));
  }
  return output;
}

}  // namespace tenon
