// TenantDirectory: which tenants and keys there are, durable and in memory.
#ifndef TENON_SERVER_TENANT_TENANT_DIRECTORY_H_
#define TENON_SERVER_TENANT_TENANT_DIRECTORY_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/tenant/api_key.h"
#include "server/tenant/tenant_records.h"
#include "server/tenant/tenant_store.h"

namespace tenon {

/// Who asks for a change, for the audit log.
struct AuditSource {
  std::string actor;   ///< Identity::credential
  std::string peer;    ///< his address
  std::string action;  ///< the method
};

/// A key that was just made. The only time that its text is there.
struct IssuedKey {
  KeyRecord record;
  std::string text;
};

/// Answers from memory, in time that does not grow with the number of tenants and keys; a change is
/// on disk, with its audit entry, and in force for every later call when the method returns.
///
/// Keys are never forgotten while their tenant exists: a revoked one stays listed. The first key
/// must be an operator's, since from then on nobody is let in without one.
///
/// Thread-safe. Readers never wait for a writer's I/O.
class TenantDirectory {
 public:
  struct Options {
    std::string path;  ///< the database
    ApiKeyHasher hasher;
    std::function<absl::Time()> clock;
    RandomBytes random = DrawRandomBytes;
  };

  /// Opens the database, or makes one that holds the tenant `default` alone.
  static absl::StatusOr<std::unique_ptr<TenantDirectory>> Open(Options options);
  TenantDirectory(const TenantDirectory&) = delete;
  TenantDirectory& operator=(const TenantDirectory&) = delete;

  /// The owner of an API key. UNAUTHENTICATED with reason CREDENTIALS_INVALID (which does not say
  /// whether such an id exists), CREDENTIALS_REVOKED or CREDENTIALS_EXPIRED; PERMISSION_DENIED with
  /// TENANT_SUSPENDED.
  absl::StatusOr<Identity> AuthenticateKey(absl::string_view text) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  /// OK when there is such a tenant and it is active, else as AuthenticateKey.
  absl::Status CheckActive(absl::string_view tenant) const ABSL_LOCKS_EXCLUDED(mutex_);

  /// Whether a key was ever issued.
  bool has_keys() const ABSL_LOCKS_EXCLUDED(mutex_);

  /// No limits for a tenant that is not there.
  TenantLimits LimitsOf(absl::string_view tenant) const ABSL_LOCKS_EXCLUDED(mutex_);

  /// NOT_FOUND (TENANT_NOT_FOUND).
  absl::StatusOr<TenantRecord> Find(absl::string_view tenant) const ABSL_LOCKS_EXCLUDED(mutex_);
  /// By name.
  std::vector<TenantRecord> List() const ABSL_LOCKS_EXCLUDED(mutex_);
  /// By id. `tenant` empty: the operators'.
  std::vector<KeyRecord> ListKeys(absl::string_view tenant) const ABSL_LOCKS_EXCLUDED(mutex_);
  /// NOT_FOUND (KEY_NOT_FOUND).
  absl::StatusOr<KeyRecord> FindKey(absl::string_view id) const ABSL_LOCKS_EXCLUDED(mutex_);

  /// ALREADY_EXISTS, or INVALID_ARGUMENT for a name or a limit that is none.
  absl::StatusOr<TenantRecord> Create(absl::string_view name, const TenantLimits& limits,
                                      const AuditSource& source);
  absl::StatusOr<TenantRecord> SetState(absl::string_view name, TenantState state,
                                        const AuditSource& source);
  absl::StatusOr<TenantRecord> SetLimits(absl::string_view name, const TenantLimits& limits,
                                         const AuditSource& source);
  /// With all its keys.
  absl::Status Delete(absl::string_view name, const AuditSource& source);

  /// FAILED_PRECONDITION (OPERATOR_KEY_MISSING) when it would be the first key and is no
  /// operator's. `tenant` is empty exactly for an operator's.
  absl::StatusOr<IssuedKey> CreateKey(absl::string_view tenant, Role role, absl::Time expires,
                                      absl::string_view note, const AuditSource& source);
  /// A new key like `id`, which itself stays valid for `overlap` at most.
  absl::StatusOr<IssuedKey> RotateKey(absl::string_view id, absl::Duration overlap,
                                      const AuditSource& source);
  absl::StatusOr<KeyRecord> RevokeKey(absl::string_view id, const AuditSource& source);

  /// Whether `reader` may use the adapter `adapter` of `owner`: its own, one that is shared with
  /// it, or one that is for everybody. Says nothing about whether there is such an adapter.
  bool MayUse(absl::string_view reader, absl::string_view owner, absl::string_view adapter) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  /// With nobody when nothing was said.
  ShareRecord ShareOf(absl::string_view owner, absl::string_view adapter) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  /// What others let `reader` use, by owner and adapter.
  std::vector<ShareRecord> SharedWith(absl::string_view reader) const ABSL_LOCKS_EXCLUDED(mutex_);
  /// Replaces who may use an adapter. INVALID_ARGUMENT for a reader that is no name, or for more
  /// than 1000 of them. Whether the adapter exists is the caller's to know.
  absl::StatusOr<ShareRecord> Share(ShareRecord share, const AuditSource& source);

  /// What was said about the place of a version; says nothing when nothing was.
  PlacementRecord PlacementOf(absl::string_view tenant, absl::string_view adapter,
                              int64_t version) const ABSL_LOCKS_EXCLUDED(mutex_);
  /// By tenant, adapter and version.
  std::vector<PlacementRecord> Placements() const ABSL_LOCKS_EXCLUDED(mutex_);
  /// Replaces what held for that version. Whether there is such a version is the caller's to know.
  absl::Status Place(const PlacementRecord& placement, const AuditSource& source);
  /// Forgets what was said about versions that are gone. Writes no audit entry.
  absl::Status DropPlacements(const std::vector<PlacementRecord>& placements);

  /// Writes down what was tried and did not come to a change.
  absl::Status Audit(const AuditSource& source, absl::string_view tenant, absl::string_view object,
                     absl::string_view outcome);
  absl::StatusOr<std::vector<AuditEntry>> ListAudit(absl::string_view tenant, int64_t before,
                                                    int64_t limit);

  /// Sums as last flushed.
  absl::StatusOr<std::vector<UsageRecord>> LoadUsage();
  /// Rates' levels as last flushed.
  absl::StatusOr<std::vector<BucketRecord>> LoadBuckets();
  /// Adds `more` to the durable sums, replaces `buckets`, and writes when keys were last used.
  absl::Status Flush(const std::vector<UsageRecord>& more,
                     const std::vector<BucketRecord>& buckets = {});

 private:
  struct KeyEntry {
    explicit KeyEntry(KeyRecord key);
    const KeyRecord record;             // but for last_used
    std::atomic<int64_t> last_used_ns;  // 0: never
    std::atomic<bool> used_since_flush = false;
  };
  using Keys = absl::flat_hash_map<std::string, std::shared_ptr<KeyEntry>>;
  using PlacementKey = std::tuple<std::string, std::string, int64_t>;  // tenant, adapter, version

  TenantDirectory(Options options, TenantStore store);
  absl::Status Load() ABSL_LOCKS_EXCLUDED(write_mutex_, mutex_);

  AuditEntry Entry(const AuditSource& source, absl::string_view tenant,
                   absl::string_view object) const;
  absl::Status Put(const TenantRecord& record, const AuditSource& source)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mutex_);
  absl::Status PutKeys(std::vector<KeyRecord> records, const AuditSource& source)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mutex_);
  IssuedKey Issue(absl::string_view tenant, Role role, absl::Time expires, absl::string_view note);
  /// Puts them into memory.
  void Remember(std::vector<KeyRecord> keys) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static KeyRecord WithLastUse(const KeyEntry& entry);
  /// The key of shares_.
  static std::string ShareKey(absl::string_view owner, absl::string_view adapter);

  const Options options_;
  absl::Mutex write_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);  // held across I/O, by writers only
  TenantStore store_ ABSL_GUARDED_BY(write_mutex_);
  mutable absl::Mutex mutex_;
  absl::btree_map<std::string, TenantRecord> tenants_ ABSL_GUARDED_BY(mutex_);
  Keys keys_ ABSL_GUARDED_BY(mutex_);
  // By "owner/adapter"; neither name has a slash.
  absl::btree_map<std::string, ShareRecord> shares_ ABSL_GUARDED_BY(mutex_);
  absl::btree_map<PlacementKey, PlacementRecord> placements_ ABSL_GUARDED_BY(mutex_);
};

/// Each limit in its range (kLimitFields). INVALID_ARGUMENT, naming the field.
absl::Status ValidateLimits(const TenantLimits& limits);

/// UNAUTHENTICATED, reason CREDENTIALS_INVALID.
absl::Status InvalidCredentialsError();

}  // namespace tenon

#endif  // TENON_SERVER_TENANT_TENANT_DIRECTORY_H_
