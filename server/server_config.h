// ServerConfig: what the operator says.
#ifndef TENON_SERVER_SERVER_CONFIG_H_
#define TENON_SERVER_SERVER_CONFIG_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace tenon {

/// As ReadServerConfig (server_flags.h) gives it, every value is within its range. Zero where
/// "chosen at start" is written.
struct ServerConfig {
  std::string model;         ///< Hugging Face folder
  std::string model_name;    ///< name under which it is served; the folder's own when not given
  std::string dtype;         ///< "auto", "fp32" or "bf16"
  std::string quantization;  ///< "none" or "int8"
  std::string device;        ///< "auto", "cpu", "cuda" or "cuda:N"
  int32_t threads = 0;       ///< of a step; 0: one per CPU
  int64_t tensor_parallel_size = 1;  ///< ranks that share the model
  std::string listen;                ///< gRPC
  std::string http_listen;
  std::string admin_listen;      ///< gRPC of TenantService; empty: admin.sock in the store's folder
  bool allow_plaintext = false;  ///< on addresses that other machines reach
  bool allow_unauthenticated = false;  ///< from other machines, without any credentials configured
  std::string tls_certificate_file, tls_key_file, tls_client_ca_file;  ///< PEM; empty: none
  std::string operator_key_file;  ///< holds an operator's key; empty: none
  std::string jwks_file;          ///< empty: no JWTs
  std::string jwt_issuer, jwt_audience, jwt_tenant_claim, jwt_role_claim;
  std::string trusted_proxies;  ///< as TrustedProxies::Parse takes them; empty: none
  absl::Duration max_connection_idle, max_connection_age;
  std::string certificate_rules_file;  ///< empty: certificates prove nothing
  std::string usage_log;               ///< empty: none
  absl::Duration usage_flush_interval;
  std::string store;              ///< folder of uploaded adapters, or s3://bucket/prefix
  std::string store_cache;        ///< local folder beside a store that is no folder
  int64_t store_cache_bytes = 0;  ///< of blobs there
  absl::Duration store_poll_interval;
  std::string s3_endpoint, s3_region, s3_ca_file, s3_credentials_file;
  bool s3_path_style = false;
  int64_t kv_cache_bytes = 0;         ///< 0: a part of the memory that is free at start
  int64_t kv_block_size = 16;         ///< tokens
  int64_t max_batch_tokens = 512;     ///< per step
  int64_t prefill_chunk_tokens = 16;  ///< per step that decodes too; 0: no such bound
  int64_t max_sequences = 64;         ///< per step
  int64_t max_queued = 1024;          ///< sequences
  int64_t max_context_tokens = 0;     ///< 0: the model's own
  bool fair_shares = true;            ///< among tenants; false: first come, first served
  bool share_base_prefixes = false;   ///< tenants find each other's prefixes of the base model
  bool cuda_graphs = true;            ///< decode steps on a GPU are recorded
  bool deterministic = false;         ///< as if every request asked for it
  bool poison_freed_kv = false;       ///< overwrite freed KV blocks with NaN
  int64_t adapter_device_bytes = 0;   ///< of compiled adapters
  int64_t adapter_host_bytes = 0;     ///< of adapters' files, mapped and parsed
  int64_t merged_bytes = 0;           ///< of merged weights; 0: nothing is merged
  int64_t max_upload_bytes = 0;
  int64_t max_adapter_rank = 0;
  int64_t max_adapter_tensors = 0;
  int64_t max_adapter_header_bytes = 0;  ///< of a safetensors file
  int64_t max_virtual_tokens = 0;
  int64_t max_bottleneck_width = 0;
  int64_t max_override_bytes = 0;  ///< rows and matrices of the base that an adapter replaces
  int64_t max_adapters = 0;        ///< live versions of a tenant
  int64_t max_concurrent_uploads = 0;
  std::string log_level;
  absl::Duration drain_timeout;
  bool print_config = false;
};

/// Whether the store is a bucket.
bool IsObjectStore(const ServerConfig& config);

/// The local folder: of the store itself, or beside it. It holds the tenants and the admin socket.
const std::string& LocalFolder(const ServerConfig& config);

/// Whether "host:port" or "unix:/path" is reached from this machine only. A host name other than
/// localhost is not, since it may resolve to anything.
bool IsLocalAddress(absl::string_view address);

/// INVALID_ARGUMENT, naming the flag, its value and what it must hold.
absl::Status ValidateServerConfig(const ServerConfig& config);

}  // namespace tenon

#endif  // TENON_SERVER_SERVER_CONFIG_H_
