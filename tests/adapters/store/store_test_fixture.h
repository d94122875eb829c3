// What the tests of the store share: a fresh root folder and short ways to use a store.
#ifndef TENON_TESTS_ADAPTERS_STORE_STORE_TEST_FIXTURE_H_
#define TENON_TESTS_ADAPTERS_STORE_STORE_TEST_FIXTURE_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "adapters/base/status_macros.h"
#include "adapters/store/local_store.h"
#include "gtest/gtest.h"

namespace tenon {

using FileTexts = std::map<std::string, std::string>;

inline std::span<const std::byte> AsBytes(absl::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

inline std::string AsText(const FileBytes& file) {
  return std::string(reinterpret_cast<const char*>(file.bytes.data()), file.bytes.size());
}

/// A plausible small adapter whose weights are `weights`.
inline FileTexts AdapterFiles(const std::string& weights) {
  return {{"adapter_config.json", "{\"peft_type\":\"LORA\"}"},
          {"adapter_model.safetensors", weights}};
}

class StoreTest : public ::testing::Test {
 protected:
  static constexpr int64_t kMaxBytes = 1 << 20;

  StoreTest() {
    std::string pattern = ::testing::TempDir() + "/tenon-store-XXXXXX";
    root_ = mkdtemp(pattern.data());
    Reopen();
  }
  ~StoreTest() override {
    store_.reset();
    std::filesystem::remove_all(root_);
  }

  /// Closes the store and opens it again, as a restart does.
  void Reopen() {
    store_.reset();
    absl::StatusOr<std::unique_ptr<LocalAdapterStore>> store =
        LocalAdapterStore::Create(root_.string(), [this] { return now_; });
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  absl::StatusOr<std::unique_ptr<StagedUpload>> Stage(const FileTexts& files) {
    TENON_ASSIGN_OR_RETURN(std::unique_ptr<StagedUpload> upload, store_->Begin(kMaxBytes));
    for (const auto& [name, text] : files) {
      TENON_RETURN_IF_ERROR(upload->Append(name, AsBytes(text)));
    }
    TENON_RETURN_IF_ERROR(upload->Seal().status());
    return upload;
  }

  /// An upload without acceptance that moves `latest`, or what `order` says.
  absl::StatusOr<CommittedVersion> Commit(const std::string& tenant, const std::string& name,
                                          const FileTexts& files, const CommitOrder& order = {}) {
    TENON_ASSIGN_OR_RETURN(std::unique_ptr<StagedUpload> upload, Stage(files));
    AdapterInfo facts;
    facts.id = AdapterId{tenant, name, 0};
    return store_->Commit(std::move(upload), std::move(facts), order);
  }

  absl::StatusOr<AdapterInfo> Put(const std::string& tenant, const std::string& name,
                                  const FileTexts& files, bool* created = nullptr) {
    TENON_ASSIGN_OR_RETURN(CommittedVersion committed, Commit(tenant, name, files));
    if (created != nullptr) {
      *created = committed.created;
    }
    return std::move(committed.info);
  }

  /// With force: whatever points to it goes away.
  absl::Status Delete(const AdapterId& id) {
    std::vector<AliasMove> moves;
    TENON_ASSIGN_OR_RETURN(const AdapterName name, store_->Name(id.tenant, id.name));
    for (const auto& [alias, version] : name.pointers.aliases) {
      if (version == id.version) {
        moves.push_back({id.tenant, id.name, alias, 0, version, AliasAction::kDelete, "key:test"});
      }
    }
    return store_->Delete(id, moves, "key:test").status();
  }

  /// "acme/fr@1" for each quarantined version.
  std::vector<std::string> Quarantined() {
    std::vector<std::string> ids;
    const absl::StatusOr<std::vector<AdapterName>> names = store_->Names();
    EXPECT_TRUE(names.ok()) << names.status();
    for (const AdapterName& name : *names) {
      for (const auto& [version, reason] : name.quarantined) {
        ids.push_back(AdapterId{name.tenant, name.name, version}.ToString());
      }
    }
    return ids;
  }

  absl::StatusOr<FileTexts> Read(const AdapterId& id) {
    TENON_ASSIGN_OR_RETURN(const FileSet files, store_->Open(id));
    FileTexts texts;
    for (const auto& [name, file] : files) {
      texts[name] = AsText(file);
    }
    return texts;
  }

  /// The one blob whose content is `text`.
  std::filesystem::path BlobOf(const std::string& text) const {
    for (const auto& entry : std::filesystem::directory_iterator(blobs())) {
      std::ifstream file(entry.path(), std::ios::binary);
      std::ostringstream content;
      content << file.rdbuf();
      if (content.str() == text) {
        return entry.path();
      }
    }
    ADD_FAILURE() << "no blob holds " << text;
    return {};
  }

  static void Overwrite(const std::filesystem::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
  }

  static int64_t CountEntries(const std::filesystem::path& folder) {
    return std::distance(std::filesystem::directory_iterator(folder),
                         std::filesystem::directory_iterator());
  }

  std::filesystem::path blobs() const { return root_ / "blobs" / "sha256"; }
  std::filesystem::path tmp() const { return root_ / "tmp"; }

  absl::Time now_ = absl::FromUnixSeconds(1'700'000'000);
  std::filesystem::path root_;
  std::unique_ptr<LocalAdapterStore> store_;
};

}  // namespace tenon

#endif  // TENON_TESTS_ADAPTERS_STORE_STORE_TEST_FIXTURE_H_
