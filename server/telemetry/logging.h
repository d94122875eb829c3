// Log lines: one an event, key=value, to standard error.
#ifndef TENON_SERVER_TELEMETRY_LOGGING_H_
#define TENON_SERVER_TELEMETRY_LOGGING_H_

#include <string>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace tenon {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

/// "debug", "info", "warning" or "error". INVALID_ARGUMENT otherwise.
absl::Status SetLogLevel(absl::string_view name);

/// A value as it stands in a log line: bare when it is one word of printable ASCII, else in double
/// quotes with quotes, backslashes and control characters escaped, so that no client string can
/// forge a line or a field.
std::string QuoteLogValue(absl::string_view value);

/// One log line, written when the object goes. Never give it prompts, answers or credentials.
/// Not thread-safe; lines of different threads do not mix.
///
///   LogLine(LogLevel::kInfo, "upload").Add("request_id", id).Add("adapter", name);
///   2026-03-01T12:00:00.123Z level=info event=upload request_id=6f1c adapter=fr
class LogLine {
 public:
  LogLine(LogLevel level, absl::string_view event);
  ~LogLine();
  LogLine(const LogLine&) = delete;
  LogLine& operator=(const LogLine&) = delete;

  LogLine& Add(absl::string_view key, absl::string_view value);
  LogLine& Add(absl::string_view key, const absl::Status& status) {
    return Add(key, status.ToString(absl::StatusToStringMode::kWithNoExtraData));
  }
  template <typename Number>
    requires std::is_arithmetic_v<Number>
  LogLine& Add(absl::string_view key, Number value) {
    return Add(key, absl::string_view(absl::StrCat(value)));
  }

 private:
  const LogLevel level_;
  std::string text_;
};

}  // namespace tenon

#endif  // TENON_SERVER_TELEMETRY_LOGGING_H_
