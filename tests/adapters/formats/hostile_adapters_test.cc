// Uploads that must be refused: what an attacker or a broken script sends. Each is refused with
// INVALID_ARGUMENT and a message that names the thing, the value or the limit.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iostream>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "adapters/base/errors.h"
#include "adapters/formats/parse_adapter.h"
#include "tests/adapters/formats/adapter_fixture.h"
#include "tests/adapters/formats/cpu_time.h"
#include "tests/adapters/formats/hostile_corpus.h"

namespace tenon {
namespace {

using ::tenon::testing::AddLora;
using ::tenon::testing::HostileFolder;
using ::tenon::testing::HostileFolders;
using ::tenon::testing::PeftConfig;
using ::tenon::testing::PeftFolder;
using ::tenon::testing::PeftWeights;
using ::tenon::testing::SafetensorsBuilder;
using ::tenon::testing::ThreadCpuTime;
using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

void ExpectRefused(const HostileFolder& hostile) {
  const absl::Duration start = ThreadCpuTime();
  const auto spec = ParseAdapter(hostile.files, AdapterLimits());
  EXPECT_LT(ThreadCpuTime() - start, absl::Milliseconds(500)) << hostile.what;
  EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument) << hostile.what;
  const std::string message(spec.status().message());
  EXPECT_THAT(message, HasSubstr(hostile.message)) << hostile.what;
  EXPECT_LT(message.size(), 1000u) << hostile.what;
  for (const char c : message) {
    ASSERT_TRUE(c >= ' ' && c <= '~') << hostile.what;
  }
  EXPECT_TRUE(GetErrorDetail(spec.status()).has_value()) << hostile.what;
}

TEST(HostileAdaptersTest, TheUnchangedFolderParses) {
  const auto spec =
      ParseAdapter(PeftFolder(PeftConfig().dump(), PeftWeights().Build()), AdapterLimits());
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(std::get<LoraSpec>(spec->body).modules.size(), 4u);
  EXPECT_THAT(spec->warnings, ::testing::IsEmpty());
}

TEST(HostileAdaptersTest, TheWholeCorpusIsRefused) {
  const std::vector<HostileFolder> corpus = HostileFolders();
  for (const HostileFolder& hostile : corpus) {
    ExpectRefused(hostile);
  }
  std::cout << corpus.size() << " hostile folders refused\n";
  EXPECT_GE(corpus.size(), 60u);
}

TEST(HostileAdaptersTest, UploadLimitCountsAllFiles) {
  const FileSet files = PeftFolder(PeftConfig().dump(), PeftWeights().Build());
  AdapterLimits limits;
  limits.max_upload_bytes = 0;
  for (const auto& [name, file] : files) {
    limits.max_upload_bytes += static_cast<int64_t>(file.bytes.size());
  }
  EXPECT_TRUE(ParseAdapter(files, limits).ok());
  limits.max_upload_bytes -= 1;
  EXPECT_THAT(std::string(ParseAdapter(files, limits).status().message()),
              HasSubstr("(max_upload_bytes)"));
}

TEST(HostileAdaptersTest, CostlyPatternsAreRefusedBeforeTheyAreMatched) {
  Json config = PeftConfig();
  config["target_modules"] = "all-linear";
  for (int i = 0; i < 300; ++i) {
    config["alpha_pattern"][absl::StrCat("(.*a){50}", i)] = 1;
  }
  SafetensorsBuilder weights;
  for (int i = 0; i < 2000; ++i) {
    AddLora(weights, absl::StrCat(std::string(200, 'a'), i), 2);
  }
  const absl::Duration start = ThreadCpuTime();
  const auto spec = ParseAdapter(PeftFolder(config.dump(), weights.Build()), AdapterLimits());
  EXPECT_THAT(std::string(spec.status().message()), HasSubstr("too costly to match"));
  EXPECT_LT(ThreadCpuTime() - start, absl::Seconds(2));
}

}  // namespace
}  // namespace tenon
