// LoRA's relatives and IA3: what they compile to against the papers' equations.
#include <ATen/ops/abs.h>
#include <ATen/ops/kron.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "tests/adapters/methods/method_fixture.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr double kTolerance = 1e-5;

class LinearMethodsTest : public testing::MethodTest {
 protected:
  LoraModule Lora(const std::string& module, const at::Tensor& a, const at::Tensor& b,
                  double scaling) {
    LoraModule lora;
    lora.module = module;
    lora.a = View(a);
    lora.b = View(b);
    lora.scaling = scaling;
    return lora;
  }
};

TEST_F(LinearMethodsTest, DoraGivesTheRowsOfTheSumTheirMagnitudes) {
  const at::Tensor a = Random({3, testing::kHidden}), b = Random({12, 3});
  const at::Tensor magnitude = at::abs(Random({12})) + 0.5;
  LoraSpec spec;
  spec.modules.push_back(Lora(kQ0, a, b, 0.7));
  spec.modules[0].magnitude = View(magnitude);
  const auto adapter = MustCompile(spec);
  const at::Tensor x = Random({5, testing::kHidden});
  const at::Tensor sum = Weight(kQ0) + at::matmul(b, a) * 0.7;
  const at::Tensor factor = magnitude / at::linalg_vector_norm(sum, 2, {1});
  const at::Tensor expected = at::linear(x, sum * factor.unsqueeze(1), Bias(kQ0));
  EXPECT_LT(WorstError(Output(kQ0, *adapter->delta(0, Site::kQ), x), expected), kTolerance);
  EXPECT_TRUE(adapter->has_weight());
  EXPECT_EQ(report_.num_sites, 1);
  EXPECT_EQ(report_.num_untouched_sites, 9);  // 4 layers each of 2, embedding and head, less one
  EXPECT_EQ(report_.num_parameters, 3 * testing::kHidden + 12 * 3 + 12);
}

TEST_F(LinearMethodsTest, DoraOfAZeroRowIsRefused) {
  parameters_[std::string(kQ0) + ".weight"] = at::zeros({12, testing::kHidden});
  LoraSpec spec;
  spec.modules.push_back(Lora(kQ0, Random({3, testing::kHidden}), at::zeros({12, 3}), 1.0));
  spec.modules[0].magnitude = View(at::ones({12}));
  ExpectRefused(TryCompile(spec), "NOT_FINITE", kQ0);
}

TEST_F(LinearMethodsTest, LoraBiasIsScaledLikeTheProduct) {
  const at::Tensor a = Random({2, testing::kInner}), b = Random({testing::kHidden, 2});
  const at::Tensor b_bias = Random({testing::kHidden});
  LoraSpec spec;
  spec.modules.push_back(Lora(kDown0, a, b, -0.3));
  spec.modules[0].b_bias = View(b_bias);
  const auto adapter = MustCompile(spec);
  const at::Tensor x = Random({4, testing::kInner});
  const at::Tensor expected = at::linear(x, Weight(kDown0), Bias(kDown0)) -
                              (at::matmul(at::matmul(x, a.t()), b.t()) + b_bias) * 0.3;
  EXPECT_LT(WorstError(Output(kDown0, *adapter->delta(0, Site::kDown), x), expected), kTolerance);
}

TEST_F(LinearMethodsTest, LoraOfTheEmbeddingIsARowAToken) {
  const at::Tensor a = Random({3, testing::kVocab}), b = Random({testing::kHidden, 3});
  const at::Tensor magnitude = at::abs(Random({testing::kHidden})) + 0.5;
  LoraSpec spec;
  spec.modules.push_back(Lora(kEmbedding, a, b, 1.5));
  spec.modules[0].magnitude = View(magnitude);
  const auto adapter = MustCompile(spec);
  const EmbeddingDelta& delta = *adapter->embedding();
  // The norms of DoRA are per hidden dimension, over the vocabulary.
  const at::Tensor sum = Weight(kEmbedding) + at::matmul(b, a).t() * 1.5;
  const at::Tensor expected = sum * (magnitude / at::linalg_vector_norm(sum, 2, {0}));
  const at::Tensor actual = Weight(kEmbedding) * (1 + delta.output_gain) +
                            at::matmul(delta.down, delta.up.UpMatrix().t()) * delta.up.scaling;
  EXPECT_LT(WorstError(actual, expected), kTolerance);
  EXPECT_EQ(adapter->head(), nullptr);
  EXPECT_FALSE(adapter->has_overrides());
}

TEST_F(LinearMethodsTest, LoraOfTheHeadIsItsSiteDelta) {
  const at::Tensor a = Random({3, testing::kHidden}), b = Random({testing::kVocab, 3});
  LoraSpec spec;
  spec.modules.push_back(Lora(kHead, a, b, 0.5));
  const auto adapter = MustCompile(spec);
  const at::Tensor x = Random({2, testing::kHidden});
  EXPECT_LT(WorstError(Output(kHead, adapter->head()->site, x),
                       at::matmul(x, (Weight(kHead) + at::matmul(b, a) * 0.5).t())),
            kTolerance);
  EXPECT_TRUE(adapter->has_weight());
}

TEST_F(LinearMethodsTest, Ia3ScalesOutputsAndInputs) {
  const at::Tensor out_scale = Random({12, 1}), in_scale = Random({1, testing::kInner});
  Ia3Spec spec;
  spec.modules = {{kQ0, View(out_scale)}, {kDown0, View(in_scale), true, 2.0}};
  const auto adapter = MustCompile(spec);
  const at::Tensor x = Random({3, testing::kHidden}), inner = Random({3, testing::kInner});
  EXPECT_LT(WorstError(Output(kQ0, *adapter->delta(0, Site::kQ), x),
                       at::linear(x, Weight(kQ0), Bias(kQ0)) * out_scale.flatten()),
            kTolerance);
  const SiteDelta& down = *adapter->delta(0, Site::kDown);
  EXPECT_LT(WorstError(Output(kDown0, down, inner),
                       at::linear(inner * in_scale * 2.0, Weight(kDown0), Bias(kDown0))),
            kTolerance);
  EXPECT_TRUE(down.input_gain.defined());
  EXPECT_FALSE(down.low_rank.defined());
  EXPECT_THAT(report_.warnings, IsEmpty());
}

TEST_F(LinearMethodsTest, Ia3InputScaleOfASharedInputIsADenseDelta) {
  const at::Tensor scale = Random({1, testing::kHidden});
  Ia3Spec spec;
  spec.modules = {{kUp1, View(scale), true}};
  const auto adapter = MustCompile(spec);
  const at::Tensor x = Random({3, testing::kHidden});
  const SiteDelta& delta = *adapter->delta(1, Site::kUp);
  EXPECT_FALSE(delta.input_gain.defined());
  EXPECT_TRUE(delta.low_rank.dense());
  EXPECT_LT(WorstError(Output(kUp1, delta, x), at::linear(x * scale, Weight(kUp1))), kTolerance);
  EXPECT_THAT(report_.warnings, ElementsAre(HasSubstr("a matrix of 14 x 10")));
}

TEST_F(LinearMethodsTest, Ia3OfAnotherSizeOrPlaceIsRefused) {
  Ia3Spec spec;
  spec.modules = {{kQ0, View(Random({11, 1}))}};
  ExpectRefused(TryCompile(spec), "SHAPE_MISMATCH", "scale is 11 in the adapter, but 12");
  spec.modules = {{kEmbedding, View(Random({testing::kHidden, 1}))}};
  ExpectRefused(TryCompile(spec), "UNKNOWN_MODULE", "is an embedding");
  spec.modules = {{"model.layers.0.input_layernorm", View(Random({testing::kHidden, 1}))}};
  ExpectRefused(TryCompile(spec), "UNKNOWN_MODULE", "is a norm");
}

TEST_F(LinearMethodsTest, VeraTakesItsPartsOfTheSharedMatrices) {
  const at::Tensor a = Random({4, 20}), b = Random({30, 4});
  const at::Tensor lambda_b = Random({12}), lambda_d = Random({4});
  VeraSpec spec;
  spec.a = View(a);
  spec.b = View(b);
  spec.modules = {{kQ0, View(lambda_b), View(lambda_d)}};
  const auto adapter = MustCompile(spec);
  const at::Tensor x = Random({3, testing::kHidden});
  const at::Tensor inner = at::matmul(x, a.narrow(1, 0, testing::kHidden).t()) * lambda_d;
  const at::Tensor expected =
      at::linear(x, Weight(kQ0), Bias(kQ0)) + at::matmul(inner, b.narrow(0, 0, 12).t()) * lambda_b;
  EXPECT_LT(WorstError(Output(kQ0, *adapter->delta(0, Site::kQ), x), expected), kTolerance);
  EXPECT_EQ(report_.max_rank, 4);
  EXPECT_THAT(report_.warnings, ElementsAre(HasSubstr("VeRA is folded into matrices of 88 elem")));

  spec.b = View(Random({11, 4}));
  ExpectRefused(TryCompile(spec), "SHAPE_MISMATCH", "vera_B");
}

TEST_F(LinearMethodsTest, LohaIsFactoredWhereThatIsSmallerAndDenseElsewhere) {
  for (const int64_t rank : {2, 5}) {
    const at::Tensor w1_a = Random({12, rank}), w2_a = Random({12, rank});
    const at::Tensor w1_b = Random({rank, testing::kHidden});
    const at::Tensor w2_b = Random({rank, testing::kHidden});
    LohaSpec spec;
    spec.modules = {{kQ0, View(w1_a), View(w2_a), View(w1_b), View(w2_b), 0.25}};
    const auto adapter = MustCompile(spec);
    const at::Tensor x = Random({3, testing::kHidden});
    const at::Tensor delta = at::matmul(w1_a, w1_b) * at::matmul(w2_a, w2_b) * 0.25;
    const SiteDelta& site = *adapter->delta(0, Site::kQ);
    EXPECT_EQ(site.low_rank.dense(), rank == 5);
    EXPECT_LT(WorstError(Output(kQ0, site, x), at::linear(x, Weight(kQ0) + delta, Bias(kQ0))),
              kTolerance);
  }
}

TEST_F(LinearMethodsTest, LokrIsAKroneckerProductOfEveryForm) {
  const at::Tensor whole1 = Random({2, 2}), whole2 = Random({6, 5});
  const at::Tensor a = Random({6, 1}), b = Random({1, 5});
  LokrModule module;
  module.module = kQ0;
  module.scaling = -0.5;
  module.w1.whole = View(whole1);
  const at::Tensor x = Random({3, testing::kHidden});
  for (const bool factored : {false, true}) {
    module.w2 = {};
    if (factored) {
      module.w2.a = View(a);
      module.w2.b = View(b);
    } else {
      module.w2.whole = View(whole2);
    }
    LokrSpec spec;
    spec.modules = {module};
    const auto adapter = MustCompile(spec);
    const SiteDelta& site = *adapter->delta(0, Site::kQ);
    EXPECT_EQ(site.low_rank.dense(), !factored);
    const at::Tensor delta = at::kron(whole1, factored ? at::matmul(a, b) : whole2) * -0.5;
    EXPECT_LT(WorstError(Output(kQ0, site, x), at::linear(x, Weight(kQ0) + delta, Bias(kQ0))),
              kTolerance);
  }
  module.w1.whole = View(Random({2, 3}));
  LokrSpec spec;
  spec.modules = {module};
  ExpectRefused(TryCompile(spec), "SHAPE_MISMATCH", "maps 15 to 12 features");
}

TEST_F(LinearMethodsTest, TwoUpdatesOfOneModuleAreRefused) {
  LoraSpec spec;
  const at::Tensor a = Random({2, testing::kHidden}), b = Random({12, 2});
  spec.modules = {Lora(kQ0, a, b, 1.0), Lora(kQ0, a, b, 1.0)};
  ExpectRefused(TryCompile(spec), "DUPLICATE_MODULE", kQ0);
}

}  // namespace
}  // namespace tenon
