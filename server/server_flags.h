// ServerConfig from flags and environment.
#ifndef TENON_SERVER_SERVER_FLAGS_H_
#define TENON_SERVER_SERVER_FLAGS_H_

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "server/server_config.h"

namespace tenon {

/// Reads the environment variable of a name, or gives null.
using Environment = std::function<const char*(const char* name)>;

/// Flags win over TENON_* variables (--kv-cache-bytes: TENON_KV_CACHE_BYTES), which win over the
/// defaults. --help and --version print and exit. INVALID_ARGUMENT, naming flag or variable, for a
/// value that is not one; also for arguments that are no flags.
///
/// The flags are the process's: what one call has read holds for the next. Call it before other
/// threads exist.
absl::StatusOr<ServerConfig> ReadServerConfig(int argc, char** argv,
                                              const Environment& environment);

/// One "flag=value" a line, as a flag file takes them.
std::string PrintServerConfig();

}  // namespace tenon

#endif  // TENON_SERVER_SERVER_FLAGS_H_
