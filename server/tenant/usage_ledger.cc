#include "server/tenant/usage_ledger.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"
#include "nlohmann/json.hpp"
#include "server/telemetry/logging.h"

namespace tenon {

std::string FormatUsageLine(const UsageEvent& event, absl::Time now) {
  nlohmann::ordered_json line;
  line["time"] = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", now, absl::UTCTimeZone());
  line["request_id"] = event.request_id;
  line["tenant"] = event.tenant;
  line["credential"] = event.credential;
  line["adapter"] = event.adapter;
  line["version"] = event.version;
  line["outcome"] = event.outcome;
  line["prompt_tokens"] = event.totals.prompt_tokens;
  line["cached_prompt_tokens"] = event.totals.cached_prompt_tokens;
  line["generated_tokens"] = event.totals.generated_tokens;
  line["device_ms"] = event.totals.device_seconds * 1e3;
  line["elapsed_ms"] = absl::ToInt64Milliseconds(event.elapsed);
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

absl::StatusOr<std::unique_ptr<UsageLedger>> UsageLedger::Open(Options options,
                                                               TenantDirectory* directory) {
  int fd = -1;
  if (!options.path.empty()) {
    fd = open(options.path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, mode_t{0600});
    if (fd < 0) {
      return absl::UnavailableError(absl::StrCat("cannot open the usage log '", options.path, "'"));
    }
  }
  absl::StatusOr<std::vector<UsageRecord>> flushed = directory->LoadUsage();
  if (!flushed.ok()) {
    if (fd >= 0) {
      close(fd);
    }
    return flushed.status();
  }
  return std::unique_ptr<UsageLedger>(new UsageLedger(std::move(options), directory, fd, *flushed));
}

UsageLedger::UsageLedger(Options options, TenantDirectory* directory, int fd,
                         const std::vector<UsageRecord>& flushed)
    : options_(std::move(options)), directory_(directory), fd_(fd) {
  for (const UsageRecord& record : flushed) {
    sums_[{record.tenant, record.adapter}].all = record.totals;
  }
  thread_ = std::thread([this] { Run(); });
}

UsageLedger::~UsageLedger() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
  if (fd_ >= 0) {
    close(fd_);
  }
}

void UsageLedger::Add(const UsageEvent& event) {
  std::string line;
  if (fd_ >= 0) {
    line = absl::StrCat(FormatUsageLine(event, options_.clock()), "\n");
  }
  absl::MutexLock lock(&mutex_);
  Sums& sums = sums_[{event.tenant, event.adapter}];
  sums.all += event.totals;
  sums.since_flush += event.totals;
  if (num_lines_ >= options_.max_waiting_lines) {
    ++num_dropped_;
  } else if (!line.empty()) {
    lines_ += line;
    ++num_lines_;
  }
}

void UsageLedger::AddTotals(const UsageRecord& record) {
  absl::MutexLock lock(&mutex_);
  Sums& sums = sums_[{record.tenant, record.adapter}];
  sums.all += record.totals;
  sums.since_flush += record.totals;
}

void UsageLedger::set_before_flush(std::function<void(UsageLedger&)> before_flush) {
  absl::MutexLock lock(&mutex_);
  before_flush_ = std::move(before_flush);
}

std::vector<UsageRecord> UsageLedger::Read(absl::string_view tenant) const {
  std::vector<UsageRecord> records;
  absl::MutexLock lock(&mutex_);
  for (auto it = sums_.lower_bound({std::string(tenant), ""});
       it != sums_.end() && it->first.first == tenant; ++it) {
    records.push_back({it->first.first, it->first.second, it->second.all});
  }
  return records;
}

void UsageLedger::Run() {
  while (true) {
    bool stopping = false;
    {
      absl::MutexLock lock(&mutex_);
      stopping = mutex_.AwaitWithTimeout(absl::Condition(&stopping_), options_.flush_interval);
    }
    Flush();
    if (stopping) {
      return;
    }
  }
}

void UsageLedger::Flush() {
  std::function<void(UsageLedger&)> before_flush;
  {
    absl::MutexLock lock(&mutex_);
    before_flush = before_flush_;
  }
  if (before_flush) {
    before_flush(*this);
  }
  std::string lines;
  size_t num_dropped = 0;
  std::vector<UsageRecord> more;
  {
    absl::MutexLock lock(&mutex_);
    lines.swap(lines_);
    num_lines_ = 0;
    num_dropped = std::exchange(num_dropped_, 0);
    for (auto& [subject, sums] : sums_) {
      if (!(sums.since_flush == UsageTotals())) {
        more.push_back({subject.first, subject.second, std::exchange(sums.since_flush, {})});
      }
    }
  }
  if (num_dropped > 0) {
    LogLine(LogLevel::kError, "usage_lines_dropped").Add("lines", num_dropped);
  }
  WriteLines(lines);
  if (options_.take_buckets) {
    const std::vector<BucketRecord> taken = options_.take_buckets();
    buckets_.insert(buckets_.end(), taken.begin(), taken.end());  // later ones replace earlier ones
  }
  const absl::Status status = directory_->Flush(more, buckets_);
  if (status.ok()) {
    buckets_.clear();
  }
  if (!status.ok()) {
    LogLine(LogLevel::kError, "usage_flush_failed").Add("error", status);
    absl::MutexLock lock(&mutex_);
    for (const UsageRecord& record : more) {  // for the next time
      sums_[{record.tenant, record.adapter}].since_flush += record.totals;
    }
  }
}

void UsageLedger::WriteLines(const std::string& lines) const {
  size_t written = 0;
  while (fd_ >= 0 && written < lines.size()) {
    const ssize_t count = write(fd_, lines.data() + written, lines.size() - written);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      LogLine(LogLevel::kError, "usage_log_failed").Add("bytes_lost", lines.size() - written);
      return;
    }
    written += static_cast<size_t>(count);
  }
}

}  // namespace tenon
