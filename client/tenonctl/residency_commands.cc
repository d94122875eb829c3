#include "client/tenonctl/residency_commands.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/tenonctl/output.h"

namespace tenon {
namespace {

using Row = std::vector<std::string>;
using Action =
    absl::StatusOr<v1::AdapterResidency> (ResidencyClient::*)(absl::string_view adapter) const;

std::string StateWord(v1::ResidencyState state) {
  switch (state) {
    case v1::RESIDENCY_STATE_STORED:
      return "stored";
    case v1::RESIDENCY_STATE_HOST:
      return "host";
    case v1::RESIDENCY_STATE_LOADING:
      return "loading";
    case v1::RESIDENCY_STATE_DEVICE:
      return "device";
    case v1::RESIDENCY_STATE_MERGED:
      return "merged";
    case v1::RESIDENCY_STATE_FAILED:
      return "failed";
    default:
      return "?";
  }
}

std::string ModeWord(v1::MergeMode mode) {
  switch (mode) {
    case v1::MERGE_MODE_ALWAYS:
      return "always";
    case v1::MERGE_MODE_NEVER:
      return "never";
    default:
      return "auto";
  }
}

std::string BytesWord(int64_t num_bytes) { return num_bytes == 0 ? "-" : FormatBytes(num_bytes); }

// "3.2 ms", "12 s".
std::string DurationWord(const google::protobuf::Duration& duration) {
  const double seconds =
      static_cast<double>(duration.seconds()) + static_cast<double>(duration.nanos()) / 1e9;
  return seconds < 1 ? absl::StrFormat("%.1f ms", seconds * 1e3)
                     : absl::StrFormat("%.1f s", seconds);
}

std::string AgoWord(const v1::AdapterResidency& adapter, absl::Time now) {
  if (!adapter.has_last_use_time()) {
    return "-";
  }
  const absl::Duration ago = now - absl::FromUnixSeconds(adapter.last_use_time().seconds());
  return absl::StrCat(
      absl::FormatDuration(absl::Trunc(std::max(ago, absl::ZeroDuration()), absl::Seconds(1))),
      " ago");
}

std::string Percent(int64_t part, int64_t rest) {
  return part + rest == 0 ? "-"
                          : absl::StrFormat("%.1f%%", 100.0 * static_cast<double>(part) /
                                                          static_cast<double>(part + rest));
}

std::string FormatTotals(const v1::ResidencyTotals& totals) {
  return FormatTable({
      {"TIER", "USED", "BUDGET", "HITS", "NOTES"},
      {"merged", FormatBytes(totals.merged_bytes()), FormatBytes(totals.merged_budget_bytes()), "-",
       absl::StrCat(totals.merges(), " merges, ", totals.failed_merges(), " failed, ",
                    totals.unmerges(), " unmerged")},
      {"device", FormatBytes(totals.device_bytes()), FormatBytes(totals.device_budget_bytes()),
       Percent(totals.device_hits(), totals.device_misses()),
       absl::StrCat(totals.loads(), " loads, ", totals.failed_loads(), " failed, ",
                    totals.evictions(), " evictions, ", FormatBytes(totals.pinned_bytes()),
                    " pinned")},
      {"host", FormatBytes(totals.host_bytes()), FormatBytes(totals.host_budget_bytes()),
       Percent(totals.host_hits(), totals.host_misses()), ""},
  });
}

void Print(const v1::AdapterResidency& adapter, const Arguments& arguments, Console& console) {
  if (arguments.GetSwitch("json")) {
    console.out << ToJson(adapter);
    return;
  }
  console.out << adapter.name() << "@" << adapter.version() << " " << StateWord(adapter.state())
              << (adapter.pinned() ? ", pinned" : "") << "\n";
}

CommandResult RunAction(Action action, const Client& client, const Arguments& arguments,
                        Console& console) {
  if (arguments.words().size() != 1) {
    return CommandResult::Usage("wanted: NAME[@VERSION]");
  }
  const absl::StatusOr<v1::AdapterResidency> adapter =
      (client.residency().*action)(arguments.words()[0]);
  if (adapter.ok()) {
    Print(*adapter, arguments, console);
  }
  return CommandResult::Of(adapter.status());
}

CommandResult RunMerge(const Client& client, const Arguments& arguments, Console& console) {
  if (arguments.words().size() != 1) {
    return CommandResult::Usage("wanted: NAME[@VERSION]");
  }
  const std::string word = arguments.GetText("mode", "always");
  v1::MergeMode mode = v1::MERGE_MODE_UNSPECIFIED;
  for (const v1::MergeMode known :
       {v1::MERGE_MODE_AUTO, v1::MERGE_MODE_ALWAYS, v1::MERGE_MODE_NEVER}) {
    mode = ModeWord(known) == word ? known : mode;
  }
  if (mode == v1::MERGE_MODE_UNSPECIFIED) {
    return CommandResult::Usage(
        absl::StrCat("--mode=", word, " is none of always, never and auto"));
  }
  const absl::StatusOr<v1::AdapterResidency> adapter =
      client.residency().SetMergeMode(arguments.words()[0], mode);
  if (adapter.ok()) {
    Print(*adapter, arguments, console);
  }
  return CommandResult::Of(adapter.status());
}

CommandResult RunResidency(const Client& client, const Arguments& arguments, Console& console) {
  if (!arguments.words().empty()) {
    return CommandResult::Usage("wanted: no words");
  }
  const absl::StatusOr<v1::GetResidencyResponse> residency = client.residency().Get();
  if (residency.ok()) {
    console.out << (arguments.GetSwitch("json") ? ToJson(*residency)
                                                : FormatResidency(*residency, absl::Now()));
  }
  return CommandResult::Of(residency.status());
}

Command ActionCommand(std::string name, std::string summary, Action action) {
  const std::string example = absl::StrCat("  tenonctl ", name, " ticket-router@2\n");
  return {std::move(name),
          "NAME[@VERSION]",
          std::move(summary),
          example,
          {},
          [action](const Client& client, const Arguments& arguments, Console& console) {
            return RunAction(action, client, arguments, console);
          }};
}

}  // namespace

std::string FormatResidency(const v1::GetResidencyResponse& residency, absl::Time now) {
  std::vector<Row> rows = {{"NAME", "VERSION", "STATE", "PINNED", "STORED", "DEVICE", "MERGED",
                            "REQUESTS", "HITS", "LOAD", "MERGE", "LAST USE"}};
  for (const v1::AdapterResidency& adapter : residency.adapters()) {
    rows.push_back({adapter.name(), absl::StrCat(adapter.version()), StateWord(adapter.state()),
                    adapter.pinned() ? "*" : "", BytesWord(adapter.stored_bytes()),
                    BytesWord(adapter.device_bytes()), BytesWord(adapter.merged_bytes()),
                    absl::StrCat(adapter.num_requests()), absl::StrCat(adapter.hits()),
                    adapter.has_load_time() ? DurationWord(adapter.load_time()) : "-",
                    adapter.has_merge_time() ? DurationWord(adapter.merge_time())
                                             : ModeWord(adapter.merge_mode()),
                    AgoWord(adapter, now)});
  }
  std::string text = FormatTable(rows);
  if (residency.has_totals()) {
    absl::StrAppend(&text, "\n", FormatTotals(residency.totals()));
  }
  return text;
}

std::vector<Command> MakeResidencyCommands() {
  return {
      ActionCommand("adapters load", "load an adapter before its first request",
                    &ResidencyClient::Load),
      ActionCommand("adapters unload", "let an adapter go from memory; it stays in the store",
                    &ResidencyClient::Unload),
      ActionCommand("adapters pin", "load an adapter and keep it in memory", &ResidencyClient::Pin),
      ActionCommand("adapters unpin", "leave a pinned adapter to the cache again",
                    &ResidencyClient::Unpin),
      {"adapters merge",
       "NAME[@VERSION]",
       "run an adapter on weights of its own, without extra arithmetic",
       "  tenonctl adapters merge ticket-router\n"
       "  tenonctl adapters merge --mode=never ticket-router\n",
       {{"mode", "MODE", "always (the default), never, or auto: as the traffic is"}},
       RunMerge},
      {"adapters residency",
       "",
       "where each adapter is, and for operators how full the tiers are",
       "  tenonctl adapters residency\n  tenonctl adapters residency --json\n",
       {},
       RunResidency},
  };
}

}  // namespace tenon
