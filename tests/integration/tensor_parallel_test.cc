// The real binary with --tensor-parallel-size.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/integration/server_fixture.h"

namespace tenon {
namespace {

constexpr char kGreedy[] =
    "prompt: 'hello world' sampling { temperature: 0 } "
    "stopping { max_tokens: 16 ignore_eos: true } output { token_ids: true }";

using Ids = std::vector<int>;

class TensorParallelTest : public ServerTest {
 protected:
  Ids Answer(const std::string& adapter) {
    const std::string selection = adapter.empty() ? "" : absl::StrCat("adapter: '", adapter, "' ");
    const auto response = Generate(selection + kGreedy);
    return {response.samples(0).token_ids().begin(), response.samples(0).token_ids().end()};
  }
};

TEST_F(TensorParallelTest, TwoRanksServeTheAnswersOfOne) {
  Start({"--dtype=fp32"});
  UploadTiny("all-linear", "task");
  const Ids base = Answer(""), task = Answer("task");
  ASSERT_EQ(base.size(), 16u);
  EXPECT_NE(base, task);
  server_.reset();
  Start({"--dtype=fp32", "--tensor-parallel-size=2", "--merged-bytes=100000000"});
  EXPECT_EQ(Answer(""), base);
  EXPECT_EQ(Answer("task"), task);  // restored from the store, and cut
  UploadTiny("all-linear", "again");
  EXPECT_EQ(Answer("again"), task);
}

}  // namespace
}  // namespace tenon
