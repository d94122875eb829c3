// What other servers got wrong when adapters changed under load, as they would show here.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/fault/stream_load.h"
#include "tests/integration/server_fixture.h"
#include "tests/integration/version_calls.h"

namespace tenon {
namespace {

constexpr int32_t kTokens = 8;

class OtherServersBugsTest : public ServerTest {
 protected:
  void SetUp() override { Start(); }

  // Uploads a tiny adapter and remembers what it answers to `prompt`.
  std::string Learn(const std::string& folder, const std::string& prompt, int32_t num_tokens) {
    const std::string name = absl::StrCat("solo-", folder);
    const std::string digest = UploadTiny(folder, name).digest();
    solo_[{digest, prompt}] = StreamLoad::Ask(*generation_, name, prompt, num_tokens);
    EXPECT_EQ(solo_[(std::pair{digest, prompt})].size(), static_cast<size_t>(num_tokens));
    return digest;
  }

  SoloAnswers solo_;
};

// vLLM #42125, #30931: the same name with other weights was answered from the KV blocks of the
// weights before; no error, no log.
TEST_F(OtherServersBugsTest, SameNameReloadServedTheOldKv) {
  constexpr int kReloads = 1000;
  const std::string prompt(150, 'x');  // many blocks, which the prefix cache keeps
  const std::vector<std::string> folders = {"plain-qv", "rslora", "all-linear"};
  std::vector<std::vector<int32_t>> answers;
  for (const std::string& folder : folders) {
    answers.push_back(solo_[{Learn(folder, prompt, kTokens), prompt}]);
  }
  ASSERT_NE(answers[0], answers[1]) << "the test could not tell";
  ASSERT_NE(answers[1], answers[2]);
  int stale = 0, hits = 0;
  for (int i = 0; i < kReloads; ++i) {
    const size_t which = static_cast<size_t>(i) % folders.size();
    UploadTiny(folders[which], "fr");
    const auto answer = Generate(absl::StrCat(
        "prompt: '", prompt, "' adapter: 'fr' sampling { temperature: 0 } stopping { max_tokens: ",
        kTokens, " ignore_eos: true } output { token_ids: true }"));
    const v1::Sample& sample = answer.samples(0);
    stale += std::vector<int32_t>(sample.token_ids().begin(), sample.token_ids().end()) !=
             answers[which];
    hits += sample.finish().usage().cached_prompt_tokens() > 0;
    if (i % 10 == 9) {  // and from the store again
      grpc::ClientContext context;
      v1::DeleteAdapterRequest request;
      request.set_adapter("fr");
      v1::DeleteAdapterResponse response;
      ASSERT_TRUE(adapters_->DeleteAdapter(&context, request, &response).ok());
    }
  }
  std::printf("%d reloads, %d stale answers, %d with a prefix found by content\n", kReloads, stale,
              hits);
  EXPECT_EQ(stale, 0);
  EXPECT_GT(hits, kReloads / 2) << "the prefix cache was off, and the test saw nothing";
}

// vLLM #38606: KV was corrupted when adapters took turns every 8 ms.
TEST_F(OtherServersBugsTest, AlternationEvery8MsCorruptedKv) {
  const StreamLoad::Options options{
      .num_streams = 8, .num_tokens = 64, .adapters = {"fr"}, .prompts = {"take turns"}};
  for (const char* folder : {"plain-qv", "all-linear"}) {
    Learn(folder, options.prompts[0], options.num_tokens);
    UploadTiny(folder, "fr");
  }
  StreamLoad load(server_->NewChannel(), options, &solo_);
  VersionCalls calls(adapters_.get());
  for (int i = 0; i < 500; ++i) {
    const absl::Time next = absl::Now() + absl::Milliseconds(8);
    ASSERT_TRUE(calls.Promote(absl::StrCat("name: 'fr' version: ", 1 + i % 2)).status.ok());
    absl::SleepFor(next - absl::Now());
  }
  load.Finish();
  const StreamCounts counts = load.counts();
  EXPECT_GT(counts.finished, 8);
  EXPECT_EQ(counts.failed + counts.dropped + counts.wrong + counts.unknown, 0)
      << counts.first_trouble;
}

// vLLM #13698, Triton #4844: a load in the middle of generations brought the server down.
TEST_F(OtherServersBugsTest, LoadDuringGenerationCrashed) {
  const StreamLoad::Options options{
      .num_streams = 8, .num_tokens = 64, .adapters = {"steady"}, .prompts = {"do not stop"}};
  Learn("rslora", options.prompts[0], options.num_tokens);
  UploadTiny("rslora", "steady");
  StreamLoad load(server_->NewChannel(), options, &solo_);
  std::vector<std::thread> uploaders;
  std::atomic<int> uploads = 0;
  for (int t = 0; t < 4; ++t) {
    uploaders.emplace_back([&, t] {
      for (int i = 0; i < 25; ++i) {
        const auto messages = UploadMessages(absl::StrCat("new-", t, "-", i),
                                             TinyAdapterFiles(i % 2 == 0 ? "patterns" : "rank-1"));
        v1::UploadAdapterResponse response;
        uploads += Upload(messages, &response).ok();
      }
    });
  }
  for (std::thread& uploader : uploaders) {
    uploader.join();
  }
  load.Finish();
  EXPECT_EQ(uploads, 100);
  const StreamCounts counts = load.counts();
  EXPECT_GT(counts.finished, 8);
  EXPECT_EQ(counts.failed + counts.dropped + counts.wrong + counts.unknown, 0)
      << counts.first_trouble;
}

// vLLM #47724: a request in flight was served with the adapter that somebody added meanwhile.
TEST_F(OtherServersBugsTest, TwoUploadsOfOneNameAtOnceWereOne) {
  std::vector<std::thread> uploaders;
  const std::vector<std::string> folders = {"plain-qv", "rslora", "all-linear", "rank-1"};
  std::vector<v1::UploadAdapterResponse> responses(folders.size());
  for (size_t i = 0; i < folders.size(); ++i) {
    uploaders.emplace_back([&, i] {
      EXPECT_TRUE(Upload(UploadMessages("fr", TinyAdapterFiles(folders[i])), &responses[i]).ok());
    });
  }
  for (std::thread& uploader : uploaders) {
    uploader.join();
  }
  std::vector<int64_t> versions;
  for (size_t i = 0; i < folders.size(); ++i) {
    versions.push_back(responses[i].adapter().version());
    const auto answer = Generate(
        absl::StrCat("prompt: 'a' adapter: 'fr@", versions[i], "' stopping { max_tokens: 1 }"));
    EXPECT_EQ(answer.samples(0).finish().adapters(0).digest(), responses[i].adapter().digest());
  }
  std::sort(versions.begin(), versions.end());
  EXPECT_THAT(versions, testing::ElementsAre(1, 2, 3, 4));
}

}  // namespace
}  // namespace tenon
