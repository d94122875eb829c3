// The tables of the catalogue, and how older ones become today's.
#ifndef TENON_ADAPTERS_STORE_CATALOGUE_SCHEMA_H_
#define TENON_ADAPTERS_STORE_CATALOGUE_SCHEMA_H_

#include <string>

#include "absl/status/statusor.h"
#include "adapters/base/sqlite.h"

namespace tenon {

/// Opens or creates the database, checks its structure and brings it to today's schema.
/// FAILED_PRECONDITION when a newer Tenon made it; DATA_LOSS when it is damaged.
absl::StatusOr<SqliteConnection> OpenCatalogueDatabase(const std::string& path);

}  // namespace tenon

#endif  // TENON_ADAPTERS_STORE_CATALOGUE_SCHEMA_H_
