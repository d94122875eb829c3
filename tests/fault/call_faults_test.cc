// Every call that a change of the store makes to the disk, failed in turn, in the real server while
// streams run: each call with EIO and with ENOSPC, each write cut short, and cut short by a full
// disk. The server lives on, the change is made or refused with a reason, a second try succeeds,
// and after a kill the store is what was acknowledged.
#include "tests/fault/call_faults.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "adapters/base/sha256.h"
#include "tenon/v1/residency.grpc.pb.h"
#include "tests/fault/stream_load.h"
#include "tests/integration/server_fixture.h"
#include "tests/integration/version_calls.h"

namespace tenon {
namespace {

using Files = std::map<std::string, std::string>;

constexpr int32_t kTokens = 32;
constexpr char kPrompt[] = "hello";
constexpr int kKeepEvery = 8;  // of the uploads that a fault met, to be found again after the kill

// `files` with spaces at the end of the weights' header: other bytes, the same tensors.
Files Padded(Files files, size_t number) {
  std::string& bytes = files.at("adapter_model.safetensors");
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof(header));
  bytes.insert(sizeof(header) + header, std::string(8 * number, ' '));
  header += 8 * number;
  std::memcpy(bytes.data(), &header, sizeof(header));
  return files;
}

std::string HexSha256(const std::string& bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.HexDigest();
}

std::string NameOf(int32_t error) {
  return error == kShortWrite      ? "short"
         : error == kShortThenFull ? "short+ENOSPC"
                                   : strerrorname_np(error);
}

// What was acknowledged: the files of each version, and which is served under the name.
struct Acknowledged {
  std::map<std::pair<std::string, int64_t>, Files> versions;
  std::map<std::string, int64_t> latest;
  std::set<std::string> pinned;  // "name@version"
  std::set<std::string> never_merged;

  std::set<std::string> Lines() const {
    std::set<std::string> lines;
    for (const std::string& id : pinned) {
      lines.insert(absl::StrCat(id, " pinned"));
    }
    for (const std::string& id : never_merged) {
      lines.insert(absl::StrCat(id, " never merged"));
    }
    for (const auto& [id, files] : versions) {
      lines.insert(absl::StrCat(id.first, "@", id.second,
                                latest.at(id.first) == id.second ? " latest" : ""));
    }
    return lines;
  }
  std::set<std::string> Blobs() const {
    std::set<std::string> blobs;
    for (const auto& [id, files] : versions) {
      for (const auto& [name, bytes] : files) {
        blobs.insert(HexSha256(bytes));
      }
    }
    return blobs;
  }
};

// A change that is tried with a fault. `prepare` makes it possible, `call` tries it, `apply` notes
// that it was acknowledged, `tidy` keeps the store small.
struct Change {
  std::string name;
  std::function<void()> prepare;
  std::function<grpc::Status()> call;
  std::function<void()> apply;
  std::function<void()> tidy = [] {};
};

struct Tally {
  int points = 0;
  int refused = 0;
};

class CallFaultsTest : public ServerTest {
 protected:
  using ResidencyStub = v1::ResidencyService::Stub;

  void SetUp() override {
    store_ = absl::StrCat(std::filesystem::canonical(folder_.path()).string(), "/store");
    std::filesystem::create_directory(store_);
    MapControl();
    Restart();
    base_ = TinyAdapterFiles("plain-qv");
    other_ = TinyAdapterFiles("rslora");
    for (const char* name : {"left", "right", "turn"}) {
      ASSERT_TRUE(Publish(name, base_).ok());
    }
    ASSERT_TRUE(Publish("turn", other_).ok());
    const std::vector<v1::Adapter> list = List();
    for (const v1::Adapter& adapter : list) {
      const std::string id = absl::StrCat(adapter.name(), "@", adapter.version());
      solo_[{adapter.digest(), kPrompt}] = StreamLoad::Ask(*generation_, id, kPrompt, kTokens);
    }
    tokens_ = StreamLoad::Ask(*generation_, "left", kPrompt, kTokens);
    ASSERT_EQ(tokens_.size(), static_cast<size_t>(kTokens));
  }
  void TearDown() override {
    server_.reset();
    munmap(control_, sizeof(FaultControl));
  }

  void MapControl() {
    control_file_ = folder_.path() + "/faults";
    std::ofstream(control_file_) << std::string(sizeof(FaultControl), '\0');
    const int fd = open(control_file_.c_str(), O_RDWR | O_CLOEXEC);
    void* const address =
        mmap(nullptr, sizeof(FaultControl), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    ASSERT_NE(address, MAP_FAILED);
    control_ = static_cast<FaultControl*>(address);
    std::strncpy(control_->folder, store_.c_str(), sizeof(control_->folder) - 1);
  }

  // The server with the library before its own, and nothing that writes by the clock.
  void Restart() {
    setenv(kFaultFileVariable, control_file_.c_str(), 1);
    setenv("LD_PRELOAD", TENON_CALL_FAULTS_LIBRARY, 1);
    Start({"--usage-flush-interval=1h", "--max-adapters=100000"});
    unsetenv("LD_PRELOAD");
    residency_ = v1::ResidencyService::NewStub(channel_);
  }
  void KillAndRestart() {
    server_->Signal(SIGKILL);
    server_->Wait();
    Restart();
  }

  grpc::Status Publish(const std::string& name, const Files& files) {
    uploaded_.Clear();
    const grpc::Status status = Upload(UploadMessages(name, files, 4096), &uploaded_);
    if (status.ok()) {
      NoteUpload(name, files);
    }
    return status;
  }
  void NoteUpload(const std::string& name, const Files& files) {
    const int64_t version = uploaded_.adapter().version();
    acknowledged_.versions[{name, version}] = files;
    acknowledged_.latest[name] = version;
  }
  grpc::Status Delete(const std::string& name) {
    return calls().Delete(absl::StrCat("adapter: '", name, "'")).status;
  }
  void NoteDelete(const std::string& name) {
    std::erase_if(acknowledged_.versions,
                  [&](const auto& entry) { return entry.first.first == name; });
    acknowledged_.latest.erase(name);
  }
  VersionCalls calls() { return VersionCalls(adapters_.get()); }

  // What the server says that it has.
  std::set<std::string> Listed() {
    std::set<std::string> lines;
    v1::ListAdaptersRequest request;
    request.set_page_size(1000);
    grpc::ClientContext context;
    v1::ListAdaptersResponse response;
    EXPECT_TRUE(adapters_->ListAdapters(&context, request, &response).ok());
    for (const v1::Adapter& adapter : response.adapters()) {
      if (adapter.state() == v1::ADAPTER_STATE_LIVE) {
        lines.insert(absl::StrCat(adapter.name(), "@", adapter.version(),
                                  adapter.latest() ? " latest" : ""));
      }
    }
    grpc::ClientContext second;
    v1::GetResidencyResponse residency;
    EXPECT_TRUE(residency_->GetResidency(&second, {}, &residency).ok());
    for (const v1::AdapterResidency& adapter : residency.adapters()) {
      const std::string id = absl::StrCat(adapter.name(), "@", adapter.version());
      if (adapter.pinned()) {
        lines.insert(id + " pinned");
      }
      if (adapter.merge_mode() == v1::MERGE_MODE_NEVER) {
        lines.insert(id + " never merged");
      }
    }
    return lines;
  }

  // A new name with bytes of its own, which goes again but for a few.
  Change UploadChange() {
    return {.name = "upload",
            .prepare = [this] { next_ = Padded(base_, ++number_); },
            .call = [this] { return Publish(NewName(), next_); },
            .apply = [] {},
            .tidy =
                [this] {
                  EXPECT_EQ(StreamLoad::Ask(*generation_, NewName(), kPrompt, kTokens), tokens_);
                  if (number_ % kKeepEvery != 0) {
                    EXPECT_TRUE(Delete(NewName()).ok());
                    NoteDelete(NewName());
                  }
                }};
  }
  Change PromoteChange() {
    return {.name = "promote",
            .prepare = [this] { goal_ = 3 - acknowledged_.latest["turn"]; },
            .call =
                [this] {
                  return calls().Promote(absl::StrCat("name: 'turn' version: ", goal_)).status;
                },
            .apply = [this] { acknowledged_.latest["turn"] = goal_; }};
  }
  Change RollbackChange() {
    return {
        .name = "rollback",
        .prepare =
            [this] {
              goal_ = acknowledged_.latest["turn"];
              EXPECT_TRUE(
                  calls().Promote(absl::StrCat("name: 'turn' version: ", 3 - goal_)).status.ok());
              acknowledged_.latest["turn"] = 3 - goal_;
            },
        .call = [this] { return calls().Rollback("name: 'turn'").status; },
        .apply = [this] { acknowledged_.latest["turn"] = goal_; }};
  }
  // A name that others may read: its share goes with it.
  Change DeleteChange() {
    return {
        .name = "delete",
        .prepare =
            [this] {
              ASSERT_TRUE(Publish(NewName(), Padded(base_, ++number_)).ok());
              EXPECT_EQ(VisibilityOf(NewName()), v1::VISIBILITY_PRIVATE)
                  << "what stood under this name before was shared";
              ShareWithAll(NewName());
            },
        .call = [this] { return Delete(NewName()); },
        .apply = [this] { NoteDelete(NewName()); },
        .tidy =
            [this] { EXPECT_TRUE(StreamLoad::Ask(*generation_, NewName(), kPrompt, 1).empty()); }};
  }
  // Pinned and kept unmerged, and both taken back, in turn.
  Change PinChange() {
    return {.name = "pin",
            .prepare = [] {},
            .call =
                [this] {
                  return acknowledged_.pinned.empty()
                             ? Residency<v1::PinAdapterRequest>(&ResidencyStub::PinAdapter)
                             : Residency<v1::UnpinAdapterRequest>(&ResidencyStub::UnpinAdapter);
                },
            .apply = [this] { Toggle(acknowledged_.pinned); }};
  }
  Change MergeModeChange() {
    return {.name = "merge",
            .prepare = [] {},
            .call =
                [this] {
                  v1::SetMergeModeRequest request;
                  request.set_mode(acknowledged_.never_merged.empty() ? v1::MERGE_MODE_NEVER
                                                                      : v1::MERGE_MODE_AUTO);
                  return Residency(&ResidencyStub::SetMergeMode, std::move(request));
                },
            .apply = [this] { Toggle(acknowledged_.never_merged); }};
  }
  std::vector<Change> Changes() {
    return {UploadChange(), PromoteChange(), RollbackChange(),
            DeleteChange(), PinChange(),     MergeModeChange()};
  }
  static void Toggle(std::set<std::string>& ids) {
    ids = ids.empty() ? std::set<std::string>{"turn@2"} : std::set<std::string>{};
  }
  template <typename Request, typename Response>
  grpc::Status Residency(grpc::Status (ResidencyStub::*method)(grpc::ClientContext*, const Request&,
                                                               Response*),
                         Request request = {}) {
    request.set_adapter("turn@2");
    grpc::ClientContext context;
    Response response;
    return ((*residency_).*method)(&context, request, &response);
  }

  std::string NewName() const { return "new"; }
  v1::Visibility VisibilityOf(const std::string& name) {
    grpc::ClientContext context;
    v1::GetAdapterVisibilityRequest request;
    request.set_name(name);
    v1::GetAdapterVisibilityResponse response;
    EXPECT_TRUE(adapters_->GetAdapterVisibility(&context, request, &response).ok());
    return response.visibility().visibility();
  }
  void ShareWithAll(const std::string& name) {
    grpc::ClientContext context;
    v1::SetAdapterVisibilityResponse response;
    const auto request = ParseProto<v1::SetAdapterVisibilityRequest>(
        absl::StrCat("visibility { name: '", name, "' visibility: VISIBILITY_PUBLIC }"));
    EXPECT_TRUE(adapters_->SetAdapterVisibility(&context, request, &response).ok());
  }

  // One try with the n-th `call` failing. False when the change makes fewer of them.
  bool TryPoint(const Change& change, FaultCall call, int32_t error, int64_t n, Tally& tally) {
    change.prepare();
    control_->error = error;
    control_->remaining = n;
    const int64_t struck_before = control_->struck;
    control_->call = static_cast<int32_t>(call);
    const grpc::Status status = change.call();
    control_->call = static_cast<int32_t>(FaultCall::kNone);
    const bool struck = control_->struck != struck_before;
    tally.points += struck;
    if (status.ok()) {
      change.apply();
    } else {
      ++tally.refused;
      EXPECT_TRUE(struck) << "without a fault: " << status.error_message();
      EXPECT_THAT(status.error_code(), testing::AnyOf(grpc::StatusCode::UNAVAILABLE,
                                                      grpc::StatusCode::RESOURCE_EXHAUSTED))
          << status.error_message();
      EXPECT_FALSE(status.error_message().empty());
      EXPECT_EQ(Listed(), acknowledged_.Lines()) << "a refused change is none";
      const grpc::Status again = change.call();
      EXPECT_TRUE(again.ok()) << "second try: " << again.error_message();
      change.apply();
    }
    EXPECT_EQ(Listed(), acknowledged_.Lines());
    change.tidy();
    return struck;
  }

  // Every index of every call under every error.
  Tally TryEverywhere(const Change& change) {
    Tally all;
    for (int call = 1; call < kNumFaultCalls; ++call) {
      std::vector<int32_t> errors = {EIO, ENOSPC};
      if (call <= static_cast<int>(FaultCall::kPwrite)) {
        errors.insert(errors.end(), {kShortWrite, kShortThenFull});
      }
      std::string line;
      for (const int32_t error : errors) {
        Tally tally;
        const std::string what =
            absl::StrCat(change.name, ", ", kFaultCallNames[call], ", ", NameOf(error));
        for (int64_t n = 1; !HasFatalFailure(); ++n) {
          SCOPED_TRACE(absl::StrCat(what, ", call ", n));
          if (!TryPoint(change, static_cast<FaultCall>(call), error, n, tally)) {
            break;
          }
        }
        absl::StrAppend(&line, "  ", NameOf(error), " ", tally.points, " (", tally.refused,
                        " refused)");
        all.points += tally.points;
        all.refused += tally.refused;
      }
      std::printf("%-9s %-10s%s\n", change.name.c_str(), kFaultCallNames[call], line.c_str());
    }
    return all;
  }

  // Requires the store after a kill to be what was acknowledged, swept, and served.
  void ExpectRestartHoldsAll() {
    KillAndRestart();
    EXPECT_EQ(Listed(), acknowledged_.Lines());
    EXPECT_TRUE(std::filesystem::is_empty(store_ + "/tmp")) << "an upload stayed behind";
    std::set<std::string> blobs;
    for (const auto& entry : std::filesystem::directory_iterator(store_ + "/blobs/sha256")) {
      blobs.insert(entry.path().filename());
      EXPECT_EQ(HexSha256(ReadFile(entry.path())), entry.path().filename());
    }
    EXPECT_EQ(blobs, acknowledged_.Blobs());
    for (const auto& [id, files] : acknowledged_.versions) {
      const std::string adapter = absl::StrCat(id.first, "@", id.second);
      const std::vector<int32_t> answer = StreamLoad::Ask(*generation_, adapter, kPrompt, kTokens);
      EXPECT_EQ(answer.size(), static_cast<size_t>(kTokens)) << adapter;
      EXPECT_TRUE(files == other_ || answer == tokens_) << adapter;
    }
  }

  std::unique_ptr<v1::ResidencyService::Stub> residency_;
  std::string store_, control_file_;
  FaultControl* control_ = nullptr;
  Files base_, other_, next_;
  SoloAnswers solo_;
  std::vector<int32_t> tokens_;
  Acknowledged acknowledged_;
  v1::UploadAdapterResponse uploaded_;
  size_t number_ = 0;
  int64_t goal_ = 0;
};

TEST_F(CallFaultsTest, EachFailedCallIsRefusedOrSurvivedWhileStreamsRun) {
  const absl::Time begin = absl::Now();
  Tally all;
  StreamCounts streams;
  for (const Change& change : Changes()) {
    StreamLoad load(server_->NewChannel(),
                    {.num_streams = 4,
                     .num_tokens = kTokens,
                     .adapters = {"left", "right", "turn"},
                     .prompts = {kPrompt}},
                    &solo_);
    const Tally tally = TryEverywhere(change);
    EXPECT_GT(tally.points, 15) << change.name;
    EXPECT_GT(tally.refused, 0) << change.name;
    all.points += tally.points;
    all.refused += tally.refused;
    load.Finish();
    const StreamCounts counts = load.counts();
    EXPECT_EQ(counts.failed + counts.dropped + counts.wrong + counts.unknown, 0)
        << counts.first_trouble;
    streams.finished += counts.finished;
    ExpectRestartHoldsAll();
  }
  EXPECT_GT(streams.finished, 100);
  std::printf(
      "%d faults (index x error), %d refused and done at the second try, %d survived; "
      "%ld streams with the solo run's tokens, 0 wrong; %zu kills, all that was "
      "acknowledged there; %.0f s\n",
      all.points, all.refused, all.points - all.refused, streams.finished, Changes().size(),
      absl::ToDoubleSeconds(absl::Now() - begin));
}

// What strace sees of a process that it is attached to, by groups as the library counts them.
std::map<std::string, int64_t> CountTrace(const std::string& trace, const std::string& folder) {
  static const auto& groups = *new std::map<std::string, FaultCall>{
      {"write", FaultCall::kWrite},       {"writev", FaultCall::kWrite},
      {"pwrite64", FaultCall::kPwrite},   {"pwritev", FaultCall::kPwrite},
      {"fsync", FaultCall::kFsync},       {"fdatasync", FaultCall::kFdatasync},
      {"rename", FaultCall::kRename},     {"renameat", FaultCall::kRename},
      {"renameat2", FaultCall::kRename},  {"open", FaultCall::kOpen},
      {"openat", FaultCall::kOpen},       {"creat", FaultCall::kOpen},
      {"unlink", FaultCall::kUnlink},     {"unlinkat", FaultCall::kUnlink},
      {"rmdir", FaultCall::kUnlink},      {"mkdir", FaultCall::kMkdir},
      {"mkdirat", FaultCall::kMkdir},     {"ftruncate", FaultCall::kTruncate},
      {"truncate", FaultCall::kTruncate}, {"fallocate", FaultCall::kTruncate}};
  std::map<std::string, int64_t> counts;
  for (absl::string_view line : absl::StrSplit(trace, '\n')) {
    const std::vector<absl::string_view> parts = absl::StrSplit(line, absl::MaxSplits('(', 1));
    const std::vector<absl::string_view> words = absl::StrSplit(parts[0], ' ', absl::SkipEmpty());
    if (parts.size() != 2 || words.empty() || !absl::StrContains(parts[1], folder)) {
      continue;
    }
    if (const auto group = groups.find(std::string(words.back())); group != groups.end()) {
      ++counts[kFaultCallNames[static_cast<int>(group->second)]];
    }
  }
  return counts;
}

TEST_F(CallFaultsTest, TheLibrarySeesEveryCallThatTheKernelSees) {
  constexpr char kStrace[] = "/usr/bin/strace";
  if (!std::filesystem::exists(kStrace)) {
    GTEST_SKIP() << "strace is not installed";
  }
  const std::string trace = folder_.path() + "/trace";
  ChildProcess strace({kStrace, "-f", "-y", "-q", "-o", trace, "-p", absl::StrCat(server_->pid())});
  const auto attached = [&] {
    const std::filesystem::path tasks = absl::StrCat("/proc/", server_->pid(), "/task");
    for (const auto& task : std::filesystem::directory_iterator(tasks)) {
      if (absl::StrContains(ReadFile(task.path() / "status"), "TracerPid:\t0\n")) {
        return false;
      }
    }
    return true;
  };
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (!attached()) {
    if (absl::Now() > deadline) {
      GTEST_SKIP() << "strace may not trace here";
    }
    absl::SleepFor(absl::Milliseconds(10));
  }
  for (std::atomic<int64_t>& count : control_->counts) {
    count = 0;
  }
  for (const Change& change : Changes()) {
    change.prepare();
    EXPECT_TRUE(change.call().ok()) << change.name;
    change.apply();
    change.tidy();
  }
  strace.Signal(SIGINT);
  strace.Wait();
  std::map<std::string, int64_t> counted;
  for (int call = 1; call < kNumFaultCalls; ++call) {
    if (control_->counts[call] > 0) {
      counted[kFaultCallNames[call]] = control_->counts[call];
    }
  }
  EXPECT_EQ(counted, CountTrace(ReadFile(trace), store_));
  EXPECT_THAT(counted, testing::SizeIs(testing::Ge(8)));
  for (const auto& [call, count] : counted) {
    std::printf("%ld %s, ", count, call.c_str());
  }
  std::printf("by the library and by strace\n");
}

}  // namespace
}  // namespace tenon
