// The trained demo adapters of all families, served in one server: as many right answers as the
// library that made them gives, in fp32 and in bf16, and far more than the bare base.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <set>
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
constexpr int kNumQuestions = 50;        // of each task
constexpr double kInt8Questions = 2.01;  // that int8 may answer otherwise, of a task's
constexpr int kBaseQuestions = 10;       // of each task; the base mostly talks until it is cut off

struct Question {
  std::string adapter;  // "" for the base
  std::string task;
  std::string prompt;
  std::string expected;
  std::vector<int32_t> reference_tokens;  // the library's answer in fp32; empty for the base
  std::string answer;
  std::vector<int32_t> tokens;
  std::string error;

  bool correct() const { return answer == expected; }
};

nlohmann::json ReadResults() {
  std::ifstream file(SourcePath("deploy/demo/results.json"));
  return nlohmann::json::parse(file);
}

/// Every question of every task to its adapter, and the first ones to the base too. Neighbours are
/// of different tasks, so that batches mix all adapters and the base.
std::vector<Question> MakeQuestions(const nlohmann::json& results) {
  std::vector<Question> questions;
  for (int i = 0; i < kNumQuestions; ++i) {
    for (const auto& [task, result] : results.at("tasks").items()) {
      const nlohmann::json& answer = result.at("answers").at(i);
      Question question;
      question.task = task;
      question.prompt = answer.at("prompt");
      question.expected = answer.at("expected");
      if (i < kBaseQuestions) {
        questions.push_back(question);
      }
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

/// All questions, 32 of them in flight at a time.
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

struct Score {
  int served = 0, same_tokens = 0, base = 0;
};

Score ScoreOf(const std::string& task, const std::vector<Question>& questions) {
  Score score;
  for (const Question& question : questions) {
    if (question.task != task) {
      continue;
    }
    EXPECT_EQ(question.error, "") << question.prompt;
    if (question.adapter.empty()) {
      score.base += question.correct();
    } else {
      score.served += question.correct();
      score.same_tokens += question.tokens == question.reference_tokens;
    }
  }
  return score;
}

class DemoAccuracyTest : public testing::TestWithParam<const char*> {};

TEST_P(DemoAccuracyTest, ServedAdaptersAnswerAsTheirLibrariesDo) {
  const char* model = std::getenv("TENON_TEST_MODEL");
  if (model == nullptr) {
    GTEST_SKIP() << "TENON_TEST_MODEL names no SmolLM2 folder (deploy/quickstart/fetch_model.sh)";
  }
  const ScratchFolder folder;
  const absl::string_view arithmetic = GetParam();
  const bool int8 = arithmetic == "int8";
  const ServerProcess server(
      folder.path(),
      {absl::StrCat("--model=", model), absl::StrCat("--dtype=", int8 ? "bf16" : arithmetic),
       absl::StrCat("--quantization=", int8 ? "int8" : "none")});
  const Client client = Client::Connect(server.address());
  const nlohmann::json results = ReadResults();
  std::set<std::string> methods;
  for (const auto& [task, result] : results.at("tasks").items()) {
    const auto uploaded =
        client.UploadAdapter(task, SourcePath(absl::StrCat("deploy/demo/adapters/", task)));
    ASSERT_TRUE(uploaded.ok()) << uploaded.status();
    methods.insert(uploaded->adapter().method());
  }
  EXPECT_THAT(methods,
              testing::IsSupersetOf({"LORA", "PROMPT_TUNING", "PREFIX_TUNING", "BOTTLENECK"}));
  std::vector<Question> questions = MakeQuestions(results);
  AskAll(client, results.at("max_new_tokens"), questions);

  for (const auto& [task, result] : results.at("tasks").items()) {
    const Score score = ScoreOf(task, questions);
    const double reference = result.at("adapter_accuracy").get<double>() * kNumQuestions;
    const std::string library = result.at("library");
    std::printf("%s %-16s served %d, %s %.0f of %d; base %d of %d; the library's tokens: %d\n",
                GetParam(), task.c_str(), score.served, library.c_str(), reference, kNumQuestions,
                score.base, kBaseQuestions, score.same_tokens);
    // Int8 is an approximation: what it costs is printed, and must leave the task as it is.
    EXPECT_NEAR(score.served, reference, int8 ? kInt8Questions : 1.01) << task;
    EXPECT_LT(score.base * kNumQuestions, score.served * kBaseQuestions / 2) << task;
    if (arithmetic == "fp32") {
      EXPECT_GE(score.same_tokens, kNumQuestions - 1) << task;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, DemoAccuracyTest, testing::Values("fp32", "bf16", "int8"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace tenon
