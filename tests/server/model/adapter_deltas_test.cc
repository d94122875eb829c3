#include "server/model/adapter_deltas.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/adapters/kernels/kernel_testing.h"

namespace tenon {
namespace {

constexpr int64_t kHidden = 22, kInner = 35, kVocab = 41, kTokens = 24;
constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16};

// All tensors that the deltas of a step may change, as they come in.
struct Activations {
  at::Tensor x, inner;            // [T, hidden], [T, inner]: inputs, unchanged
  at::Tensor residual, tokens;    // [T, hidden], [T]: unchanged
  at::Tensor q, down, norm, out;  // [T, hidden]: outputs of the sites
  at::Tensor scaled;              // [T, inner]: what ScaleInput returns
  at::Tensor embeddings, logits;  // [T, hidden], [T, vocab]

  Activations Rows(int64_t begin, int64_t end) const {
    const auto rows = [&](const at::Tensor& tensor) {
      return tensor.defined() ? tensor.narrow(0, begin, end - begin).clone() : tensor;
    };
    return {rows(x),    rows(inner), rows(residual), rows(tokens),     rows(q),     rows(down),
            rows(norm), rows(out),   rows(scaled),   rows(embeddings), rows(logits)};
  }
  std::vector<at::Tensor> Outputs() const {
    return {q, down, norm, out, scaled, embeddings, logits};
  }
};

class AdapterDeltasTest : public testing::TestWithParam<KernelKind> {
 protected:
  at::Tensor Vector(int64_t size) { return random_.Normal({size}, at::kFloat, 0.5f); }

  LowRankDelta LowRank(int64_t in, int64_t out) {
    return *LowRankDelta::Create(random_.Normal({3, in}, dtype_, 0.3f),
                                 random_.Normal({out, 3}, dtype_, 0.3f), 0.5f);
  }
  PackedMatrix Packed(int64_t rows, int64_t columns) {
    const at::Tensor matrix = random_.Normal({rows, columns}, dtype_, 0.3f);
    return *PackedMatrix::Pack({&matrix, 1});
  }

  /// An adapter with every part but a context; `overrides`: rows and a table, too.
  std::unique_ptr<CompiledAdapter> MakeAdapter(bool overrides) {
    auto adapter = std::make_unique<CompiledAdapter>(1);
    adapter->set_delta(0, Site::kQ,
                       {LowRank(kHidden, kHidden), {}, Vector(kHidden), Vector(kHidden)});
    adapter->set_delta(0, Site::kDown, {LowRank(kInner, kHidden), Vector(kInner), {}, {}});
    adapter->set_delta(0, Site::kAttentionNorm, {{}, {}, {}, Vector(kHidden)});
    BottleneckDelta bottleneck;
    bottleneck.down = Packed(4, kHidden);
    bottleneck.up = Packed(kHidden, 4);
    bottleneck.down_bias = Vector(4);
    bottleneck.up_bias = Vector(kHidden);
    bottleneck.scale = Vector(kHidden);
    adapter->set_bottleneck(0, Sublayer::kFeedForward, std::move(bottleneck));
    EmbeddingDelta embedding;
    embedding.down = random_.Normal({kVocab, 3}, dtype_);
    embedding.up = *LowRankDelta::CreateDense(random_.Normal({kHidden, 3}, dtype_), 0.7f);
    embedding.output_gain = Vector(kHidden);
    HeadDelta head;
    head.site.low_rank = LowRank(kHidden, kVocab);
    if (overrides) {
      embedding.table = random_.Normal({kVocab, kHidden}, dtype_);
      embedding.tokens = head.tokens = {0, 7, 40};
      embedding.rows = random_.Normal({3, kHidden}, dtype_);
      head.rows = Packed(3, kHidden);
      head.table = Packed(kVocab, kHidden);
    }
    adapter->set_embedding(std::move(embedding));
    adapter->set_head(std::move(head));
    return adapter;
  }

  Activations MakeActivations() {
    const auto make = [&](int64_t columns) { return random_.Normal({kTokens, columns}, dtype_); };
    std::vector<int64_t> tokens;
    for (int64_t i = 0; i < kTokens; ++i) {
      tokens.push_back(i * 7 % kVocab);
    }
    return {make(kHidden),
            make(kInner),
            make(kHidden),
            at::tensor(tokens, at::kLong),
            make(kHidden),
            make(kHidden),
            make(kHidden),
            make(kHidden),
            {},
            make(kHidden),
            make(kVocab)};
  }

  /// With the identity in the place of a product, so that y is what it was before.
  static void AddTo(const AdapterDeltas& deltas, Site site, const at::Tensor& x,
                    const at::Tensor& y) {
    const SiteColumns columns[] = {{site, 0, kHidden}};
    const Linear identity = *Linear::Create({at::eye(kHidden, y.options())}, {}, GetParam());
    deltas.AddTo(0, columns, x, y,
                 [&](const ProductUpdates& updates) { identity.Forward(y.clone(), y, updates); });
  }

  /// Every call that a decoder makes in a layer.
  static void Run(const std::vector<AdapterSegment>& segments, Activations& a) {
    const AdapterDeltas deltas(segments, GetParam());
    deltas.ReplaceEmbeddings(a.tokens, 3.0f, a.embeddings);
    deltas.AddOffset(0, Site::kAttentionNorm, a.norm);
    AddTo(deltas, Site::kQ, a.x, a.q);
    a.scaled = deltas.ScaleInput(0, Site::kDown, a.inner);
    AddTo(deltas, Site::kDown, a.inner, a.down);
    deltas.AddBottleneck(0, Sublayer::kFeedForward, a.residual, a.out);
    std::vector<int64_t> token_of_row;
    for (int64_t i = 0; i < a.x.size(0); ++i) {
      token_of_row.push_back(i);
    }
    deltas.AddHead(token_of_row, a.x, a.logits);
  }

  static Activations Copy(const Activations& a) { return a.Rows(0, kTokens); }

  RandomTensors random_{5};
  at::ScalarType dtype_ = at::kFloat;
};

TEST_P(AdapterDeltasTest, WeightZeroAndUncoveredRowsKeepEveryBit) {
  for (const at::ScalarType dtype : kTypes) {
    dtype_ = dtype;
    const auto one = MakeAdapter(true), two = MakeAdapter(false);
    const ResolvedAdapter none[] = {{one.get(), 0.0f}, {two.get(), 0.0f}};
    const ResolvedAdapter full[] = {{one.get(), 1.0f}, {two.get(), 0.5f}};
    Activations before = MakeActivations();
    before.out.fill_(-0.0f);  // adding a zero would change its sign
    Activations after = Copy(before);
    Run({{2, 9, none}, {9, 16, full}}, after);
    before.scaled = before.inner;
    for (size_t i = 0; i < before.Outputs().size(); ++i) {
      const at::Tensor was = before.Outputs()[i], is = after.Outputs()[i];
      EXPECT_TRUE(SameBits(is.narrow(0, 0, 9), was.narrow(0, 0, 9))) << dtype << i;
      EXPECT_TRUE(SameBits(is.narrow(0, 16, 8), was.narrow(0, 16, 8))) << dtype << i;
      EXPECT_FALSE(SameBits(is.narrow(0, 9, 7), was.narrow(0, 9, 7))) << dtype << i;
    }
  }
}

TEST_P(AdapterDeltasTest, BaseStepTouchesNothing) {
  const auto adapter = MakeAdapter(true);
  const ResolvedAdapter none[] = {{adapter.get(), 0.0f}};
  const std::vector<AdapterSegment> segments = {{0, 4, none}, {4, kTokens, {}}};
  const AdapterDeltas deltas(segments, GetParam());
  EXPECT_TRUE(deltas.empty());
  const Activations a = MakeActivations();
  EXPECT_TRUE(deltas.ScaleInput(0, Site::kDown, a.inner).is_same(a.inner));
}

TEST_P(AdapterDeltasTest, OrderOfCompositionChangesRoundingOnly) {
  const auto one = MakeAdapter(false), two = MakeAdapter(false);
  const ResolvedAdapter forth[] = {{one.get(), 1.5f}, {two.get(), -0.5f}};
  const ResolvedAdapter back[] = {{two.get(), -0.5f}, {one.get(), 1.5f}};
  const Activations before = MakeActivations();
  Activations a = Copy(before), b = Copy(before);
  Run({{0, kTokens, forth}}, a);
  Run({{0, kTokens, back}}, b);
  for (size_t i = 0; i < a.Outputs().size(); ++i) {
    EXPECT_LT(WorstError(a.Outputs()[i], b.Outputs()[i]), 1e-5) << i;
  }
}

TEST_P(AdapterDeltasTest, CompositionAddsWhatEachAddsToTheBase) {
  const auto one = MakeAdapter(false), two = MakeAdapter(false);
  const ResolvedAdapter both[] = {{one.get(), 1.5f}, {two.get(), -0.5f}};
  const Activations before = MakeActivations();
  Activations together = Copy(before), first = Copy(before), second = Copy(before);
  Run({{0, kTokens, both}}, together);
  Run({{0, kTokens, {both, 1}}}, first);
  Run({{0, kTokens, {both + 1, 1}}}, second);
  for (size_t i = 0; i < together.Outputs().size(); ++i) {
    const at::Tensor base = i == 4 ? before.inner : before.Outputs()[i];
    EXPECT_LT(WorstError(together.Outputs()[i], first.Outputs()[i] + second.Outputs()[i] - base),
              2e-5)
        << i;
  }
}

TEST_P(AdapterDeltasTest, ComputesTheEquationsOfTheParts) {
  const auto adapter = MakeAdapter(true);
  const ResolvedAdapter full[] = {{adapter.get(), 1.0f}};
  const Activations before = MakeActivations();
  Activations after = Copy(before);
  Run({{0, kTokens, full}}, after);
  const auto low_rank = [](const LowRankDelta& delta, const at::Tensor& x) {
    return at::linear(at::linear(x, delta.DownMatrix()), delta.UpMatrix()) * delta.scaling;
  };
  const SiteDelta& q = *adapter->delta(0, Site::kQ);
  EXPECT_LT(WorstError(after.q,
                       before.q * (1 + q.output_gain) + q.offset + low_rank(q.low_rank, before.x)),
            1e-5);
  const SiteDelta& down = *adapter->delta(0, Site::kDown);
  EXPECT_LT(WorstError(after.scaled, before.inner * (1 + down.input_gain)), 1e-5);
  EXPECT_LT(WorstError(after.down, before.down + low_rank(down.low_rank, before.inner)), 1e-5);

  const HeadDelta& head = *adapter->head();
  at::Tensor logits = at::linear(before.x, head.table.Unpack());
  const at::Tensor columns = at::linear(before.x, head.rows.Unpack());
  for (size_t i = 0; i < head.tokens.size(); ++i) {
    logits.select(1, head.tokens[i]).copy_(columns.select(1, static_cast<int64_t>(i)));
  }
  EXPECT_LT(WorstError(after.logits, logits + low_rank(head.site.low_rank, before.x)), 1e-5);

  const EmbeddingDelta& embedding = *adapter->embedding();
  at::Tensor table = embedding.table.clone();
  for (size_t i = 0; i < embedding.tokens.size(); ++i) {
    table.select(0, embedding.tokens[i]).copy_(embedding.rows[static_cast<int64_t>(i)]);
  }
  table = table * (1 + embedding.output_gain) +
          at::linear(embedding.down, embedding.up.UpMatrix()) * embedding.up.scaling;
  EXPECT_LT(WorstError(after.embeddings, at::index_select(table, 0, before.tokens) * 3), 1e-5);
}

TEST_P(AdapterDeltasTest, HeadActsOnTheRowsOfItsTokens) {
  const auto adapter = MakeAdapter(false);
  const ResolvedAdapter full[] = {{adapter.get(), 1.0f}};
  const std::vector<AdapterSegment> segments = {{4, 9, full}};
  // Of the step's tokens 3, 4, 8 and 9 give logits.
  const at::Tensor hidden = random_.Normal({4, kHidden}, dtype_);
  const at::Tensor logits = random_.Normal({4, kVocab}, dtype_), before = logits.clone();
  const int64_t token_of_row[] = {3, 4, 8, 9};
  AdapterDeltas(segments, GetParam()).AddHead(token_of_row, hidden, logits);
  for (int64_t row = 0; row < 4; ++row) {
    EXPECT_EQ(SameBits(logits[row], before[row]), row == 0 || row == 3) << row;
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, AdapterDeltasTest,
                         testing::Values(KernelKind::kReference, KernelKind::kCpu),
                         [](const auto& test) {
                           return test.param == KernelKind::kCpu ? "cpu" : "reference";
                         });

class AdapterDeltasCpuTest : public AdapterDeltasTest {};

TEST_P(AdapterDeltasCpuTest, ManySegmentsEqualEachAloneBitForBit) {
  for (const at::ScalarType dtype : kTypes) {
    dtype_ = dtype;
    const auto one = MakeAdapter(true), two = MakeAdapter(false), three = MakeAdapter(false);
    const ResolvedAdapter first[] = {{one.get(), 1.0f}, {three.get(), 0.25f}};
    const ResolvedAdapter second[] = {{two.get(), 0.5f}};
    const ResolvedAdapter third[] = {{three.get(), 2.0f}, {two.get(), 0.5f}};
    const Activations before = MakeActivations();
    Activations together = Copy(before);
    Run({{0, 11, first}, {11, 12, second}, {14, kTokens, third}}, together);
    const std::vector<AdapterSegment> all = {{0, 11, first}, {11, 12, second}, {14, 24, third}};
    for (const AdapterSegment& segment : all) {
      for (int64_t row = segment.token_begin; row < segment.token_end; ++row) {
        Activations alone = before.Rows(row, row + 1);
        Run({{0, 1, segment.adapters}}, alone);
        for (size_t i = 0; i < alone.Outputs().size(); ++i) {
          EXPECT_TRUE(SameBits(alone.Outputs()[i], together.Outputs()[i].narrow(0, row, 1)))
              << dtype << " row " << row << " output " << i;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, AdapterDeltasCpuTest, testing::Values(KernelKind::kCpu));

}  // namespace
}  // namespace tenon
