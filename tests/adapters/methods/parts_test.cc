// Virtual tokens, bottlenecks, biases, token rows and tables.
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>

#include "tests/adapters/methods/method_fixture.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;

class ContextTest : public testing::MethodTest {};

TEST_F(ContextTest, PromptKeepsEmbeddingsInTheBaseDType) {
  const at::Tensor embeddings = Random({7, testing::kHidden});
  const auto adapter = MustCompile(PromptSpec{View(embeddings)}, {}, at::kBFloat16);
  const AdapterContext& context = *adapter->context();
  EXPECT_EQ(context.num_tokens, 7);
  EXPECT_TRUE(SameBits(context.embeddings, embeddings.to(at::kBFloat16)));
  EXPECT_FALSE(context.keys.defined());
  EXPECT_EQ(adapter->num_virtual_tokens(), 7);
  EXPECT_FALSE(adapter->has_weight());
  EXPECT_EQ(report_.num_virtual_tokens, 7);
  EXPECT_EQ(report_.num_sites, 0);
  EXPECT_EQ(report_.resident_bytes, 7 * testing::kHidden * 2);
}

TEST_F(ContextTest, PrefixIsSplitIntoKeysAndValuesOfEachLayer) {
  constexpr int64_t kTokenDim = testing::kKvHeads * testing::kHeadDim, kTokens = 5;
  PrefixSpec spec;
  const at::Tensor tensor =
      at::arange(kTokens * testing::kLayers * 2 * kTokenDim, at::TensorOptions(at::kFloat))
          .view({kTokens, testing::kLayers * 2 * kTokenDim});
  spec.keys_values = View(tensor);
  spec.num_layers = testing::kLayers;
  spec.token_dim = kTokenDim;
  const auto adapter = MustCompile(spec);
  const AdapterContext& context = *adapter->context();
  ASSERT_THAT(context.keys.sizes().vec(),
              ElementsAre(testing::kLayers, kTokens, testing::kKvHeads, testing::kHeadDim));
  for (int64_t token = 0; token < kTokens; ++token) {
    for (int64_t layer = 0; layer < testing::kLayers; ++layer) {
      for (int64_t head = 0; head < testing::kKvHeads; ++head) {
        const int64_t key = layer * 2 * kTokenDim + head * testing::kHeadDim;
        const at::Tensor row = tensor.select(0, token);
        EXPECT_TRUE(
            SameBits(context.keys[layer][token][head], row.narrow(0, key, testing::kHeadDim)));
        EXPECT_TRUE(SameBits(context.values[layer][token][head],
                             row.narrow(0, key + kTokenDim, testing::kHeadDim)));
      }
    }
  }
  EXPECT_TRUE(context.keys.is_contiguous() && context.values.is_contiguous());
}

TEST_F(ContextTest, TokensOfAnotherBaseAreRefused) {
  ExpectRefused(TryCompile(PromptSpec{View(Random({7, 9}))}), "SHAPE_MISMATCH",
                "embedding is 9 in the adapter, but 10");
  ExpectRefused(TryCompile(PromptSpec{View(Random({64, testing::kHidden}))}), "CONTEXT_TOO_LONG",
                "64 virtual tokens");
  PrefixSpec spec;
  spec.keys_values = View(Random({2, 36}));
  spec.num_layers = 3;
  spec.token_dim = 6;
  ExpectRefused(TryCompile(spec), "SHAPE_MISMATCH", "num_layers is 3 in the adapter, but 2");
  spec.keys_values = View(Random({2, 48}));
  spec.num_layers = 2;
  spec.token_dim = 12;
  ExpectRefused(TryCompile(spec), "SHAPE_MISMATCH", "is 12 in the adapter, but 6");
}

class BottleneckMethodTest : public testing::MethodTest {
 protected:
  BottleneckModule Module(const std::string& path, Sublayer sublayer, int64_t width) {
    BottleneckModule module;
    module.module = path;
    module.sublayer = sublayer;
    module.down = View(Random({width, testing::kHidden}));
    module.down_bias = View(Random({width}));
    module.up = View(Random({testing::kHidden, width}));
    module.up_bias = View(Random({testing::kHidden}));
    return module;
  }
  BottleneckSpec Spec() {
    BottleneckSpec spec;
    spec.original_ln_after = true;
    spec.modules.push_back(Module("model.layers.1", Sublayer::kFeedForward, 3));
    return spec;
  }
  const BottleneckDelta& Compiled(const BottleneckSpec& spec) {
    adapter_ = MustCompile(spec);
    return *adapter_->bottleneck(1, Sublayer::kFeedForward);
  }
  std::shared_ptr<const CompiledAdapter> adapter_;
};

TEST_F(BottleneckMethodTest, HoulsbyReadsTheOutput) {
  BottleneckSpec spec = Spec();
  spec.scaling = 0.5;
  spec.nonlinearity = Nonlinearity::kSilu;
  const BottleneckDelta& delta = Compiled(spec);
  EXPECT_EQ(delta.input, BottleneckInput::kOutput);
  EXPECT_EQ(delta.residual, BottleneckResidual::kOutput);
  EXPECT_EQ(delta.activation, BottleneckActivation::kSilu);
  EXPECT_FALSE(delta.drops_stream);
  EXPECT_TRUE(SameBits(delta.scale, at::full({testing::kHidden}, 0.5f)));
  EXPECT_TRUE(SameBits(delta.down.Unpack(), kept_[0]));
  EXPECT_EQ(adapter_->bottleneck(1, Sublayer::kAttention), nullptr);
  EXPECT_EQ(adapter_->bottleneck(0, Sublayer::kFeedForward), nullptr);
  EXPECT_EQ(report_.num_sites, 1);
  EXPECT_EQ(report_.max_rank, 3);
  EXPECT_TRUE(adapter_->has_weight());
}

TEST_F(BottleneckMethodTest, FlagsPlaceTheModule) {
  BottleneckSpec pfeiffer = Spec();
  pfeiffer.original_ln_before = true;
  EXPECT_EQ(Compiled(pfeiffer).input, BottleneckInput::kOutputPlusResidual);
  EXPECT_FALSE(Compiled(pfeiffer).input_norm.defined());
  pfeiffer.residual_before_ln = false;
  EXPECT_EQ(Compiled(pfeiffer).residual, BottleneckResidual::kInput);
  pfeiffer.adapter_residual_before_ln = true;
  pfeiffer.original_ln_after = false;
  EXPECT_TRUE(Compiled(pfeiffer).adds_residual_before_norm);
  EXPECT_TRUE(Compiled(pfeiffer).drops_stream);

  // The parallel module takes no notice of the sequential one's flags.
  BottleneckSpec parallel = pfeiffer;
  parallel.is_parallel = true;
  EXPECT_EQ(Compiled(parallel).input, BottleneckInput::kResidual);
  EXPECT_EQ(Compiled(parallel).residual, BottleneckResidual::kOutput);
  EXPECT_FALSE(Compiled(parallel).adds_residual_before_norm);
}

TEST_F(BottleneckMethodTest, BaseWithPostNormsLendsThoseOfItsLastLayer) {
  base_.post_attention_norm = "post_attention_layernorm";
  base_.post_feed_forward_norm = "post_feedforward_layernorm";
  const at::Tensor last = Random({testing::kHidden});
  parameters_["model.layers.0.post_feedforward_layernorm.weight"] = Random({testing::kHidden});
  parameters_["model.layers.1.post_feedforward_layernorm.weight"] = last;
  BottleneckSpec spec = Spec();
  spec.modules.push_back(Module("model.layers.0", Sublayer::kFeedForward, 3));
  spec.original_ln_before = true;
  spec.residual_before_ln = false;
  spec.residual_post_add = true;
  const BottleneckDelta& delta = Compiled(spec);
  EXPECT_EQ(delta.residual, BottleneckResidual::kOutputPlusResidual);
  EXPECT_TRUE(SameBits(delta.input_norm, last + 1.0));
  EXPECT_TRUE(SameBits(adapter_->bottleneck(0, Sublayer::kFeedForward)->input_norm, last + 1.0));
  spec.original_ln_after = false;
  ExpectRefused(TryCompile(spec), "UNSUPPORTED", "original_ln_after");
}

TEST_F(BottleneckMethodTest, WhatTheLibraryCannotRunIsRefused) {
  BottleneckSpec spec = Spec();
  spec.original_ln_before = true;
  spec.residual_before_ln = false;
  spec.residual_post_add = true;
  ExpectRefused(TryCompile(spec), "UNSUPPORTED", "post_add");
}

TEST_F(BottleneckMethodTest, LearnedScalingIsOneFactorOrOneAChannel) {
  BottleneckSpec spec = Spec();
  const at::Tensor channel = Random({testing::kHidden});
  spec.modules[0].learned_scaling = View(at::full({1}, 3.0f));
  EXPECT_TRUE(SameBits(Compiled(spec).scale, at::full({testing::kHidden}, 3.0f)));
  spec.modules[0].learned_scaling = View(channel);
  EXPECT_TRUE(SameBits(Compiled(spec).scale, channel));
  spec.modules[0].learned_scaling = View(Random({4}));
  ExpectRefused(TryCompile(spec), "SHAPE_MISMATCH", "scaling is 4");
}

TEST_F(BottleneckMethodTest, AnotherShapeOrLayerIsRefused) {
  BottleneckSpec spec = Spec();
  spec.modules[0].module = "model.layers.2";
  ExpectRefused(TryCompile(spec), "UNKNOWN_MODULE", "model.layers.2");
  spec = Spec();
  spec.modules[0].down = View(Random({3, 9}));
  ExpectRefused(TryCompile(spec), "SHAPE_MISMATCH", "input is 9");
  spec = Spec();
  spec.modules[0].up = View(Random({testing::kHidden, 4}));
  ExpectRefused(TryCompile(spec), "SHAPE_MISMATCH", "up projection is 4");
}

class SharedPartsTest : public testing::MethodTest {};

TEST_F(SharedPartsTest, BiasesBecomeTheirDifference) {
  const at::Tensor q = Random({12}), norm = Random({testing::kHidden});
  SharedParts parts;
  parts.biases = {{kQ0, View(q)}, {"model.layers.1.input_layernorm", View(norm)}};
  const auto adapter = MustCompile(TokenRowsSpec{}, parts);
  const at::Tensor x = Random({2, testing::kHidden});
  EXPECT_LT(WorstError(Output(kQ0, *adapter->delta(0, Site::kQ), x), at::linear(x, Weight(kQ0), q)),
            1e-5);
  EXPECT_LT(WorstError(adapter->delta(1, Site::kAttentionNorm)->offset +
                           Bias("model.layers.1.input_layernorm"),
                       norm),
            1e-6);
  EXPECT_TRUE(adapter->has_weight());
}

TEST_F(SharedPartsTest, BiasMeetsTheLoraOfItsModule) {
  LoraSpec spec;
  LoraModule lora;
  lora.module = kQ0;
  lora.a = View(Random({2, testing::kHidden}));
  lora.b = View(Random({12, 2}));
  lora.magnitude = View(at::full({12}, 2.0f));
  spec.modules.push_back(lora);
  SharedParts parts;
  const at::Tensor bias = Random({12});
  parts.biases = {{kQ0, View(bias)}};
  const auto plain = MustCompile(spec), biased = MustCompile(spec, parts);
  const at::Tensor x = Random({2, testing::kHidden});
  const at::Tensor difference =
      Output(kQ0, *biased->delta(0, Site::kQ), x) - Output(kQ0, *plain->delta(0, Site::kQ), x);
  // The bias joins after DoRA's magnitudes.
  EXPECT_LT(WorstError(difference, (bias - Bias(kQ0)).expand({2, 12})), 1e-5);
  EXPECT_EQ(report_.num_sites, 1);
}

TEST_F(SharedPartsTest, BiasThatTheBaseHasNotIsRefused) {
  SharedParts parts;
  parts.biases = {{kUp1, View(Random({testing::kInner}))}};
  ExpectRefused(TryCompile(TokenRowsSpec{}, parts), "UNKNOWN_MODULE", "has no bias");
}

TEST_F(SharedPartsTest, RowsAreSortedByToken) {
  const at::Tensor rows = Random({3, testing::kHidden});
  SharedParts parts;
  parts.token_rows = {{kEmbedding, {9, 2, 5}, View(rows)}};
  const auto adapter = MustCompile(TokenRowsSpec{}, parts);
  EXPECT_THAT(adapter->embedding()->tokens, ElementsAre(2, 5, 9));
  EXPECT_TRUE(SameBits(adapter->embedding()->rows[2], rows[0]));
  EXPECT_TRUE(SameBits(adapter->embedding()->rows[0], rows[1]));
  EXPECT_EQ(adapter->head(), nullptr);
  EXPECT_TRUE(adapter->has_overrides());
  EXPECT_FALSE(adapter->has_weight());
}

TEST_F(SharedPartsTest, RowsOfATiedEmbeddingAreTheHeadsUnlessItHasItsOwn) {
  base_.tied_embeddings = true;
  const at::Tensor rows = Random({2, testing::kHidden}), own = Random({1, testing::kHidden});
  SharedParts parts;
  parts.token_rows = {{kEmbedding, {4, 6}, View(rows)}};
  auto adapter = MustCompile(TokenRowsSpec{}, parts);
  EXPECT_THAT(adapter->head()->tokens, ElementsAre(4, 6));
  EXPECT_TRUE(SameBits(adapter->head()->rows.Unpack(), rows));
  parts.token_rows.push_back({kHead, {8}, View(own)});
  adapter = MustCompile(TokenRowsSpec{}, parts);
  EXPECT_THAT(adapter->head()->tokens, ElementsAre(8));
}

TEST_F(SharedPartsTest, BadRowsAreRefused) {
  SharedParts parts;
  parts.token_rows = {{kEmbedding, {1, testing::kVocab}, View(Random({2, testing::kHidden}))}};
  ExpectRefused(TryCompile(TokenRowsSpec{}, parts), "SHAPE_MISMATCH", "token 23");
  parts.token_rows = {{kEmbedding, {1, 1}, View(Random({2, testing::kHidden}))}};
  ExpectRefused(TryCompile(TokenRowsSpec{}, parts), "DUPLICATE_TOKEN", kEmbedding);
  parts.token_rows = {{kQ0, {1}, View(Random({1, testing::kHidden}))}};
  ExpectRefused(TryCompile(TokenRowsSpec{}, parts), "UNKNOWN_MODULE", "neither");
  parts.token_rows = {{kHead, {1}, View(Random({1, 9}))}};
  ExpectRefused(TryCompile(TokenRowsSpec{}, parts), "SHAPE_MISMATCH", "row is 9");
}

TEST_F(SharedPartsTest, TablesReplaceEmbeddingAndHeadApart) {
  const at::Tensor embedding = Random({testing::kVocab, testing::kHidden});
  const at::Tensor head = Random({testing::kVocab, testing::kHidden});
  SharedParts parts;
  parts.saved_modules = {{kEmbedding, View(embedding)}, {kHead, View(head)}};
  const auto adapter = MustCompile(TokenRowsSpec{}, parts);
  EXPECT_TRUE(SameBits(adapter->embedding()->table, embedding));
  EXPECT_TRUE(SameBits(adapter->head()->table.Unpack(), head));
  EXPECT_FALSE(adapter->has_weight());
  parts.saved_modules = {{kHead, View(Random({testing::kVocab + 1, testing::kHidden}))}};
  ExpectRefused(TryCompile(TokenRowsSpec{}, parts), "SHAPE_MISMATCH", "vocabulary is 24");
}

TEST_F(SharedPartsTest, CopiesOfTheBaseAreComparedAndNotApplied) {
  SharedParts parts;
  const at::Tensor rounded = Weight(kEmbedding).to(at::kBFloat16).to(at::kFloat);
  parts.base_copies = {{kEmbedding, View(rounded)}};
  parts.token_rows = {{kHead, {1}, View(Random({1, testing::kHidden}))}};
  EXPECT_EQ(MustCompile(TokenRowsSpec{}, parts)->embedding(), nullptr);
  parts.base_copies = {{kEmbedding, View(Random({testing::kVocab, testing::kHidden}))}};
  ExpectRefused(TryCompile(TokenRowsSpec{}, parts), "BASE_MISMATCH", "another base");
}

TEST_F(SharedPartsTest, AnAdapterOfNothingIsRefused) {
  ExpectRefused(TryCompile(TokenRowsSpec{}), "NO_SITES", "changes no module");
}

}  // namespace
}  // namespace tenon
