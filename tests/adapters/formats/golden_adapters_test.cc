// Reads adapter folders that PEFT itself wrote (tests/golden/make_goldens.py).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "adapters/formats/parse_adapter.h"
#include "tests/adapters/formats/safetensors_builder.h"
#include "tests/source_dir.h"

namespace tenon {
namespace {

namespace fs = std::filesystem;

FileSet ReadFolder(const fs::path& folder) {
  std::vector<std::pair<std::string, std::string>> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    std::ostringstream content;
    content << std::ifstream(entry.path(), std::ios::binary).rdbuf();
    files.emplace_back(entry.path().filename().string(), content.str());
  }
  return testing::MakeFileSet(std::move(files));
}

fs::path GoldenData() { return SourcePath("tests/golden/data"); }

AdapterSpec ParseGolden(const char* name) {
  auto spec =
      ParseAdapter(ReadFolder(GoldenData() / "tiny-llama/adapters" / name), AdapterLimits());
  EXPECT_TRUE(spec.ok()) << name << ": " << spec.status();
  return *std::move(spec);
}

const LoraModule* Find(const AdapterSpec& spec, absl::string_view module) {
  for (const LoraModule& lora : std::get<LoraSpec>(spec.body).modules) {
    if (lora.module == module) {
      return &lora;
    }
  }
  return nullptr;
}

TEST(GoldenAdaptersTest, EveryFolderParses) {
  int folders = 0;
  for (const auto& entry : fs::recursive_directory_iterator(GoldenData())) {
    if (entry.path().filename() == "adapter_config.json") {
      const auto spec = ParseAdapter(ReadFolder(entry.path().parent_path()), AdapterLimits());
      EXPECT_TRUE(spec.ok()) << entry.path() << ": " << spec.status();
      ++folders;
    }
  }
  EXPECT_GE(folders, 400);
}

TEST(GoldenAdaptersTest, MatrixFoldersAreOfTheirMethods) {
  const std::pair<const char*, const char*> methods[] = {
      {"peft/adapters/lora-dora-rslora", "DORA"},
      {"peft/adapters/ia3", "IA3"},
      {"peft/adapters/prompt-tuning", "PROMPT_TUNING"},
      {"peft/adapters/p-tuning-lstm", "P_TUNING"},
      {"peft/adapters/prefix-tuning-projection", "PREFIX_TUNING"},
      {"peft/adapters/vera", "VERA"},
      {"peft/adapters/loha-patterns", "LOHA"},
      {"peft/adapters/lokr-decompose-both", "LOKR"},
      {"peft/adapters/trainable-tokens", "TRAINABLE_TOKENS"},
      {"adapterhub/adapters/double_seq_bn", "BOTTLENECK"},
      {"adapterhub/adapters/lora-everywhere", "LORA"},
      {"adapterhub/adapters/ia3-output", "IA3"}};
  for (const auto& [folder, method] : methods) {
    const auto spec =
        ParseAdapter(ReadFolder(GoldenData() / "matrix/gemma2" / folder), AdapterLimits());
    ASSERT_TRUE(spec.ok()) << folder << ": " << spec.status();
    EXPECT_EQ(spec->method, method) << folder;
  }
}

TEST(GoldenAdaptersTest, PlainAdapterHasNoWarnings) {
  const AdapterSpec spec = ParseGolden("plain-qv");
  EXPECT_EQ(spec.method, "LORA");
  EXPECT_THAT(spec.warnings, ::testing::IsEmpty());
}

TEST(GoldenAdaptersTest, RsLoraIsTold) { EXPECT_EQ(ParseGolden("rslora").method, "RSLORA"); }

TEST(GoldenAdaptersTest, FanInFanOutOnlyWarns) {
  const AdapterSpec spec = ParseGolden("fan-in-fan-out");
  EXPECT_NE(Find(spec, "model.layers.0.self_attn.q_proj"), nullptr);
}

}  // namespace
}  // namespace tenon
