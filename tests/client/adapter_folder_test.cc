#include "client/cpp/adapter_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

class AdapterFolderTest : public ::testing::Test {
 protected:
  AdapterFolderTest() : path_(testing::TempDir() + "/adapter_folder_test") {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~AdapterFolderTest() override { std::filesystem::remove_all(path_); }

  void Write(const std::string& name, const std::string& text) {
    std::ofstream(path_ + "/" + name, std::ios::binary) << text;
  }

  std::string path_;
};

TEST_F(AdapterFolderTest, ReadsFilesInOrderAndInChunks) {
  Write("b", "12345");
  Write("a", "xy");
  const absl::StatusOr<AdapterFolder> folder = AdapterFolder::Open(path_);
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_EQ(folder->num_bytes(), 7);
  std::vector<std::pair<std::string, std::string>> chunks;
  ASSERT_TRUE(folder
                  ->Read(2,
                         [&](const std::string& name, absl::string_view chunk) {
                           chunks.emplace_back(name, std::string(chunk));
                           return true;
                         })
                  .ok());
  EXPECT_THAT(chunks,
              ElementsAre(Pair("a", "xy"), Pair("b", "12"), Pair("b", "34"), Pair("b", "5")));
}

TEST_F(AdapterFolderTest, DigestIsWhatSha256sumPrints) {
  Write("b", "12345");
  Write("a", "xy");
  const absl::StatusOr<AdapterFolder> folder = AdapterFolder::Open(path_);
  ASSERT_TRUE(folder.ok());
  const auto take = [](const std::string&, absl::string_view) { return true; };
  // cd <folder> && sha256sum * | sha256sum
  EXPECT_EQ(folder->Read(3, take).value(),
            "509efd310f8e0905ac86986d37404395be9504c401d61416ebc5e213eb4a0471");
}

TEST_F(AdapterFolderTest, EmptyFileIsOneEmptyChunk) {
  Write("a", "");
  const absl::StatusOr<AdapterFolder> folder = AdapterFolder::Open(path_);
  ASSERT_TRUE(folder.ok());
  std::vector<size_t> sizes;
  ASSERT_TRUE(folder
                  ->Read(2,
                         [&](const std::string&, absl::string_view chunk) {
                           sizes.push_back(chunk.size());
                           return true;
                         })
                  .ok());
  EXPECT_THAT(sizes, ElementsAre(0));
}

TEST_F(AdapterFolderTest, LeavesOutFoldersAndHiddenFiles) {
  Write("a", "x");
  Write(".hidden", "x");
  std::filesystem::create_directory(path_ + "/checkpoint-10");
  const absl::StatusOr<AdapterFolder> folder = AdapterFolder::Open(path_);
  ASSERT_TRUE(folder.ok());
  EXPECT_THAT(folder->file_names(), ElementsAre("a"));
}

TEST_F(AdapterFolderTest, StopsWhenTheReaderSaysSo) {
  Write("a", "xyz");
  const absl::StatusOr<AdapterFolder> folder = AdapterFolder::Open(path_);
  ASSERT_TRUE(folder.ok());
  int chunks = 0;
  const auto digest = folder->Read(1, [&](const std::string&, absl::string_view) {
    ++chunks;
    return false;
  });
  EXPECT_EQ(digest.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(chunks, 1);
}

TEST_F(AdapterFolderTest, MissingAndEmptyFoldersAreNamed) {
  const absl::Status missing = AdapterFolder::Open(path_ + "/none").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("/none"));
  EXPECT_EQ(AdapterFolder::Open(path_).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace tenon
