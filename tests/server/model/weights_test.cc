#include "server/model/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "tests/server/model/model_folder.h"

namespace tenon {
namespace {

using ::testing::HasSubstr;

const FloatTensors kTwo = {{"a", {{2, 2}, {1, 2, 3, 4}}}, {"b", {{3}, {5, 6, 7}}}};

std::unique_ptr<Checkpoint> Open(const ModelFolder& folder) {
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(folder.path());
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return checkpoint.ok() ? *std::move(checkpoint) : nullptr;
}

void ExpectOpenFails(const ModelFolder& folder, absl::StatusCode code, const std::string& text) {
  const absl::Status status = Checkpoint::Open(folder.path()).status();
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(text));
}

TEST(CheckpointTest, TensorsOutliveTheCheckpoint) {
  const ModelFolder folder;
  folder.WriteSafetensors("model.safetensors", kTwo);
  at::Tensor tensor;
  {
    const std::unique_ptr<Checkpoint> checkpoint = Open(folder);
    tensor = *checkpoint->Take("a", {2, 2});
  }
  EXPECT_EQ(tensor.scalar_type(), at::kFloat);
  EXPECT_EQ(tensor.const_data_ptr<float>()[3], 4.0f);
}

TEST(CheckpointTest, TensorsAreThereAfterTheirPagesWereDropped) {
  const ModelFolder folder;
  folder.WriteSafetensors("model.safetensors", kTwo);
  const std::unique_ptr<Checkpoint> checkpoint = Open(folder);
  const at::Tensor tensor = *checkpoint->Take("a", {2, 2});
  checkpoint->DropPages();
  EXPECT_EQ(tensor.const_data_ptr<float>()[3], 4.0f);
}

TEST(CheckpointTest, UnalignedTensorsAreCopied) {
  const ModelFolder folder;
  folder.WriteSafetensors("model.safetensors", kTwo, /*padding=*/1);
  const at::Tensor tensor = *Open(folder)->Take("b", {3});
  EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 4, 0u);
  EXPECT_EQ(tensor.const_data_ptr<float>()[2], 7.0f);
}

TEST(CheckpointTest, WrongNameAndShapeAreNamed) {
  const ModelFolder folder;
  folder.WriteSafetensors("model.safetensors", kTwo);
  const std::unique_ptr<Checkpoint> checkpoint = Open(folder);
  const absl::Status missing = checkpoint->Take("c", {1}).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("tensor c"));
  const absl::Status shape = checkpoint->Take("a", {4}).status();
  EXPECT_EQ(shape.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(shape.message()), HasSubstr("tensor a has shape [2, 2]"));
}

TEST(CheckpointTest, TensorsThatNobodyTookAreNamed) {
  const ModelFolder folder;
  FloatTensors tensors = kTwo;
  tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = {{1}, {1}};
  folder.WriteSafetensors("model.safetensors", tensors);
  const std::unique_ptr<Checkpoint> checkpoint = Open(folder);
  ASSERT_TRUE(checkpoint->Take("a", {2, 2}).ok());
  EXPECT_THAT(std::string(checkpoint->CheckAllTaken().message()), HasSubstr("tensor b"));
  ASSERT_TRUE(checkpoint->Take("b", {3}).ok());
  EXPECT_TRUE(checkpoint->CheckAllTaken().ok()) << checkpoint->CheckAllTaken();
}

TEST(CheckpointTest, ReadsTheShardsOfAnIndex) {
  const ModelFolder folder;
  folder.WriteSafetensors("m-1.safetensors", {{"a", kTwo.at("a")}});
  folder.WriteSafetensors("m-2.safetensors", {{"b", kTwo.at("b")}});
  folder.Write("model.safetensors.index.json",
               R"({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}})");
  const std::unique_ptr<Checkpoint> checkpoint = Open(folder);
  EXPECT_TRUE(checkpoint->Take("a", {2, 2}).ok());
  EXPECT_TRUE(checkpoint->Take("b", {3}).ok());
}

TEST(CheckpointTest, IndexThatDoesNotFitTheShardsIsInvalid) {
  const ModelFolder folder;
  ExpectOpenFails(folder, absl::StatusCode::kNotFound, "model.safetensors");
  folder.WriteSafetensors("m-1.safetensors", kTwo);
  folder.WriteSafetensors("m-2.safetensors", kTwo);
  const auto index = [&folder](const std::string& map) {
    folder.Write("model.safetensors.index.json", R"({"weight_map": )" + map + "}");
  };
  index(R"({"a": "../m-1.safetensors"})");
  ExpectOpenFails(folder, absl::StatusCode::kInvalidArgument, "tensor a");
  index(R"({"c": "m-1.safetensors"})");
  ExpectOpenFails(folder, absl::StatusCode::kInvalidArgument, "tensor c");
  index(R"({"a": "m-1.safetensors", "b": "m-2.safetensors"})");  // both hold both
  ExpectOpenFails(folder, absl::StatusCode::kInvalidArgument, "in another file");
  index(R"({"a": "gone.safetensors"})");
  ExpectOpenFails(folder, absl::StatusCode::kNotFound, "gone.safetensors");
  index("{}");
  ExpectOpenFails(folder, absl::StatusCode::kInvalidArgument, "weight_map");
}

TEST(CheckpointTest, DamagedFileIsInvalid) {
  const ModelFolder folder;
  for (const std::string& text : {std::string(), std::string("garbage"), std::string(8, '\xff')}) {
    folder.Write("model.safetensors", text);
    ExpectOpenFails(folder, absl::StatusCode::kInvalidArgument, "model.safetensors");
  }
}

TEST(CheckpointTest, DigestCoversEveryByte) {
  const ModelFolder folder;
  folder.WriteSafetensors("model.safetensors", kTwo);
  const std::string digest = Open(folder)->Digest("{}").value();
  EXPECT_EQ(digest.size(), 64u);
  EXPECT_EQ(Open(folder)->Digest("{}").value(), digest);
  EXPECT_NE(Open(folder)->Digest("{ }").value(), digest);
  FloatTensors changed = kTwo;
  changed["b"].values[2] = 7.5f;
  folder.WriteSafetensors("model.safetensors", changed);
  EXPECT_NE(Open(folder)->Digest("{}").value(), digest);
}

}  // namespace
}  // namespace tenon
