#include "adapters/methods/compiled_adapter.h"

namespace tenon {
namespace {

int64_t Bytes(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<int64_t>(tensor.nbytes()) : 0;
}

}  // namespace

int64_t SiteDelta::nbytes() const {
  return low_rank.nbytes() + Bytes(input_gain) + Bytes(output_gain) + Bytes(offset);
}

CompiledAdapter::CompiledAdapter(int64_t num_layers)
    : deltas_(num_layers * kNumSites), bottlenecks_(num_layers * 2) {}

void CompiledAdapter::set_delta(int64_t layer, Site site, SiteDelta delta) {
  resident_bytes_ += delta.nbytes();
  deltas_[layer * kNumSites + static_cast<int64_t>(site)] = std::move(delta);
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

void CompiledAdapter::set_context(AdapterContext context) {
  resident_bytes_ += Bytes(context.embeddings) + Bytes(context.keys) + Bytes(context.values);
  context_ = std::make_unique<AdapterContext>(std::move(context));
}

}  // namespace tenon
