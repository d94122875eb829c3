#include "server/telemetry/logging.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"

namespace tenon {
namespace {

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

// Made once and never destroyed: lines may still come from static destructors.
spdlog::logger& Logger() {
  static spdlog::logger* logger = [] {
    auto* made = new spdlog::logger("tenon", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_formatter(std::make_unique<spdlog::pattern_formatter>(
        "%Y-%m-%dT%H:%M:%S.%eZ level=%l %v", spdlog::pattern_time_type::utc));
    return made;
  }();
  return *logger;
}

bool IsBareWord(absl::string_view value) {
  return !value.empty() && std::all_of(value.begin(), value.end(), [](char c) {
    return absl::ascii_isgraph(static_cast<unsigned char>(c)) && c != '"' && c != '\\' && c != '=';
  });
}

}  // namespace

absl::Status SetLogLevel(absl::string_view name) {
  for (const LogLevel level :
       {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning, LogLevel::kError}) {
    const spdlog::string_view_t known = spdlog::level::to_string_view(ToSpdlog(level));
    if (name == absl::string_view(known.data(), known.size())) {
      Logger().set_level(ToSpdlog(level));
      // What folders below this one log goes the same way: standard output is the ready line's.
      spdlog::set_default_logger(
          std::shared_ptr<spdlog::logger>(&Logger(), [](spdlog::logger*) {}));
      return absl::OkStatus();
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("log level '", name, "' is none of debug, info, warning and error"));
}

std::string QuoteLogValue(absl::string_view value) {
  if (IsBareWord(value)) {
    return std::string(value);
  }
  return absl::StrCat("\"", absl::Utf8SafeCEscape(value), "\"");
}

LogLine::LogLine(LogLevel level, absl::string_view event) : level_(level) { Add("event", event); }

LogLine::~LogLine() { Logger().log(ToSpdlog(level_), text_); }

LogLine& LogLine::Add(absl::string_view key, absl::string_view value) {
  absl::StrAppend(&text_, text_.empty() ? "" : " ", key, "=", QuoteLogValue(value));
  return *this;
}

}  // namespace tenon
