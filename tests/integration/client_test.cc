// The C++ client against the real binary: calls that no thread waits for.
#include "client/cpp/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "tests/integration/server_fixture.h"

namespace tenon {
namespace {

v1::GenerateRequest Request(int index, int max_tokens) {
  return ParseProto<v1::GenerateRequest>(absl::StrCat(
      "prompt: 'request ", index, "' sampling { temperature: 0 } stopping { max_tokens: ",
      max_tokens, " ignore_eos: true } output { token_ids: true }"));
}

// What came of calls that are under way.
class Answers {
 public:
  explicit Answers(size_t count) : tokens_(count), statuses_(count, absl::UnknownError("no end")) {}

  std::function<bool(const v1::GenerateResponse&)> Appender(size_t index, size_t most) {
    return [this, index, most](const v1::GenerateResponse& response) {
      absl::MutexLock lock(&mutex_);
      tokens_[index].insert(tokens_[index].end(), response.token_ids().begin(),
                            response.token_ids().end());
      return tokens_[index].size() < most;
    };
  }
  std::function<void(absl::Status)> Ender(size_t index) {
    return [this, index](absl::Status status) {
      absl::MutexLock lock(&mutex_);
      statuses_[index] = std::move(status);
      ++num_ended_;
    };
  }
  bool WaitForAll() {
    absl::MutexLock lock(&mutex_);
    const auto all = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return num_ended_ == statuses_.size();
    };
    return mutex_.AwaitWithTimeout(absl::Condition(&all), absl::Minutes(2));
  }
  std::vector<int> tokens(size_t index) {
    absl::MutexLock lock(&mutex_);
    return tokens_[index];
  }
  absl::Status status(size_t index) {
    absl::MutexLock lock(&mutex_);
    return statuses_[index];
  }

 private:
  absl::Mutex mutex_;
  std::vector<std::vector<int>> tokens_ ABSL_GUARDED_BY(mutex_);
  std::vector<absl::Status> statuses_ ABSL_GUARDED_BY(mutex_);
  size_t num_ended_ ABSL_GUARDED_BY(mutex_) = 0;
};

constexpr size_t kNoBound = 1000;

class ClientTest : public ServerTest {
 protected:
  void SetUp() override { Start(); }

  Client Connect() { return Client::Connect(server_->address()); }
};

TEST_F(ClientTest, CallsThatNoThreadWaitsForAnswerAsThoseThatOneDoes) {
  constexpr int kCalls = 24, kTokens = 12;
  const Client client = Connect();
  Answers answers(kCalls);
  for (int i = 0; i < kCalls; ++i) {
    client.StartGenerate(Request(i, kTokens), answers.Appender(i, kNoBound), answers.Ender(i));
  }
  ASSERT_TRUE(answers.WaitForAll());
  for (int i = 0; i < kCalls; ++i) {
    Answers expected(1);
    expected.Ender(0)(client.Generate(Request(i, kTokens), expected.Appender(0, kNoBound)));
    EXPECT_EQ(answers.status(i), absl::OkStatus()) << i;
    EXPECT_EQ(expected.tokens(0).size(), kTokens);
    EXPECT_EQ(answers.tokens(i), expected.tokens(0)) << i;
  }
}

TEST_F(ClientTest, FalseCancels) {
  constexpr int kTokens = 200, kSamples = 16;  // enough to be cancelled before the end
  const Client client = Connect();
  Answers answers(1);
  v1::GenerateRequest request = Request(0, kTokens);
  request.mutable_sampling()->set_n(kSamples);
  request.mutable_sampling()->set_temperature(1);
  client.StartGenerate(request, answers.Appender(0, 3), answers.Ender(0));
  ASSERT_TRUE(answers.WaitForAll());
  EXPECT_EQ(answers.status(0).code(), absl::StatusCode::kCancelled);
  EXPECT_GE(answers.tokens(0).size(), 3);
  EXPECT_LT(answers.tokens(0).size(), kTokens * kSamples);
}

TEST_F(ClientTest, AnEndMayStartAnotherCall) {
  const Client client = Connect();
  Answers answers(2);
  client.StartGenerate(Request(0, 2), answers.Appender(0, kNoBound), [&](absl::Status status) {
    client.StartGenerate(Request(1, 2), answers.Appender(1, kNoBound), answers.Ender(1));
    answers.Ender(0)(std::move(status));
  });
  ASSERT_TRUE(answers.WaitForAll());
  EXPECT_EQ(answers.tokens(0).size(), 2);
  EXPECT_EQ(answers.tokens(1).size(), 2);
}

TEST_F(ClientTest, ARefusalIsAnEndWithoutAnswers) {
  v1::GenerateRequest request = Request(0, 2);
  request.set_adapter("nobody");
  const Client client = Connect();
  Answers answers(1);
  client.StartGenerate(request, answers.Appender(0, kNoBound), answers.Ender(0));
  ASSERT_TRUE(answers.WaitForAll());
  EXPECT_EQ(answers.status(0).code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(answers.status(0).message(), testing::HasSubstr("nobody"));
  EXPECT_TRUE(answers.tokens(0).empty());
}

}  // namespace
}  // namespace tenon
