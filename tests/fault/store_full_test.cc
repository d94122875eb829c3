// A store whose disk is full: uploads and promotions are refused, generation goes on, and all is
// well again when there is room, without a restart. Skipped where a tmpfs cannot be mounted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/integration/server_fixture.h"
#include "tests/integration/version_calls.h"

namespace tenon {
namespace {

constexpr int kDiskBytes = 2 << 20;

class StoreFullTest : public ServerTest {
 protected:
  void SetUp() override {
    disk_ = folder_.path() + "/store";
    std::filesystem::create_directory(disk_);
    if (mount("tmpfs", disk_.c_str(), "tmpfs", 0, absl::StrCat("size=", kDiskBytes).c_str()) != 0) {
      GTEST_SKIP() << "no tmpfs may be mounted here";
    }
    mounted_ = true;
    Start();
  }
  void TearDown() override {
    server_.reset();
    if (mounted_) {
      umount2(disk_.c_str(), MNT_DETACH);
    }
  }

  // Takes every byte that is left.
  void Fill() {
    std::ofstream filler(disk_ + "/filler", std::ios::binary);
    const std::string page(4096, 'f');
    while (filler.write(page.data(), static_cast<std::streamsize>(page.size())).flush()) {
    }
  }
  void MakeRoom() { std::filesystem::remove(disk_ + "/filler"); }

  grpc::Status UploadStatus(const std::string& folder) {
    v1::UploadAdapterResponse response;
    return Upload(UploadMessages("fr", TinyAdapterFiles(folder)), &response);
  }
  bool Serves(const std::string& adapter) {
    return StatusOf(absl::StrCat("prompt: 'a' adapter: '", adapter,
                                 "' stopping { max_tokens: 4 ignore_eos: true }"))
        .ok();
  }

  std::string disk_;
  bool mounted_ = false;
};

TEST_F(StoreFullTest, UploadsAreRefusedServingGoesOnAndRoomHealsIt) {
  UploadTiny("plain-qv", "fr");
  UploadTiny("rslora", "fr");
  Fill();
  int refused = 0, served = 0;
  for (const char* folder : {"all-linear", "mlp-rank-16", "patterns", "rank-3"}) {
    const grpc::Status status = UploadStatus(folder);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
    refused += !status.ok();
    served += Serves("fr") + Serves("fr@1");
  }
  // A promotion takes a page of the log: it is refused, or it was written whole.
  VersionCalls calls(adapters_.get());
  const auto promoted = calls.Promote("name: 'fr' version: 1 expected_version: 2");
  EXPECT_TRUE(promoted.status.ok() ||
              promoted.status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED)
      << promoted.status.error_message();
  const int64_t latest = promoted.status.ok() ? 1 : 2;
  EXPECT_EQ(calls.Get("fr").response.adapter().version(), latest);
  std::printf("disk full: %d uploads refused, %d of 8 requests served, promotion %s\n", refused,
              served, promoted.status.ok() ? "written" : "refused");
  EXPECT_EQ(served, 8);

  MakeRoom();
  const absl::Time freed = absl::Now();
  EXPECT_TRUE(UploadStatus("all-linear").ok());
  EXPECT_TRUE(calls.Promote("name: 'fr' version: 1").status.ok());
  std::printf("recovered %ld ms after there was room\n",
              absl::ToInt64Milliseconds(absl::Now() - freed));
  EXPECT_LT(absl::Now() - freed, absl::Seconds(5));
  EXPECT_EQ(List().size(), 3u);
  server_->Signal(SIGKILL);
  server_->Wait();
  Start();
  EXPECT_EQ(List().size(), 3u);
  EXPECT_TRUE(Serves("fr"));
  EXPECT_EQ(VersionCalls(adapters_.get()).Get("fr").response.adapter().version(), 1);
}

TEST_F(StoreFullTest, DeletionMakesRoomOnAFullDisk) {
  UploadTiny("plain-qv", "fr");
  UploadTiny("rslora", "fr");
  Fill();
  VersionCalls calls(adapters_.get());
  const grpc::Status deleted = calls.Delete("adapter: 'fr@1'").status;
  EXPECT_TRUE(deleted.ok() || deleted.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED)
      << deleted.error_message();
  EXPECT_TRUE(Serves("fr"));
  MakeRoom();
  EXPECT_TRUE(deleted.ok() || calls.Delete("adapter: 'fr@1'").status.ok());
  EXPECT_EQ(List().size(), 1u);
}

}  // namespace
}  // namespace tenon
