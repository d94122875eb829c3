#include "server/tenant/usage_ledger.h"

#include <fstream>
#include <sstream>

#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"
#include "server/tenant/file_watch.h"
#include "tests/server/tenant/directory_fixture.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class UsageLedgerTest : public DirectoryTest {
 protected:
  std::unique_ptr<UsageLedger> Open(absl::Duration interval = absl::Hours(1)) {
    UsageLedger::Options options;
    options.path = folder_ + "/usage.jsonl";
    options.flush_interval = interval;
    options.max_waiting_lines = 3;
    options.clock = [this] { return now_; };
    auto ledger = UsageLedger::Open(std::move(options), directory_.get());
    EXPECT_TRUE(ledger.ok()) << ledger.status();
    return *std::move(ledger);
  }
  static UsageEvent Event(const std::string& tenant, const std::string& adapter) {
    UsageEvent event;
    event.request_id = "r\"1";
    event.tenant = tenant;
    event.credential = "key:00";
    event.adapter = adapter;
    event.version = 3;
    event.outcome = "ok";
    event.totals = {1, 10, 4, 6};
    event.elapsed = absl::Milliseconds(1500);
    return event;
  }
  std::vector<std::string> Lines() const {
    std::ifstream file(folder_ + "/usage.jsonl");
    std::ostringstream text;
    text << file.rdbuf();
    return absl::StrSplit(text.str(), '\n', absl::SkipEmpty());
  }
};

TEST_F(UsageLedgerTest, SumsAreThereAtOnceAndByAdapter) {
  const auto ledger = Open();
  ledger->Add(Event("acme", "fr"));
  ledger->Add(Event("acme", "fr"));
  ledger->Add(Event("acme", ""));
  ledger->Add(Event("acme2", "fr"));
  const std::vector<UsageRecord> usage = ledger->Read("acme");
  ASSERT_EQ(usage.size(), 2u);
  EXPECT_EQ(usage[0].adapter, "");
  EXPECT_EQ(usage[1].totals, (UsageTotals{2, 20, 8, 12}));
  EXPECT_THAT(ledger->Read("acm"), IsEmpty());
}

TEST_F(UsageLedgerTest, SumsOutliveTheProcess) {
  Open()->Add(Event("acme", "fr"));
  Reopen();
  const auto ledger = Open();
  ledger->Add(Event("acme", "fr"));
  EXPECT_EQ(ledger->Read("acme")[0].totals, (UsageTotals{2, 20, 8, 12}));
}

TEST_F(UsageLedgerTest, LinesAreJsonAndAppended) {
  Open()->Add(Event("acme", "fr"));
  Open()->Add(Event("globex", ""));
  const std::vector<std::string> lines = Lines();
  ASSERT_EQ(lines.size(), 2u);
  const nlohmann::json line = nlohmann::json::parse(lines[0]);
  EXPECT_EQ(line["time"], "2027-01-15T08:00:00.000Z");
  EXPECT_EQ(line["request_id"], "r\"1");
  EXPECT_EQ(line["tenant"], "acme");
  EXPECT_EQ(line["version"], 3);
  EXPECT_EQ(line["cached_prompt_tokens"], 4);
  EXPECT_EQ(line["elapsed_ms"], 1500);
  EXPECT_EQ(nlohmann::json::parse(lines[1])["tenant"], "globex");
}

TEST_F(UsageLedgerTest, LinesOverTheBoundAreDroppedAndSumsAreNot) {
  {
    const auto ledger = Open();
    for (int i = 0; i < 5; ++i) {
      ledger->Add(Event("acme", "fr"));
    }
    EXPECT_EQ(ledger->Read("acme")[0].totals.requests, 5);
  }
  EXPECT_EQ(Lines().size(), 3u);
  EXPECT_EQ((*directory_->LoadUsage())[0].totals.requests, 5);
}

TEST_F(UsageLedgerTest, DeviceTimeMemoryAndLoadsAreSums) {
  UsageEvent event = Event("acme", "fr");
  event.totals.device_seconds = 0.25;
  {
    const auto ledger = Open();
    ledger->Add(event);
    ledger->Add(event);
    ledger->AddTotals({"acme", "fr", {.adapter_byte_seconds = 1e12, .loads = 1}});
  }
  Reopen();
  const UsageTotals totals = Open()->Read("acme")[0].totals;
  EXPECT_EQ(totals.requests, 2) << "memory is no request";
  EXPECT_EQ(totals.device_seconds, 0.5);
  EXPECT_EQ(totals.adapter_byte_seconds, 1e12);
  EXPECT_EQ(totals.loads, 1);
  EXPECT_EQ(nlohmann::json::parse(Lines()[0])["device_ms"], 250);
}

TEST_F(UsageLedgerTest, BucketsAreKeptWithTheSums) {
  const BucketRecord bucket{"acme", 1.5, -20, now_, now_ - absl::Seconds(1)};
  UsageLedger::Options options;
  options.flush_interval = absl::Hours(1);
  options.clock = [this] { return now_; };
  int num_flushes = 0;
  options.take_buckets = [&] { return std::vector<BucketRecord>{bucket}; };
  {
    auto ledger = UsageLedger::Open(std::move(options), directory_.get());
    ASSERT_TRUE(ledger.ok()) << ledger.status();
    (*ledger)->set_before_flush([&](UsageLedger& flushed) {
      ++num_flushes;
      flushed.AddTotals({"acme", "", {.loads = 1}});
    });
  }
  EXPECT_EQ(num_flushes, 1);
  EXPECT_EQ((*directory_->LoadUsage())[0].totals.loads, 1);
  Reopen();
  const auto loaded = directory_->LoadBuckets();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  ASSERT_EQ(loaded->size(), 1u);
  EXPECT_EQ((*loaded)[0].tenant, "acme");
  EXPECT_EQ((*loaded)[0].requests, 1.5);
  EXPECT_EQ((*loaded)[0].tokens, -20);
  EXPECT_EQ((*loaded)[0].requests_time, now_);
  EXPECT_EQ((*loaded)[0].tokens_time, now_ - absl::Seconds(1));
}

TEST_F(UsageLedgerTest, FolderThatIsNotThereIsSaid) {
  UsageLedger::Options options;
  options.path = folder_ + "/missing/usage.jsonl";
  EXPECT_EQ(UsageLedger::Open(std::move(options), directory_.get()).status().code(),
            absl::StatusCode::kUnavailable);
}

// What a watch has told, in order.
class FileWatchTest : public testing::Test {
 protected:
  FileWatchTest() {
    std::string pattern = absl::StrCat(testing::TempDir(), "/watch-XXXXXX");
    folder_ = mkdtemp(pattern.data());
  }
  ~FileWatchTest() override {
    watch_.reset();
    std::filesystem::remove_all(folder_);
  }

  void Watch(const std::string& path, const std::string& known) {
    auto watch = FileWatch::Start(path, known, [this](const absl::StatusOr<std::string>& content) {
      absl::MutexLock lock(&mutex_);
      told_.push_back(content.ok() ? *content : "(unreadable)");
    });
    ASSERT_TRUE(watch.ok()) << watch.status();
    watch_ = *std::move(watch);
  }
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name) << text;
  }
  std::vector<std::string> Await(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [&]()
                            ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return told_.size() >= count; };
    mutex_.AwaitWithTimeout(absl::Condition(&enough), absl::Seconds(20));
    return told_;
  }

  std::string folder_;
  absl::Mutex mutex_;
  std::vector<std::string> told_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<FileWatch> watch_;
};

TEST_F(FileWatchTest, TellsOfAFileThatIsReplacedByRename) {
  Write("a", "one");
  Watch(folder_ + "/a", "one");
  Write("b", "two");
  std::filesystem::rename(folder_ + "/b", folder_ + "/a");
  EXPECT_THAT(Await(1), ElementsAre("two"));
}

TEST_F(FileWatchTest, TellsWhenTheLinkOfAMountedSecretIsSwitched) {
  for (const char* version : {"v1", "v2"}) {
    std::filesystem::create_directory(folder_ + "/" + version);
    Write(absl::StrCat(version, "/keys"), version);
  }
  std::filesystem::create_symlink("v1", folder_ + "/data");
  std::filesystem::create_symlink("data/keys", folder_ + "/keys");
  Watch(folder_ + "/keys", "v1");
  std::filesystem::create_symlink("v2", folder_ + "/data.new");
  std::filesystem::rename(folder_ + "/data.new", folder_ + "/data");
  EXPECT_THAT(Await(1), ElementsAre("v2"));
}

TEST_F(FileWatchTest, TellsOfWhatChangedBeforeItBegan) {
  Write("a", "two");
  Watch(folder_ + "/a", "one");
  EXPECT_THAT(Await(1), ElementsAre("two"));
}

TEST_F(FileWatchTest, TellsOfAFileThatGoes) {
  Write("a", "one");
  Watch(folder_ + "/a", "one");
  std::filesystem::remove(folder_ + "/a");
  EXPECT_THAT(Await(1), ElementsAre("(unreadable)"));
}

}  // namespace
}  // namespace tenon
