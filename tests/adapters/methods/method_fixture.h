// What the tests of the methods' compilers share: a small base with weights, specs made of tensors,
// and what a compiled adapter computes at a site, in plain ATen operations.
#ifndef TENON_TESTS_ADAPTERS_METHODS_METHOD_FIXTURE_H_
#define TENON_TESTS_ADAPTERS_METHODS_METHOD_FIXTURE_H_

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/methods/compiler.h"
#include "tests/adapters/kernels/kernel_testing.h"

namespace tenon::testing {

inline constexpr int64_t kHidden = 10;
inline constexpr int64_t kInner = 14;  ///< of the feed-forward
inline constexpr int64_t kVocab = 23;
inline constexpr int64_t kLayers = 2;
inline constexpr int64_t kKvHeads = 2;
inline constexpr int64_t kHeadDim = 3;

class MethodTest : public ::testing::Test {
 protected:
  MethodTest() {
    base_.model_type = "llama";
    base_.num_layers = kLayers;
    base_.hidden_size = kHidden;
    base_.vocab_size = kVocab;
    base_.num_kv_heads = kKvHeads;
    base_.head_dim = kHeadDim;
    base_.max_context_tokens = 64;
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      const std::string path = absl::StrCat("model.layers.", layer);
      base_.layers[path] = layer;
      AddLinear(path + ".self_attn.q_proj", {layer, Site::kQ, kHidden, 12}, true);
      AddLinear(path + ".self_attn.o_proj", {layer, Site::kO, 12, kHidden}, false);
      AddLinear(path + ".mlp.up_proj", {layer, Site::kUp, kHidden, kInner}, false);
      AddLinear(path + ".mlp.down_proj", {layer, Site::kDown, kInner, kHidden}, true);
      base_.modules[path + ".input_layernorm"] = {layer, Site::kAttentionNorm, kHidden, kHidden};
      parameters_[path + ".input_layernorm.bias"] = Random({kHidden});
    }
    base_.modules["model.embed_tokens"] = {0, Site::kEmbedding, kVocab, kHidden};
    parameters_["model.embed_tokens.weight"] = Random({kVocab, kHidden});
    base_.modules["lm_head"] = {0, Site::kHead, kHidden, kVocab};
    parameters_["lm_head.weight"] = Random({kVocab, kHidden});
    base_.read_parameter = [this](absl::string_view name) -> absl::StatusOr<at::Tensor> {
      const auto found = parameters_.find(std::string(name));
      if (found == parameters_.end()) {
        return absl::NotFoundError(name);
      }
      return found->second;
    };
  }

  at::Tensor Random(at::IntArrayRef sizes, float deviation = 1.0f) {
    return random_.Normal(sizes, at::kFloat, deviation);
  }

  /// A view of an fp32 tensor, which the fixture keeps.
  TensorView View(const at::Tensor& tensor) {
    kept_.push_back(tensor.contiguous());
    const auto* const data = static_cast<const std::byte*>(kept_.back().const_data_ptr());
    return {DType::kF32, tensor.sizes().vec(), {data, kept_.back().nbytes()}};
  }

  absl::StatusOr<std::shared_ptr<const CompiledAdapter>> TryCompile(
      MethodSpec body, SharedParts shared = {}, at::ScalarType dtype = at::kFloat) {
    AdapterSpec spec;
    spec.method = "TEST";
    spec.body = std::move(body);
    spec.shared = std::move(shared);
    report_ = {};
    return Compile(spec, base_, dtype, &report_);
  }

  std::shared_ptr<const CompiledAdapter> MustCompile(MethodSpec body, SharedParts shared = {},
                                                     at::ScalarType dtype = at::kFloat) {
    auto adapter = TryCompile(std::move(body), std::move(shared), dtype);
    EXPECT_TRUE(adapter.ok()) << adapter.status();
    return *std::move(adapter);
  }

  /// The error's reason and that it names `text`.
  static void ExpectRefused(const absl::StatusOr<std::shared_ptr<const CompiledAdapter>>& adapter,
                            const std::string& reason, const std::string& text) {
    ASSERT_FALSE(adapter.ok());
    ASSERT_TRUE(GetErrorDetail(adapter.status()).has_value()) << adapter.status();
    EXPECT_EQ(GetErrorDetail(adapter.status())->reason, reason) << adapter.status();
    EXPECT_THAT(std::string(adapter.status().message()), ::testing::HasSubstr(text));
  }

  at::Tensor Weight(const std::string& module) { return parameters_.at(module + ".weight"); }
  /// Undefined when there is none.
  at::Tensor Bias(const std::string& module) {
    const auto found = parameters_.find(module + ".bias");
    return found == parameters_.end() ? at::Tensor() : found->second;
  }

  /// What the module gives out for x [T, in] with the delta at weight 1 (SiteDelta's equation).
  at::Tensor Output(const std::string& module, const SiteDelta& delta, const at::Tensor& x) {
    const at::Tensor input = delta.input_gain.defined() ? x * (1 + delta.input_gain) : x;
    at::Tensor y = at::linear(input, Weight(module), Bias(module));
    if (delta.output_gain.defined()) {
      y = y * (1 + delta.output_gain);
    }
    if (delta.offset.defined()) {
      y = y + delta.offset;
    }
    const LowRankDelta& low_rank = delta.low_rank;
    if (low_rank.defined()) {
      const at::Tensor shrunk = low_rank.dense() ? x : at::matmul(x, low_rank.DownMatrix().t());
      y = y + at::matmul(shrunk, low_rank.UpMatrix().t()) * low_rank.scaling;
    }
    return y;
  }

  static constexpr char kQ0[] = "model.layers.0.self_attn.q_proj";
  static constexpr char kO1[] = "model.layers.1.self_attn.o_proj";
  static constexpr char kUp1[] = "model.layers.1.mlp.up_proj";
  static constexpr char kDown0[] = "model.layers.0.mlp.down_proj";
  static constexpr char kEmbedding[] = "model.embed_tokens";
  static constexpr char kHead[] = "lm_head";

  RandomTensors random_{17};
  std::map<std::string, at::Tensor> parameters_;
  std::vector<at::Tensor> kept_;
  BaseShape base_;
  CompileReport report_;

 private:
  void AddLinear(const std::string& module, const SiteShape& shape, bool bias) {
    base_.modules[module] = shape;
    parameters_[module + ".weight"] = Random({shape.out_features, shape.in_features});
    if (bias) {
      parameters_[module + ".bias"] = Random({shape.out_features});
    }
  }
};

}  // namespace tenon::testing

#endif  // TENON_TESTS_ADAPTERS_METHODS_METHOD_FIXTURE_H_
