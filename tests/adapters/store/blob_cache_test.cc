#include "adapters/store/blob_cache.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "adapters/base/sha256.h"

namespace tenon {
namespace {

std::string Sha256Of(const std::string& text) {
  Sha256 hash;
  hash.Update(text);
  return hash.HexDigest();
}

class BlobCacheTest : public testing::Test {
 protected:
  BlobCacheTest() {
    std::string pattern = testing::TempDir() + "/tenon-blobs-XXXXXX";
    root_ = mkdtemp(pattern.data());
    for (const char* name : {"blobs", "tmp"}) {
      std::filesystem::create_directories(root_ / name);
    }
    blobs_ = *OpenDirectory(AT_FDCWD, (root_ / "blobs").string(), "test");
    tmp_ = *OpenDirectory(AT_FDCWD, (root_ / "tmp").string(), "test");
    Reopen(100);
  }
  ~BlobCacheTest() override { std::filesystem::remove_all(root_); }

  void Reopen(int64_t max_bytes) {
    cache_ = *BlobCache::Create(blobs_.get(), tmp_.get(), max_bytes);
  }
  absl::StatusOr<std::string> Open(const std::string& sha256, const std::string& brought) {
    const absl::StatusOr<FileBytes> bytes = cache_->Open(sha256, [&](int fd) {
      ++num_fetches_;
      return WriteAll(fd, std::as_bytes(std::span(brought.data(), brought.size())), "test");
    });
    if (!bytes.ok()) {
      return bytes.status();
    }
    return std::string(reinterpret_cast<const char*>(bytes->bytes.data()), bytes->bytes.size());
  }
  absl::StatusOr<std::string> Open(const std::string& text) { return Open(Sha256Of(text), text); }

  std::filesystem::path root_;
  UniqueFd blobs_, tmp_;
  std::unique_ptr<BlobCache> cache_;
  std::atomic<int> num_fetches_ = 0;
};

TEST_F(BlobCacheTest, FetchesOnceAndKeepsItOverARestart) {
  EXPECT_EQ(*Open("content"), "content");
  EXPECT_EQ(*Open("content"), "content");
  Reopen(100);
  EXPECT_EQ(*Open("content"), "content");
  EXPECT_EQ(num_fetches_, 1);
  EXPECT_EQ(cache_->num_bytes(), 7);
}

TEST_F(BlobCacheTest, WrongBytesAreNeitherGivenNorKept) {
  EXPECT_EQ(Open(Sha256Of("good"), "evil").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(cache_->Contains(Sha256Of("good")));
  EXPECT_EQ(*Open("good"), "good");
}

TEST_F(BlobCacheTest, FailedFetchLeavesNothing) {
  const auto failed =
      cache_->Open(Sha256Of("a"), [](int) { return absl::UnavailableError("down"); });
  EXPECT_EQ(failed.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(std::filesystem::is_empty(root_ / "tmp"));
  EXPECT_TRUE(std::filesystem::is_empty(root_ / "blobs"));
}

TEST_F(BlobCacheTest, RottenCopyIsFetchedAnew) {
  EXPECT_EQ(*Open("content"), "content");
  std::ofstream(root_ / "blobs" / Sha256Of("content"), std::ios::trunc) << "rot";
  EXPECT_EQ(*Open("content"), "content");
  EXPECT_EQ(num_fetches_, 2);
}

TEST_F(BlobCacheTest, OverTheBudgetTheLongestUnusedGoesAndWhatIsMappedStays) {
  const std::string a(40, 'a'), b(40, 'b'), c(40, 'c');
  const auto mapped = cache_->Open(Sha256Of(a), [&](int fd) {
    return WriteAll(fd, std::as_bytes(std::span(a.data(), a.size())), "test");
  });
  ASSERT_TRUE(mapped.ok());
  EXPECT_EQ(*Open(b), b);
  EXPECT_EQ(*Open(a), a);  // used again: b is the oldest now
  EXPECT_EQ(*Open(c), c);
  EXPECT_TRUE(cache_->Contains(Sha256Of(a)));
  EXPECT_FALSE(cache_->Contains(Sha256Of(b)));
  EXPECT_EQ(*Open(b), b);
  EXPECT_FALSE(cache_->Contains(Sha256Of(a)));
  EXPECT_EQ(static_cast<char>(mapped->bytes[39]), 'a');
  EXPECT_LE(cache_->num_bytes(), 100);
}

TEST_F(BlobCacheTest, OneThatIsLargerThanTheBudgetIsServedAllTheSame) {
  const std::string large(1000, 'x');
  EXPECT_EQ(*Open(large), large);
}

TEST_F(BlobCacheTest, ManyWhoWaitForOneBlobFetchItOnce) {
  std::vector<std::thread> readers;
  for (int i = 0; i < 16; ++i) {
    readers.emplace_back([&] { EXPECT_EQ(*Open("content"), "content"); });
  }
  for (std::thread& reader : readers) {
    reader.join();
  }
  EXPECT_EQ(num_fetches_, 1);
}

}  // namespace
}  // namespace tenon
