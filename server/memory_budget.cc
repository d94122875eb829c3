#include "server/memory_budget.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace tenon {
namespace {

// When the system does not tell.
constexpr int64_t kFallbackBytes = int64_t{1} << 30;

// The file's text, or "" when it cannot be read.
std::string ReadSmallFile(const char* path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

std::optional<int64_t> ParseMemAvailable(absl::string_view meminfo) {
  for (absl::string_view line : absl::StrSplit(meminfo, '\n')) {
    int64_t kibibytes = 0;
    if (absl::ConsumePrefix(&line, "MemAvailable:") && absl::ConsumeSuffix(&line, "kB") &&
        absl::SimpleAtoi(line, &kibibytes)) {
      return kibibytes * 1024;
    }
  }
  return std::nullopt;
}

std::optional<int64_t> ParseCgroupRoom(absl::string_view max, absl::string_view current) {
  int64_t max_bytes = 0;
  int64_t current_bytes = 0;
  if (!absl::SimpleAtoi(max, &max_bytes) || !absl::SimpleAtoi(current, &current_bytes)) {
    return std::nullopt;
  }
  return std::max<int64_t>(max_bytes - current_bytes, 0);
}

std::optional<int64_t> AvailableMemoryBytes() {
  const std::optional<int64_t> machine = ParseMemAvailable(ReadSmallFile("/proc/meminfo"));
  // In a container with its own cgroup namespace, as all current runtimes give, this is its group.
  const std::optional<int64_t> group = ParseCgroupRoom(
      ReadSmallFile("/sys/fs/cgroup/memory.max"), ReadSmallFile("/sys/fs/cgroup/memory.current"));
  if (machine.has_value() && group.has_value()) {
    return std::min(*machine, *group);
  }
  return machine.has_value() ? machine : group;
}

int64_t ChooseKvCacheBytes(std::optional<int64_t> available_bytes, int64_t most_bytes) {
  const int64_t half = available_bytes.has_value() ? *available_bytes / 2 : kFallbackBytes;
  return std::min(half, most_bytes);
}

}  // namespace tenon
