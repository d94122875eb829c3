// tenonctl adapters watch, history, promote, rollback, split and diff.
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/tenonctl/adapter_table.h"
#include "client/tenonctl/output.h"
#include "client/tenonctl/version_commands.h"

namespace tenon {
namespace {

// How long a watch waits before it asks a server that went away once more.
constexpr absl::Duration kReconnect = absl::Seconds(1);

constexpr size_t kDefaultScreenRows = 24;

// "fr" and 7, of "fr@7". Nothing when the word is not one.
struct NameAndTarget {
  std::string name;
  std::string target;  // a version or an alias
  int64_t version = 0;
};

std::optional<NameAndTarget> ParseTarget(const std::string& word) {
  const std::vector<std::string> parts = absl::StrSplit(word, absl::MaxSplits('@', 1));
  if (parts.size() != 2 || parts[0].empty() || parts[1].empty()) {
    return std::nullopt;
  }
  NameAndTarget result{parts[0], parts[1], 0};
  if (!absl::SimpleAtoi(parts[1], &result.version)) {
    result.version = 0;
  }
  return result;
}

// Fills in expected_version when the flag is given.
template <typename Request>
absl::Status TakeExpected(const Arguments& arguments, Request& request) {
  const absl::StatusOr<std::optional<uint64_t>> expected = arguments.GetUint64("expect");
  if (expected.ok() && expected->has_value()) {
    request.set_expected_version(static_cast<int64_t>(**expected));
  }
  return expected.status();
}

std::string VersionWord(int64_t version) { return version == 0 ? "none" : absl::StrCat(version); }

std::string ChangeLine(const std::string& name, const v1::AliasChange& change) {
  if (change.from() == change.to()) {
    return absl::StrCat(name, "@", change.alias(), " is at ", change.to(), " already\n");
  }
  return absl::StrCat(name, "@", change.alias(), " ", VersionWord(change.from()), " -> ",
                      VersionWord(change.to()), "\n");
}

std::string FormatHistory(const v1::GetHistoryResponse& history) {
  std::vector<std::vector<std::string>> rows = {
      {"TIME", "ACTION", "ALIAS", "FROM", "TO", "BY", "DETAILS"}};
  for (const v1::AliasChange& change : history.changes()) {
    rows.push_back({FormatTime(change.time()), ActionWord(change.action()),
                    change.alias().empty() ? "-" : change.alias(),
                    change.from() == 0 ? "-" : absl::StrCat(change.from()),
                    change.to() == 0 ? "-" : absl::StrCat(change.to()),
                    PrintableText(change.actor()), PrintableText(change.details())});
  }
  return FormatTable(rows);
}

size_t ScreenRows() {
  winsize size{};
  const bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0;
  return known ? size.ws_row : kDefaultScreenRows;
}

// One screen: what is, and the last things that happened.
void DrawScreen(const AdapterTable& table, const std::vector<std::string>& news,
                absl::string_view note, Console& console) {
  constexpr size_t kNewsRows = 5;
  const size_t rows = ScreenRows();
  const size_t room = rows > kNewsRows + 5 ? rows - kNewsRows - 5 : 1;
  std::string screen =
      absl::StrCat("\x1b[H\x1b[2J", "generation ", table.generation(), "  ",
                   absl::FormatTime("%H:%M:%SZ", absl::Now(), absl::UTCTimeZone()), "  ", note,
                   "\n\n", table.Render(/*with_colour=*/true, room), "\n");
  const size_t first = news.size() > kNewsRows ? news.size() - kNewsRows : 0;
  for (size_t i = first; i < news.size(); ++i) {
    absl::StrAppend(&screen, news[i], "\n");
  }
  console.out << screen << std::flush;
}

// Shows messages in the way that the flags and the terminal ask for.
class WatchView {
 public:
  WatchView(bool json, bool once, Console* console)
      : json_(json), once_(once), console_(*console) {}

  int64_t generation() const { return table_.complete() ? table_.generation() : 0; }

  // False when enough has been seen.
  bool Show(const v1::WatchAdaptersResponse& message) {
    std::vector<std::string> lines = table_.Apply(message);
    if (json_) {
      console_.out << ToJsonLine(message) << std::flush;
    } else if (console_.out_is_terminal && !once_) {
      KeepNews(std::move(lines));
    } else if (!once_) {
      ShowLines(lines);
    }
    if (table_.complete()) {
      ShowTable();
    }
    return !once_ || !table_.complete();
  }

  void ShowLost(const absl::Status& status) {
    if (console_.out_is_terminal && !json_) {
      DrawScreen(table_, news_, absl::StrCat("lost the server: ", status.message()), console_);
    } else {
      console_.err << "tenonctl: lost the server: " << status.message() << "\n";
    }
  }

 private:
  void KeepNews(std::vector<std::string> lines) {
    const std::string now = absl::FormatTime("%H:%M:%SZ", absl::Now(), absl::UTCTimeZone());
    if (is_first_) {
      return;  // everything is new then
    }
    for (const std::string& line : lines) {
      news_.push_back(absl::StrCat(now, "  ", line));
    }
    if (news_.size() > kMaxNews) {
      news_.erase(news_.begin(), news_.end() - kMaxNews);
    }
  }

  void ShowLines(const std::vector<std::string>& lines) {
    for (const std::string& line : lines) {
      console_.out << line << "\n";
    }
    console_.out << std::flush;
  }

  void ShowTable() {
    is_first_ = false;
    if (json_) {
      return;
    }
    if (once_) {
      console_.out << table_.Render(/*with_colour=*/false, SIZE_MAX);
    } else if (console_.out_is_terminal) {
      DrawScreen(table_, news_, "Ctrl-C ends", console_);
    }
  }

  static constexpr size_t kMaxNews = 100;

  const bool json_, once_;
  Console& console_;
  AdapterTable table_;
  std::vector<std::string> news_;
  bool is_first_ = true;
};

}  // namespace

CommandResult RunWatch(const Client& client, const Arguments& arguments, Console& console) {
  if (!arguments.words().empty()) {
    return CommandResult::Usage("wanted: no words");
  }
  WatchView view(arguments.GetSwitch("json"), arguments.GetSwitch("once"), &console);
  bool had_some = false;
  while (true) {
    bool enough = false;
    const absl::Status status =
        client.versions().Watch(view.generation(), [&](const v1::WatchAdaptersResponse& message) {
          had_some = true;
          enough = !view.Show(message);
          return !enough && console.out.good();
        });
    // A server that restarts is worth waiting for; one that was never there is not.
    if (enough || !had_some || !absl::IsUnavailable(status)) {
      return CommandResult::Of(status);
    }
    view.ShowLost(status);
    absl::SleepFor(kReconnect);
  }
}

CommandResult RunHistory(const Client& client, const Arguments& arguments, Console& console) {
  const absl::StatusOr<std::optional<int32_t>> max = arguments.GetInt("max");
  if (arguments.words().size() != 1 || !max.ok()) {
    return CommandResult::Usage(max.ok() ? "wanted: NAME" : max.status().message());
  }
  v1::GetHistoryRequest request;
  request.set_name(arguments.words()[0]);
  request.set_max_changes(max->value_or(0));
  const absl::StatusOr<v1::GetHistoryResponse> response = client.versions().GetHistory(request);
  if (response.ok()) {
    console.out << (arguments.GetSwitch("json") ? ToJson(*response) : FormatHistory(*response));
  }
  return CommandResult::Of(response.status());
}

CommandResult RunPromote(const Client& client, const Arguments& arguments, Console& console) {
  const bool remove = arguments.GetSwitch("remove");
  const std::optional<NameAndTarget> target =
      arguments.words().empty() ? std::nullopt : ParseTarget(arguments.words()[0]);
  const size_t wanted = remove ? 1 : 2;
  if (!target.has_value() || arguments.words().size() > wanted) {
    return CommandResult::Usage("wanted: NAME@VERSION [ALIAS], or NAME@ALIAS --remove");
  }
  v1::PromoteRequest request;
  request.set_name(target->name);
  if (remove) {
    request.set_alias(target->target);
    request.set_remove(true);
  } else {
    request.set_alias(arguments.words().size() == 2 ? arguments.words()[1] : "latest");
    if (target->version > 0) {
      request.set_version(target->version);
    } else {
      request.set_from_alias(target->target);
    }
  }
  if (absl::Status status = TakeExpected(arguments, request); !status.ok()) {
    return CommandResult::Usage(status.message());
  }
  const absl::StatusOr<v1::PromoteResponse> response = client.versions().Promote(request);
  if (response.ok()) {
    console.out << (arguments.GetSwitch("json") ? ToJson(*response)
                                                : ChangeLine(target->name, response->change()));
  }
  return CommandResult::Of(response.status());
}

CommandResult RunRollback(const Client& client, const Arguments& arguments, Console& console) {
  if (arguments.words().size() != 1) {
    return CommandResult::Usage("wanted: NAME[@ALIAS]");
  }
  const std::vector<std::string> parts =
      absl::StrSplit(arguments.words()[0], absl::MaxSplits('@', 1));
  v1::RollbackRequest request;
  request.set_name(parts[0]);
  request.set_alias(parts.size() == 2 ? parts[1] : "latest");
  if (absl::Status status = TakeExpected(arguments, request); !status.ok()) {
    return CommandResult::Usage(status.message());
  }
  const absl::StatusOr<v1::RollbackResponse> response = client.versions().Rollback(request);
  if (response.ok()) {
    console.out << (arguments.GetSwitch("json") ? ToJson(*response)
                                                : ChangeLine(parts[0], response->change()));
  }
  return CommandResult::Of(response.status());
}

CommandResult RunSplit(const Client& client, const Arguments& arguments, Console& console) {
  const bool end = arguments.GetSwitch("end");
  if (arguments.words().empty() || (end && arguments.words().size() > 1)) {
    return CommandResult::Usage("wanted: NAME ALIAS=PERCENT ..., or NAME --end");
  }
  v1::SetSplitRequest request;
  request.set_name(arguments.words()[0]);
  for (size_t i = 1; i < arguments.words().size(); ++i) {
    const std::string& word = arguments.words()[i];
    const std::vector<std::string> parts = absl::StrSplit(word, absl::MaxSplits('=', 1));
    double percent = 0;
    if (parts.size() != 2 || !absl::SimpleAtod(absl::StripSuffix(parts[1], "%"), &percent)) {
      return CommandResult::Usage(absl::StrCat("'", word, "' is not ALIAS=PERCENT"));
    }
    v1::SplitArm& arm = *request.add_arms();
    arm.set_alias(parts[0]);
    arm.set_percent(percent);
  }
  if (request.arms().empty() && !end) {
    return CommandResult::Usage("wanted: NAME ALIAS=PERCENT ..., or NAME --end");
  }
  const absl::StatusOr<v1::SetSplitResponse> response = client.versions().SetSplit(request);
  if (response.ok() && arguments.GetSwitch("json")) {
    console.out << ToJson(*response);
  } else if (response.ok()) {
    const std::string split = FormatSplit(response->arms());
    console.out << request.name() << ": " << (split.empty() ? "latest has all" : split) << "\n";
  }
  return CommandResult::Of(response.status());
}

CommandResult RunDiff(const Client& client, const Arguments& arguments, Console& console) {
  if (arguments.words().size() != 2) {
    return CommandResult::Usage("wanted: NAME[@VERSION|@ALIAS] NAME[@VERSION|@ALIAS]");
  }
  const absl::StatusOr<v1::Adapter> first = client.GetAdapter(arguments.words()[0]);
  if (!first.ok()) {
    return CommandResult::Of(first.status());
  }
  const absl::StatusOr<v1::Adapter> second = client.GetAdapter(arguments.words()[1]);
  if (!second.ok()) {
    return CommandResult::Of(second.status());
  }
  if (arguments.GetSwitch("json")) {
    console.out << ToJson(*first) << ToJson(*second);
  } else if (first->digest() == second->digest()) {
    console.out << "the same bytes: sha256:" << first->digest() << "\n";
  } else {
    console.out << FormatDifferences(*first, *second);
  }
  return {};
}

}  // namespace tenon
