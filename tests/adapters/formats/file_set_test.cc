#include "adapters/formats/file_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "adapters/base/errors.h"

namespace tenon {
namespace {

using ::testing::HasSubstr;

TEST(FileSetTest, AcceptsWhatSavePretrainedWrites) {
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors", "README.md",
                           "adapter.safetensors", "head_config.json", "tokenizer.json"}) {
    EXPECT_TRUE(IsAdapterFileName(name)) << name;
    EXPECT_TRUE(CheckAdapterFileName(name).ok()) << name;
  }
}

TEST(FileSetTest, PicklesAreRefusedWithTheWayOut) {
  for (const char* name :
       {"adapter_model.bin", "pytorch_adapter.bin", "training_args.bin", "x.pt"}) {
    const absl::Status status = CheckAdapterFileName(name);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr("safe_serialization=True")) << name;
    EXPECT_EQ(GetErrorDetail(status)->reason, "UNSAFE_FILE") << name;
  }
}

TEST(FileSetTest, EverythingElseIsUnknown) {
  for (const std::string& name :
       std::vector<std::string>{"", "../adapter_config.json", "a/adapter_config.json",
                                "adapter_config.json/", std::string("adapter_config.json\0", 20),
                                "ADAPTER_CONFIG.JSON", "adapter.zip", std::string(300, 'a')}) {
    EXPECT_FALSE(IsAdapterFileName(name)) << name;
    const absl::Status status = CheckAdapterFileName(name);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(GetErrorDetail(status)->reason, "UNKNOWN_FILE") << name;
    EXPECT_LT(status.message().size(), 400u) << name;
  }
}

}  // namespace
}  // namespace tenon
