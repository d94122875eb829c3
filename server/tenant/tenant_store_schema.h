// The tables of the tenants' database, and how times stand in them.
#ifndef TENON_SERVER_TENANT_TENANT_STORE_SCHEMA_H_
#define TENON_SERVER_TENANT_TENANT_STORE_SCHEMA_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "adapters/base/sqlite.h"

namespace tenon {

/// Opens or creates the database and adds the tables that it does not have yet. FAILED_PRECONDITION
/// when a newer Tenon made it.
absl::StatusOr<SqliteConnection> OpenTenantDatabase(const std::string& path);

/// A time as it is stored: Unix time in nanoseconds; infinite times are the ends of the range.
int64_t ToNanos(absl::Time time);
absl::Time FromNanos(int64_t nanos);

}  // namespace tenon

#endif  // TENON_SERVER_TENANT_TENANT_STORE_SCHEMA_H_
