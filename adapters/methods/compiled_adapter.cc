#include "adapters/methods/compiled_adapter.h"

#include "adapters/kernels/device.h"
#include "adapters/kernels/tensor_block.h"

namespace tenon {
namespace {

int64_t Bytes(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<int64_t>(tensor.nbytes()) : 0;
}

at::Tensor Moved(const at::Tensor& tensor, at::Device device) {
  return tensor.defined() ? tensor.to(device) : tensor;
}

EmbeddingDelta Moved(const EmbeddingDelta& delta, at::Device device) {
  EmbeddingDelta moved;
  moved.table = Moved(delta.table, device);
  moved.tokens = delta.tokens;
  moved.rows = Moved(delta.rows, device);
  moved.down = Moved(delta.down, device);
  moved.up = delta.up.OnDevice(device);
  moved.output_gain = Moved(delta.output_gain, device);
  return moved;
}

HeadDelta Moved(const HeadDelta& delta, at::Device device) {
  HeadDelta moved;
  moved.table = delta.table.OnDevice(device);
  moved.tokens = delta.tokens;
  moved.rows = delta.rows.OnDevice(device);
  moved.site = delta.site.OnDevice(device);
  return moved;
}

}  // namespace

SiteDelta SiteDelta::OnDevice(at::Device device) const {
  SiteDelta moved;
  moved.low_rank = low_rank.OnDevice(device);
  moved.input_gain = Moved(input_gain, device);
  moved.output_gain = Moved(output_gain, device);
  moved.offset = Moved(offset, device);
  return moved;
}

int64_t SiteDelta::nbytes() const {
  return low_rank.nbytes() + Bytes(input_gain) + Bytes(output_gain) + Bytes(offset);
}

CompiledAdapter::CompiledAdapter(int64_t num_layers)
    : deltas_(num_layers * kNumSites), bottlenecks_(num_layers * 2) {}

std::shared_ptr<const CompiledAdapter> CompiledAdapter::OnDevice(at::Device device) const {
  auto moved = std::make_shared<CompiledAdapter>(static_cast<int64_t>(deltas_.size()) / kNumSites);
  for (size_t i = 0; i < deltas_.size(); ++i) {
    moved->deltas_[i] = deltas_[i].OnDevice(device);
    moved->resident_bytes_ += moved->deltas_[i].nbytes();
  }
  for (size_t i = 0; i < bottlenecks_.size(); ++i) {
    if (bottlenecks_[i] != nullptr) {
      moved->set_bottleneck(static_cast<int64_t>(i / 2), static_cast<Sublayer>(i % 2),
                            bottlenecks_[i]->OnDevice(device));
    }
  }
  if (embedding_ != nullptr) {
    moved->set_embedding(Moved(*embedding_, device));
  }
  if (head_ != nullptr) {
    moved->set_head(Moved(*head_, device));
  }
  if (context_ != nullptr) {
    moved->set_context({context_->num_tokens, Moved(context_->embeddings, device),
                        Moved(context_->keys, device), Moved(context_->values, device)});
  }
  WaitForStream(device);
  return moved;
}

void CompiledAdapter::set_delta(int64_t layer, Site site, SiteDelta delta) {
  resident_bytes_ += delta.nbytes();
  deltas_[layer * kNumSites + static_cast<int64_t>(site)] = std::move(delta);
}

void CompiledAdapter::Relocate(absl::FunctionRef<at::Tensor(const at::Tensor&)> relocate) {
  for (auto layer = deltas_.begin(); layer != deltas_.end(); layer += kNumSites) {
    for (auto delta = layer; delta != layer + kNumSites; ++delta) {
      delta->low_rank.RelocateDown(relocate);
    }
    for (auto delta = layer; delta != layer + kNumSites; ++delta) {
      delta->low_rank.RelocateUp(relocate);
    }
  }
}

void CompiledAdapter::Compact() {
  int64_t bytes = 0;
  Relocate([&bytes](const at::Tensor& tensor) {
    bytes += TensorBlock::BytesOf(tensor);
    return tensor;
  });
  if (bytes > 0) {
    TensorBlock block(bytes);
    Relocate([&block](const at::Tensor& tensor) { return block.Place(tensor); });
  }
}

void CompiledAdapter::set_bottleneck(int64_t layer, Sublayer sublayer, BottleneckDelta delta) {
  resident_bytes_ += delta.nbytes();
  bottlenecks_[layer * 2 + static_cast<int64_t>(sublayer)] =
      std::make_unique<BottleneckDelta>(std::move(delta));
}

void CompiledAdapter::set_embedding(EmbeddingDelta delta) {
  resident_bytes_ += Bytes(delta.table) + Bytes(delta.rows) + Bytes(delta.down) +
                     delta.up.nbytes() + Bytes(delta.output_gain);
  has_overrides_ = has_overrides_ || delta.table.defined() || delta.rows.defined();
  embedding_ = std::make_unique<EmbeddingDelta>(std::move(delta));
}

void CompiledAdapter::set_head(HeadDelta delta) {
  resident_bytes_ += delta.table.nbytes() + delta.rows.nbytes() + delta.site.nbytes();
  has_overrides_ = has_overrides_ || delta.table.defined() || delta.rows.defined();
  head_ = std::make_unique<HeadDelta>(std::move(delta));
}

void CompiledAdapter::set_other_ranks(std::vector<std::shared_ptr<const CompiledAdapter>> others) {
  for (const std::shared_ptr<const CompiledAdapter>& other : others) {
    resident_bytes_ += other->resident_bytes();
  }
  others_ = std::move(others);
}

void CompiledAdapter::set_context(AdapterContext context) {
  resident_bytes_ += Bytes(context.embeddings) + Bytes(context.keys) + Bytes(context.values);
  context_ = std::make_unique<AdapterContext>(std::move(context));
}

}  // namespace tenon
