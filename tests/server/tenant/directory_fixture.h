// A TenantDirectory in a folder of its own, with a clock that the test moves.
#ifndef TENON_TESTS_SERVER_TENANT_DIRECTORY_FIXTURE_H_
#define TENON_TESTS_SERVER_TENANT_DIRECTORY_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "server/tenant/tenant_directory.h"

namespace tenon {

inline std::string ReasonOf(const absl::Status& status) {
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  return detail.has_value() ? detail->reason : "";
}

class DirectoryTest : public testing::Test {
 protected:
  DirectoryTest() {
    std::string pattern = absl::StrCat(testing::TempDir(), "/tenants-XXXXXX");
    folder_ = mkdtemp(pattern.data());
    Reopen();
  }
  ~DirectoryTest() override {
    directory_.reset();
    std::filesystem::remove_all(folder_);
  }

  /// As a process does that starts again.
  void Reopen() {
    directory_.reset();
    absl::StatusOr<ApiKeyHasher> hasher = ApiKeyHasher::Open(folder_ + "/pepper", DrawRandomBytes);
    ASSERT_TRUE(hasher.ok()) << hasher.status();
    absl::StatusOr<std::unique_ptr<TenantDirectory>> opened = TenantDirectory::Open(
        {folder_ + "/tenants.db", *std::move(hasher), [this] { return now_; }, DrawRandomBytes});
    ASSERT_TRUE(opened.ok()) << opened.status();
    directory_ = *std::move(opened);
  }

  IssuedKey MakeOperator() {
    auto key = directory_->CreateKey("", Role::kOperator, absl::InfiniteFuture(), "", source_);
    EXPECT_TRUE(key.ok()) << key.status();
    return *std::move(key);
  }
  IssuedKey MakeKey(const std::string& tenant, Role role = Role::kInference) {
    if (!directory_->has_keys()) {
      MakeOperator();
    }
    if (!directory_->Find(tenant).ok()) {
      EXPECT_TRUE(directory_->Create(tenant, {}, source_).ok());
    }
    auto key = directory_->CreateKey(tenant, role, absl::InfiniteFuture(), "", source_);
    EXPECT_TRUE(key.ok()) << key.status();
    return *std::move(key);
  }
  absl::Status Try(const std::string& text) { return directory_->AuthenticateKey(text).status(); }

  std::string folder_;
  absl::Time now_ = absl::FromUnixSeconds(1'800'000'000);
  AuditSource source_{"key:root", "unix:", "Test"};
  std::unique_ptr<TenantDirectory> directory_;
};

}  // namespace tenon

#endif  // TENON_TESTS_SERVER_TENANT_DIRECTORY_FIXTURE_H_
