// UsageLedger: who used what, for bills: sums in the database, a line for each request in a file.
#ifndef TENON_SERVER_TENANT_USAGE_LEDGER_H_
#define TENON_SERVER_TENANT_USAGE_LEDGER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/tenant/tenant_directory.h"

namespace tenon {

/// One generation request that has ended.
struct UsageEvent {
  std::string request_id;
  std::string tenant;
  std::string credential;
  std::string adapter;  ///< name without a version; empty: the base model
  int64_t version = 0;  ///< of the adapter
  std::string outcome;  ///< a status code's name in lower case
  UsageTotals totals;   ///< requests is 1
  absl::Duration elapsed;
};

/// One JSON object, without a line's end:
/// {"time":"2026-03-01T12:00:00Z","request_id":"6f1c",...}.
std::string FormatUsageLine(const UsageEvent& event, absl::Time now);

/// Adding never waits for a disk: a thread of the ledger's own writes lines and sums each
/// `flush_interval` and at the end. What a crash can lose is what came since the last flush.
///
/// Thread-safe.
class UsageLedger {
 public:
  struct Options {
    std::string path;  ///< of the file of lines, which is appended to; empty: none
    absl::Duration flush_interval = absl::Seconds(5);
    size_t max_waiting_lines = 100'000;  ///< between flushes; further ones are dropped, and logged
    std::function<absl::Time()> clock;
    /// What else is to be kept: QuotaBook::TakeChangedBuckets. Runs on the ledger's thread.
    std::function<std::vector<BucketRecord>()> take_buckets;
  };

  /// `directory` is borrowed, and holds the sums. UNAVAILABLE when the file cannot be opened.
  static absl::StatusOr<std::unique_ptr<UsageLedger>> Open(Options options,
                                                           TenantDirectory* directory);
  ~UsageLedger();
  UsageLedger(const UsageLedger&) = delete;
  UsageLedger& operator=(const UsageLedger&) = delete;

  void Add(const UsageEvent& event) ABSL_LOCKS_EXCLUDED(mutex_);
  /// Adds to the sums what no request accounts for: memory and loads of an adapter.
  void AddTotals(const UsageRecord& record) ABSL_LOCKS_EXCLUDED(mutex_);

  /// Adds what is counted elsewhere, before each flush from now on. Runs on the ledger's thread.
  void set_before_flush(std::function<void(UsageLedger&)> before_flush) ABSL_LOCKS_EXCLUDED(mutex_);

  /// A tenant's sums by adapter, up to this moment.
  std::vector<UsageRecord> Read(absl::string_view tenant) const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Subject = std::pair<std::string, std::string>;  // tenant, adapter
  struct Sums {
    UsageTotals all;
    UsageTotals since_flush;
  };

  UsageLedger(Options options, TenantDirectory* directory, int fd,
              const std::vector<UsageRecord>& flushed);
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  void Flush() ABSL_LOCKS_EXCLUDED(mutex_);
  void WriteLines(const std::string& lines) const;

  const Options options_;
  TenantDirectory* const directory_;
  const int fd_;                       // -1: none
  std::vector<BucketRecord> buckets_;  // not flushed yet; the ledger's thread's
  mutable absl::Mutex mutex_;
  absl::btree_map<Subject, Sums> sums_ ABSL_GUARDED_BY(mutex_);
  std::string lines_ ABSL_GUARDED_BY(mutex_);
  size_t num_lines_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t num_dropped_ ABSL_GUARDED_BY(mutex_) = 0;
  std::function<void(UsageLedger&)> before_flush_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: starts when everything above is there
};

}  // namespace tenon

#endif  // TENON_SERVER_TENANT_USAGE_LEDGER_H_
