// Every method's goldens (make_matrix.sh) on every architecture, cell by cell: what the compilers
// make of an adapter and what the forward pass makes of that, in fp32 and in bf16.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "adapters/kernels/parallel.h"
#include "tests/golden/bf16_errors.h"
#include "tests/golden/golden_run.h"
#include "tests/golden/matrix_batch.h"
#include "tests/golden/matrix_table.h"
#include "tests/source_dir.h"

namespace tenon {
namespace {

constexpr float kTolerance = 1e-4f;  // of log-probs in fp32

constexpr size_t kNumComputedAnotherWay = 3;

// Shared by the tests of this program, which run in order; MatrixReport prints them.
MatrixTable& Table(at::ScalarType dtype) {
  const auto load = [] {
    return *MatrixTable::Load(SourcePath("tests/golden/data/matrix/matrix.json"));
  };
  static MatrixTable* const fp32 = new MatrixTable(load());
  static MatrixTable* const bf16 = new MatrixTable(load());
  return dtype == at::kFloat ? *fp32 : *bf16;
}

class MethodsGoldenTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { SetNumKernelThreads(1); }

  /// Runs all cells of the architecture in one batch, and each case alone where the kernels promise
  /// that it is the same bit for bit.
  void Run(at::ScalarType dtype) {
    absl::StatusOr<MatrixBatch> batch = MatrixBatch::Load(GetParam(), dtype);
    ASSERT_TRUE(batch.ok()) << batch.status();
    auto together = batch->RunTogether();
    ASSERT_TRUE(together.ok()) << together.status();
    for (size_t i = 0; i < together->size() && batch->is_batch_invariant(); ++i) {
      const auto alone = batch->RunAlone(batch->cases()[i]);
      ASSERT_TRUE(alone.ok()) << alone.status();
      ExpectSame(*alone, (*together)[i], batch->cases()[i].golden.name);
    }
    std::cout << together->size() << " rows in each of " << together->front().steps.size()
              << " steps" << (batch->is_batch_invariant() ? ", each row bit for bit as alone" : "")
              << "\n";
    cases_ = batch->cases();
    results_ = *std::move(together);
  }

  static void ExpectSame(const DriverResult& alone, const DriverResult& together,
                         const std::string& name) {
    ASSERT_EQ(alone.tokens(), together.tokens()) << name;
    for (size_t step = 0; step < alone.steps.size(); ++step) {
      const auto &a = alone.steps[step].top_logprobs, &b = together.steps[step].top_logprobs;
      ASSERT_EQ(a.size(), b.size()) << name;
      for (size_t i = 0; i < a.size(); ++i) {
        ASSERT_EQ(a[i].token, b[i].token) << name << " step " << step;
        ASSERT_EQ(a[i].logprob, b[i].logprob) << name << " step " << step;
      }
    }
  }

  void Record(at::ScalarType dtype, const MatrixCase& one, bool passed) const {
    MatrixTable& table = Table(dtype);
    EXPECT_TRUE(ComputedAnotherWay(one.method)
                    ? table.RecordDifferent(GetParam(), one.library, one.method)
                    : table.Record(GetParam(), one.library, one.method, passed))
        << "matrix.json has no golden " << one.library << " " << one.golden.name;
  }

  std::vector<MatrixCase> cases_;
  std::vector<DriverResult> results_;
};

TEST_P(MethodsGoldenTest, Fp32) {
  Run(at::kFloat);
  std::map<std::string, float> worst;
  for (size_t i = 0; i < results_.size(); ++i) {
    const GoldenCase& golden = cases_[i].golden;
    const float difference = LargestDifference(golden, results_[i]);
    const bool same_tokens = results_[i].tokens() == golden.tokens;
    Record(at::kFloat, cases_[i], difference <= kTolerance && same_tokens);
    if (ComputedAnotherWay(cases_[i].method)) {
      continue;
    }
    EXPECT_LE(difference, kTolerance) << golden.name;
    EXPECT_TRUE(same_tokens) << golden.name;
    float& largest = worst[absl::StrCat(cases_[i].library, " ", cases_[i].method)];
    largest = std::max(largest, difference);
  }
  for (const auto& [cell, difference] : worst) {
    std::cout << cell << " " << difference << "\n";
  }
}

TEST_P(MethodsGoldenTest, Bf16) {
  Run(at::kBFloat16);
  Bf16Errors errors;
  for (size_t i = 0; i < results_.size(); ++i) {
    if (!ComputedAnotherWay(cases_[i].method)) {
      errors.Add(cases_[i], results_[i]);
    }
  }
  for (size_t i = 0; i < results_.size(); ++i) {
    const std::string why =
        ComputedAnotherWay(cases_[i].method) ? "" : errors.Complaint(cases_[i], results_[i]);
    EXPECT_EQ(why, "");
    Record(at::kBFloat16, cases_[i], why.empty());
  }
  std::cout << errors.Print();
  EXPECT_EQ(errors.Complaint(), "");
}

INSTANTIATE_TEST_SUITE_P(All, MethodsGoldenTest,
                         testing::Values("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3",
                                         "gpt2"),
                         [](const auto& test) { return std::string(test.param); });

// Prints the tables behind the last test, and counts them unless a filter left some out.
class MatrixReport : public testing::Environment {
 public:
  void TearDown() override {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const MatrixTable& table = Table(dtype);
      std::cout << "\n" << (dtype == at::kFloat ? "fp32" : "bf16") << "\n" << table.Print();
      std::cout << table.num_passed() << " of " << table.num_goldens() << " pass, "
                << table.num_different() << " differ on purpose\n";
      if (testing::GTEST_FLAG(filter) == "*") {
        EXPECT_EQ(table.num_passed() + table.num_different(), table.num_goldens());
        EXPECT_EQ(table.num_different(), kNumComputedAnotherWay);
      }
    }
  }
};
const testing::Environment* const kReport =
    testing::AddGlobalTestEnvironment(new MatrixReport);  // NOLINT: GoogleTest owns it

}  // namespace
}  // namespace tenon
