// The trained demo adapters, served: as many right answers as PEFT itself gives, and far more than
// the bare base.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/cpp/client.h"
#include "nlohmann/json.hpp"
#include "tests/integration/server_process.h"
#include "tests/source_dir.h"

namespace tenon {
namespace {

constexpr int kInFlight = 32;

struct Question {
  std::string adapter;  // "" for the base
  std::string task;
  std::string prompt;
  std::string expected;
  std::vector<int32_t> reference_tokens;  // PEFT's answer; empty for the base
  std::string answer;
  std::vector<int32_t> tokens;
  std::string error;

  bool correct() const { return answer == expected; }
};

nlohmann::json ReadResults() {
  std::ifstream file(SourcePath("deploy/demo/results.json"));
  return nlohmann::json::parse(file);
}

/// Every question of every task, once to its adapter and once to the base.
std::vector<Question> MakeQuestions(const nlohmann::json& results) {
  std::vector<Question> questions;
  for (const auto& [task, result] : results.at("tasks").items()) {
    for (const nlohmann::json& answer : result.at("answers")) {
      Question question;
      question.task = task;
      question.prompt = answer.at("prompt");
      question.expected = answer.at("expected");
      questions.push_back(question);
      question.adapter = task;
      question.reference_tokens = answer.at("tokens").get<std::vector<int32_t>>();
      questions.push_back(question);
    }
  }
  return questions;
}

void Ask(const Client& client, int max_tokens, Question& question) {
  v1::GenerateRequest request;
  request.set_adapter(question.adapter);
  request.set_prompt(question.prompt);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_tokens(max_tokens);
  request.mutable_stopping()->add_stop("\n");
  request.mutable_output()->set_token_ids(true);
  const absl::StatusOr<v1::GenerateOnceResponse> response = client.GenerateOnce(request);
  if (!response.ok()) {
    question.error = response.status().ToString();
    return;
  }
  const v1::Sample& sample = response->samples(0);
  question.answer = std::string(absl::StripAsciiWhitespace(sample.text()));
  question.tokens.assign(sample.token_ids().begin(), sample.token_ids().end());
}

/// All questions, 32 of them in flight at a time: neighbours in the list are of one task, so
/// batches mix adapter and base.
void AskAll(const Client& client, int max_tokens, std::vector<Question>& questions) {
  std::atomic<size_t> next = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kInFlight; ++i) {
    threads.emplace_back([&] {
      for (size_t q = next++; q < questions.size(); q = next++) {
        Ask(client, max_tokens, questions[q]);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST(DemoAccuracyTest, ServedAdaptersAnswerAsPeftDoes) {
  const char* model = std::getenv("TENON_TEST_MODEL");
  if (model == nullptr) {
    GTEST_SKIP() << "TENON_TEST_MODEL names no SmolLM2 folder (deploy/quickstart/fetch_model.sh)";
  }
  const ScratchFolder folder;
  const ServerProcess server(folder.path(), {absl::StrCat("--model=", model), "--dtype=fp32"});
  const Client client = Client::Connect(server.address());
  const nlohmann::json results = ReadResults();
  for (const auto& [task, result] : results.at("tasks").items()) {
    const auto uploaded =
        client.UploadAdapter(task, SourcePath(absl::StrCat("deploy/demo/adapters/", task)));
    ASSERT_TRUE(uploaded.ok()) << uploaded.status();
  }
  std::vector<Question> questions = MakeQuestions(results);
  ASSERT_EQ(questions.size(), 400u);
  AskAll(client, results.at("max_new_tokens"), questions);

  for (const auto& [task, result] : results.at("tasks").items()) {
    int served = 0, base = 0, asked = 0, same_tokens = 0;
    for (const Question& question : questions) {
      if (question.task != task) {
        continue;
      }
      EXPECT_EQ(question.error, "") << question.prompt;
      if (question.adapter.empty()) {
        base += question.correct();
      } else {
        ++asked;
        served += question.correct();
        same_tokens += question.tokens == question.reference_tokens;
      }
    }
    const double reference = result.at("adapter_accuracy").get<double>() * asked;
    std::printf("%-16s served %d, PEFT %.0f, base %d of %d; same tokens as PEFT: %d\n",
                task.c_str(), served, reference, base, asked, same_tokens);
    EXPECT_NEAR(served, reference, 1.01) << task;
    EXPECT_LT(base, served - asked / 4) << task;
    EXPECT_GE(same_tokens, asked - 1) << task;
  }
}

}  // namespace
}  // namespace tenon
