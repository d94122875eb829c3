// Where adapters are kept, opened from the configuration.
#ifndef TENON_SERVER_ADAPTER_STORAGE_H_
#define TENON_SERVER_ADAPTER_STORAGE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "adapters/store/adapter_store.h"
#include "server/server_config.h"

namespace tenon {

/// A folder (LocalAdapterStore) or a bucket (S3AdapterStore), as --store says. Credentials of a
/// bucket come from --s3_credentials_file or from the environment; FAILED_PRECONDITION without.
absl::StatusOr<std::unique_ptr<AdapterStore>> OpenAdapterStore(const ServerConfig& config);

}  // namespace tenon

#endif  // TENON_SERVER_ADAPTER_STORAGE_H_
