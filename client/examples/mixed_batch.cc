// Asks several adapters and the bare base at the same time, so that the server runs them in one
// batch:
//
//   mixed_batch --server=127.0.0.1:50051 --questions=deploy/demo/questions --per_adapter=3
//
// `--questions` is a folder of NAME.jsonl files, one JSON object {"prompt", "expected"} a line:
// questions for adapter NAME. Every first question is put to the bare base as well. Prints each
// prompt, who answered what, the methods of the adapters, and the tokens per second.
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/cpp/client.h"
#include "nlohmann/json.hpp"

ABSL_FLAG(std::string, server, "127.0.0.1:50051", "host:port or unix:/path of the server");
ABSL_FLAG(std::string, questions, "deploy/demo/questions", "folder of ADAPTER.jsonl files");
ABSL_FLAG(int32_t, per_adapter, 3, "questions to each adapter");
ABSL_FLAG(int32_t, max_tokens, 48, "tokens of an answer at most");

namespace {

struct Question {
  std::string adapter;  // "" for the base
  std::string prompt;
  std::string expected;
  absl::StatusOr<tenon::v1::GenerateOnceResponse> answer = absl::UnknownError("not asked");
};

/// Method by adapter name: "LORA", "PREFIX_TUNING", ...
using Methods = std::map<std::string, std::string>;

absl::StatusOr<Methods> ReadMethods(const tenon::Client& client) {
  const absl::StatusOr<std::vector<tenon::v1::Adapter>> adapters = client.ListAdapters();
  if (!adapters.ok()) {
    return adapters.status();
  }
  Methods methods;
  for (const tenon::v1::Adapter& adapter : *adapters) {
    methods[adapter.name()] = adapter.method();  // ordered by version: the last one wins
  }
  return methods;
}

/// The first lines of each adapter's file, and the first of each for the base.
std::vector<Question> ReadQuestions(const std::string& folder, int per_adapter) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".jsonl") {
      files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  std::vector<Question> questions;
  for (const std::filesystem::path& file : files) {
    std::ifstream lines(file);
    std::string line;
    for (int i = 0; i < per_adapter && std::getline(lines, line); ++i) {
      const nlohmann::json question = nlohmann::json::parse(line);
      Question asked{file.stem(), question.at("prompt"), question.at("expected")};
      questions.push_back(asked);
      if (i == 0) {
        asked.adapter.clear();
        questions.push_back(asked);
      }
    }
  }
  return questions;
}

tenon::v1::GenerateRequest MakeRequest(const Question& question) {
  tenon::v1::GenerateRequest request;
  request.set_prompt(question.prompt);
  request.set_adapter(question.adapter);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_tokens(absl::GetFlag(FLAGS_max_tokens));
  request.mutable_stopping()->add_stop("\n");
  return request;
}

/// Asks all questions at once, each on its own thread. Returns the time until the last answer.
absl::Duration AskAll(const tenon::Client& client, std::vector<Question>& questions) {
  const absl::Time start = absl::Now();
  std::vector<std::thread> threads;
  for (Question& question : questions) {
    threads.emplace_back(
        [&client, &question] { question.answer = client.GenerateOnce(MakeRequest(question)); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return absl::Now() - start;
}

std::string OneLine(absl::string_view text) {
  return absl::StrReplaceAll(absl::StripAsciiWhitespace(text), {{"\n", " / "}});
}

/// Prints one question and its answer. Returns the answer's tokens.
int64_t Print(const Question& question, const Methods& methods) {
  std::cout << "\n  " << OneLine(question.prompt) << "\n";
  if (!question.answer.ok()) {
    std::cout << "  failed: " << question.answer.status() << "\n";
    return 0;
  }
  const tenon::v1::Sample& sample = question.answer->samples(0);
  std::string who = "base";
  if (sample.finish().adapters_size() > 0) {
    const tenon::v1::ServedAdapter& adapter = sample.finish().adapters(0);
    const auto method = methods.find(adapter.name());
    who = absl::StrCat(adapter.name(), "@", adapter.version(), " ",
                       method == methods.end() ? "" : method->second);
  }
  std::cout << "  [" << who << "] " << OneLine(sample.text()) << "\n";
  return sample.finish().usage().completion_tokens();
}

/// "3 base, 12 LORA, 3 PREFIX_TUNING".
std::string CountMethods(const std::vector<Question>& questions, const Methods& methods) {
  std::map<std::string, int> counts;
  for (const Question& question : questions) {
    const auto method = methods.find(question.adapter);
    ++counts[method == methods.end() ? "base" : method->second];
  }
  return absl::StrJoin(counts, ", ", [](std::string* out, const auto& count) {
    absl::StrAppend(out, count.second, " ", count.first);
  });
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("Asks several adapters and the base at once.");
  absl::ParseCommandLine(argc, argv);
  const tenon::Client client = tenon::Client::Connect(absl::GetFlag(FLAGS_server));
  const absl::StatusOr<Methods> methods = ReadMethods(client);
  if (!methods.ok()) {
    std::cerr << methods.status() << "\n";
    return 1;
  }
  std::vector<Question> questions =
      ReadQuestions(absl::GetFlag(FLAGS_questions), absl::GetFlag(FLAGS_per_adapter));
  const absl::Duration elapsed = AskAll(client, questions);

  int64_t tokens = 0;
  int64_t failed = 0;
  for (const Question& question : questions) {
    tokens += Print(question, *methods);
    failed += question.answer.ok() ? 0 : 1;
  }
  std::cout << "\n"
            << questions.size() << " requests at once (" << CountMethods(questions, *methods)
            << "), " << tokens << " tokens in "
            << absl::FormatDuration(absl::Trunc(elapsed, absl::Milliseconds(1))) << ": "
            << static_cast<int64_t>(static_cast<double>(tokens) / absl::ToDoubleSeconds(elapsed))
            << " tokens/s, " << failed << " failed\n";
  return failed == 0 && !questions.empty() ? 0 : 1;
}
