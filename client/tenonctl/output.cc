#include "client/tenonctl/output.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"

namespace tenon {
namespace {

using Row = std::vector<std::string>;

// Characters, for columns that may hold names of any language.
size_t DisplayWidth(absl::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

bool IsNumber(absl::string_view cell) {
  return !cell.empty() && std::all_of(cell.begin(), cell.end(), absl::ascii_isdigit);
}

bool IsNumericColumn(const std::vector<Row>& rows, size_t column) {
  return rows.size() > 1 && std::all_of(rows.begin() + 1, rows.end(),
                                        [&](const Row& row) { return IsNumber(row[column]); });
}

// "ADAPTER_STATE_LIVE" -> "live".
std::string EnumWord(absl::string_view name, absl::string_view prefix) {
  return absl::AsciiStrToLower(absl::StripPrefix(name, prefix));
}

// Lines of "name  value".
std::string FormatFields(const std::vector<std::pair<std::string, std::string>>& fields) {
  size_t width = 0;
  for (const auto& [name, value] : fields) {
    width = std::max(width, name.size());
  }
  std::string text;
  for (const auto& [name, value] : fields) {
    absl::StrAppend(&text, name, std::string(width + 2 - name.size(), ' '), value, "\n");
  }
  return text;
}

}  // namespace

std::string FormatTable(const std::vector<Row>& rows) {
  std::vector<size_t> widths;
  std::vector<bool> numeric;
  for (size_t column = 0; column < rows.front().size(); ++column) {
    size_t width = 0;
    for (const Row& row : rows) {
      width = std::max(width, DisplayWidth(row[column]));
    }
    widths.push_back(width);
    numeric.push_back(IsNumericColumn(rows, column));
  }
  std::string text;
  for (const Row& row : rows) {
    std::string line;
    for (size_t column = 0; column < row.size(); ++column) {
      const std::string padding(widths[column] - DisplayWidth(row[column]), ' ');
      absl::StrAppend(&line, column == 0 ? "" : "  ", numeric[column] ? padding : "", row[column],
                      numeric[column] ? "" : padding);
    }
    absl::StripTrailingAsciiWhitespace(&line);
    absl::StrAppend(&text, line, "\n");
  }
  return text;
}

std::string FormatBytes(int64_t num_bytes) {
  if (num_bytes < 1024) {
    return absl::StrCat(num_bytes, " B");
  }
  double value = static_cast<double>(num_bytes);
  const char* unit = "";
  for (const char* next : {"KiB", "MiB", "GiB", "TiB"}) {
    if (value < 1024) {
      break;
    }
    value /= 1024;
    unit = next;
  }
  return absl::StrFormat("%.1f %s", value, unit);
}

std::string PrintableText(absl::string_view text) {
  std::string printable;
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    // U+0080 to U+009F are control characters too: C2 80 to C2 9F in UTF-8.
    if (c == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0) {
      ++i;
    } else if ((c >= 0x20 && c != 0x7F) || c == '\n' || c == '\t') {
      printable += text[i];
    }
  }
  return printable;
}

std::string ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  return status.ok() ? json : absl::StrCat(status.ToString(), "\n");
}

std::string ToJsonLine(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  return absl::StrCat(status.ok() ? json : status.ToString(), "\n");
}

std::string FormatTime(const google::protobuf::Timestamp& time) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%SZ", absl::FromUnixSeconds(time.seconds()),
                          absl::UTCTimeZone());
}

std::string StateWord(const v1::Adapter& adapter) {
  return EnumWord(v1::AdapterState_Name(adapter.state()), "ADAPTER_STATE_");
}

std::string ActionWord(v1::AliasAction action) {
  return EnumWord(v1::AliasAction_Name(action), "ALIAS_ACTION_");
}

std::string FormatAdapters(const std::vector<v1::Adapter>& adapters) {
  std::vector<Row> rows = {
      {"NAME", "VERSION", "ALIASES", "STATE", "METHOD", "RANK", "SITES", "SIZE", "CREATED"}};
  for (const v1::Adapter& adapter : adapters) {
    rows.push_back({adapter.name(), absl::StrCat(adapter.version()),
                    absl::StrJoin(adapter.aliases(), ", "), StateWord(adapter), adapter.method(),
                    absl::StrCat(adapter.max_rank()), absl::StrCat(adapter.num_sites()),
                    FormatBytes(adapter.stored_bytes()), FormatTime(adapter.create_time())});
  }
  return FormatTable(rows);
}

std::string FormatAdapter(const v1::Adapter& adapter) {
  std::vector<std::pair<std::string, std::string>> fields = {
      {"name", adapter.name()},
      {"version", absl::StrCat(adapter.version())},
      {"aliases", adapter.aliases().empty() ? "none" : absl::StrJoin(adapter.aliases(), ", ")},
      {"digest", absl::StrCat("sha256:", adapter.digest())},
      {"state", StateWord(adapter)},
      {"method", adapter.method()},
      {"parameters", absl::StrCat(adapter.num_parameters())},
      {"rank", absl::StrCat(adapter.max_rank(), " at most")},
      {"sites",
       absl::StrCat(adapter.num_sites(), ", ", adapter.num_untouched_sites(), " left alone")},
      {"virtual", absl::StrCat(adapter.num_virtual_tokens(), " tokens")},
      {"norm", absl::StrCat(adapter.delta_norm_bound(), " at most")},
      {"stored", FormatBytes(adapter.stored_bytes())},
      {"resident", adapter.resident() ? FormatBytes(adapter.resident_bytes()) : "no"},
      {"created", FormatTime(adapter.create_time())},
  };
  for (const std::string& warning : adapter.warnings()) {
    fields.emplace_back("warning", PrintableText(warning));
  }
  return FormatFields(fields) +
         (adapter.has_acceptance() ? FormatAcceptance(adapter.acceptance()) : "");
}

std::string FormatAcceptance(const v1::AcceptanceReport& report) {
  std::string text =
      absl::StrFormat("acceptance  %s in %.0f ms, %s\n", report.passed() ? "passed" : "failed",
                      report.elapsed_ms(), FormatTime(report.time()));
  for (const v1::ProbeResult& result : report.results()) {
    absl::StrAppend(&text, "  ", result.passed() ? "ok    " : "FAILED", " ",
                    PrintableText(result.name()), ": ", PrintableText(result.details()), "\n");
  }
  return text;
}

std::string FormatDifferences(const v1::Adapter& first, const v1::Adapter& second) {
  const auto fields = [](const v1::Adapter& adapter) {
    return std::vector<std::pair<std::string, std::string>>{
        {"digest", adapter.digest().substr(0, 12)},
        {"aliases", absl::StrJoin(adapter.aliases(), ", ")},
        {"state", StateWord(adapter)},
        {"method", adapter.method()},
        {"parameters", absl::StrCat(adapter.num_parameters())},
        {"rank", absl::StrCat(adapter.max_rank())},
        {"sites", absl::StrCat(adapter.num_sites())},
        {"left alone", absl::StrCat(adapter.num_untouched_sites())},
        {"virtual tokens", absl::StrCat(adapter.num_virtual_tokens())},
        {"norm bound", absl::StrCat(adapter.delta_norm_bound())},
        {"stored", FormatBytes(adapter.stored_bytes())},
        {"tensors", FormatBytes(adapter.resident_bytes())},
        {"created", FormatTime(adapter.create_time())},
        {"warnings", PrintableText(absl::StrJoin(adapter.warnings(), "; "))},
    };
  };
  std::vector<Row> rows = {{"", absl::StrCat(first.name(), "@", first.version()),
                            absl::StrCat(second.name(), "@", second.version())}};
  const auto left = fields(first);
  const auto right = fields(second);
  for (size_t i = 0; i < left.size(); ++i) {
    if (left[i].second != right[i].second) {
      rows.push_back({left[i].first, left[i].second, right[i].second});
    }
  }
  return FormatTable(rows);
}

std::string FormatUploadReport(const v1::Adapter& adapter) {
  std::vector<std::string> effect = {adapter.method()};
  if (adapter.max_rank() > 0) {
    effect.push_back(absl::StrCat("rank ", adapter.max_rank(), " at most"));
  }
  if (adapter.num_virtual_tokens() > 0) {
    effect.push_back(absl::StrCat(adapter.num_virtual_tokens(), " virtual tokens"));
  }
  if (adapter.num_sites() > 0) {
    effect.push_back(absl::StrCat(adapter.num_sites(), " sites changed, ",
                                  adapter.num_untouched_sites(), " left alone"));
  }
  return absl::StrFormat("  %s\n  %d parameters, %s stored, %s resident, norm %g at most\n",
                         absl::StrJoin(effect, ", "), adapter.num_parameters(),
                         FormatBytes(adapter.stored_bytes()), FormatBytes(adapter.resident_bytes()),
                         adapter.delta_norm_bound());
}

std::string FormatModel(const v1::GetModelResponse& model) {
  return FormatFields({
      {"name", model.name()},
      {"type", model.model_type()},
      {"digest", absl::StrCat("sha256:", model.digest())},
      {"dtype", model.dtype()},
      {"quantization", model.quantization()},
      {"device", model.device()},
      {"parameters", absl::StrCat(model.num_parameters())},
      {"vocabulary", absl::StrCat(model.vocab_size())},
      {"context", absl::StrCat(model.max_context_tokens(), " tokens")},
      {"adapter rank", absl::StrCat(model.max_adapter_rank(), " at most")},
      {"adapter size", absl::StrCat(FormatBytes(model.max_adapter_bytes()), " at most")},
      {"chat template", model.has_chat_template() ? "yes" : "no"},
      {"server", model.server_version()},
  });
}

std::string FormatFinish(const v1::Finish& finish) {
  std::string reason = EnumWord(v1::FinishReason_Name(finish.reason()), "FINISH_REASON_");
  std::replace(reason.begin(), reason.end(), '_', ' ');
  std::vector<std::string> adapters;
  for (const v1::ServedAdapter& adapter : finish.adapters()) {
    adapters.push_back(absl::StrCat(adapter.name(), "@", adapter.version()));
    if (adapter.has_weight() && adapter.weight() != 1.0f) {
      absl::StrAppend(&adapters.back(), "=", adapter.weight());
    }
    if (!adapter.alias().empty()) {
      absl::StrAppend(&adapters.back(), " (", adapter.alias(),
                      adapter.by_split() ? ", by split" : "", ")");
    }
  }
  const v1::Usage& usage = finish.usage();
  const v1::Timings& timings = finish.timings();
  return absl::StrFormat(
      "%s: %d tokens after %d of prompt (%d cached), %s; ms: queue %.0f, adapter %.0f, prefill "
      "%.0f, decode %.0f; request %s\n",
      reason, usage.completion_tokens(), usage.prompt_tokens(), usage.cached_prompt_tokens(),
      adapters.empty() ? "base model" : absl::StrJoin(adapters, ", "), timings.queue_ms(),
      timings.adapter_wait_ms(), timings.prefill_ms(), timings.decode_ms(), finish.request_id());
}

}  // namespace tenon
