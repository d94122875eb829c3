#include "server/server_config.h"

#include <algorithm>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "adapters/base/device_name.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/s3/s3_client.h"
#include "server/tenant/trusted_proxies.h"

namespace tenon {
namespace {

constexpr int64_t kMaxBytes = int64_t{1} << 44;
// Of what is done again and again.
constexpr absl::Duration kMinInterval = absl::Milliseconds(10), kMaxInterval = absl::Hours(1);

absl::Status CheckRange(absl::string_view flag, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, "=", value, " is not in [", low, ", ", high, "]"));
}

absl::Status CheckDuration(absl::string_view flag, absl::Duration value, absl::Duration low,
                           absl::Duration high) {
  if (value >= low && value <= high) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("--", flag, "=", absl::FormatDuration(value),
                                                 " is not in [", absl::FormatDuration(low), ", ",
                                                 absl::FormatDuration(high), "]"));
}

absl::Status CheckChoice(absl::string_view flag, const std::string& value,
                         const std::vector<absl::string_view>& choices) {
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, "=", value, " is none of ", absl::StrJoin(choices, ", ")));
}

absl::Status CheckAddress(absl::string_view flag, absl::string_view value, bool unix_allowed) {
  if (unix_allowed && absl::StartsWith(value, "unix:") && value.size() > 5) {
    return absl::OkStatus();
  }
  const size_t colon = value.rfind(':');
  int port = -1;
  if (colon != absl::string_view::npos && colon > 0 &&
      absl::SimpleAtoi(value.substr(colon + 1), &port) && port >= 0 && port <= 65535) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("--", flag, "=", value, " is not host:port",
                                                 unix_allowed ? " or unix:/path" : ""));
}

// What the model is computed with, and on.
absl::Status CheckComputation(const ServerConfig& config) {
  TENON_RETURN_IF_ERROR(CheckChoice("dtype", config.dtype, {"auto", "fp32", "bf16"}));
  TENON_RETURN_IF_ERROR(CheckChoice("quantization", config.quantization, {"none", "int8"}));
  if (config.quantization == "int8" && config.merged_bytes > 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--merged_bytes=", config.merged_bytes,
                     " with --quantization=int8: adapters are not merged into int8 weights; leave "
                     "one of the two out"));
  }
  TENON_RETURN_IF_ERROR(Annotate(ParseDeviceName(config.device).status(), "--device"));
  if (config.quantization == "int8" && config.device != "cpu") {
    return absl::InvalidArgumentError(absl::StrCat(
        "--device=", config.device, " with --quantization=int8: int8 is computed on the CPU only"));
  }
  TENON_RETURN_IF_ERROR(CheckRange("threads", config.threads, 0, 1024));
  return CheckRange("tensor_parallel_size", config.tensor_parallel_size, 1, 64);
}

absl::Status CheckSizes(const ServerConfig& config) {
  TENON_RETURN_IF_ERROR(CheckRange("kv_cache_bytes", config.kv_cache_bytes, 0, kMaxBytes));
  TENON_RETURN_IF_ERROR(CheckRange("kv_block_size", config.kv_block_size, 1, 256));
  TENON_RETURN_IF_ERROR(CheckRange("max_batch_tokens", config.max_batch_tokens, 1, 1 << 20));
  TENON_RETURN_IF_ERROR(
      CheckRange("prefill_chunk_tokens", config.prefill_chunk_tokens, 0, 1 << 20));
  TENON_RETURN_IF_ERROR(CheckRange("max_sequences", config.max_sequences, 1, 4096));
  TENON_RETURN_IF_ERROR(CheckRange("max_queued", config.max_queued, 1, 1 << 20));
  TENON_RETURN_IF_ERROR(CheckRange("max_context_tokens", config.max_context_tokens, 0, 1 << 24));
  if (config.max_batch_tokens < config.max_sequences) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--max_batch_tokens=", config.max_batch_tokens, " is less than --max_sequences=",
        config.max_sequences, ": a step could not give each sequence its token"));
  }
  return absl::OkStatus();
}

// Flags that only say something together.
absl::Status CheckTogether(absl::string_view flag, const std::string& value,
                           absl::string_view other, const std::string& other_value) {
  if (value.empty() || !other_value.empty()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("--", flag, " needs --", other));
}

absl::Status CheckPlaintext(absl::string_view flag, const std::string& address,
                            const ServerConfig& config) {
  if (config.allow_plaintext || !config.tls_certificate_file.empty() || IsLocalAddress(address)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "--", flag, "=", address,
      " is reached by other machines: give --tls_certificate_file, or --allow_plaintext when "
      "something in front of it encrypts"));
}

absl::Status CheckAccess(const ServerConfig& config) {
  if (!config.admin_listen.empty()) {
    TENON_RETURN_IF_ERROR(CheckAddress("admin_listen", config.admin_listen, true));
  }
  TENON_RETURN_IF_ERROR(CheckPlaintext("listen", config.listen, config));
  TENON_RETURN_IF_ERROR(CheckPlaintext("admin_listen", config.admin_listen, config));
  TENON_RETURN_IF_ERROR(CheckTogether("tls_certificate_file", config.tls_certificate_file,
                                      "tls_key_file", config.tls_key_file));
  TENON_RETURN_IF_ERROR(CheckTogether("tls_key_file", config.tls_key_file, "tls_certificate_file",
                                      config.tls_certificate_file));
  TENON_RETURN_IF_ERROR(CheckTogether("tls_client_ca_file", config.tls_client_ca_file,
                                      "tls_certificate_file", config.tls_certificate_file));
  TENON_RETURN_IF_ERROR(CheckTogether("certificate_rules_file", config.certificate_rules_file,
                                      "tls_client_ca_file", config.tls_client_ca_file));
  TENON_RETURN_IF_ERROR(
      CheckTogether("jwt_issuer", config.jwt_issuer, "jwks_file", config.jwks_file));
  if (const auto proxies = TrustedProxies::Parse(config.trusted_proxies); !proxies.ok()) {
    return Annotate(proxies.status(), "--trusted_proxies");
  }
  TENON_RETURN_IF_ERROR(CheckDuration("max_connection_idle", config.max_connection_idle,
                                      absl::Seconds(1), absl::Hours(24)));
  TENON_RETURN_IF_ERROR(CheckDuration("max_connection_age", config.max_connection_age,
                                      absl::Seconds(1), absl::Hours(24)));
  return CheckDuration("usage_flush_interval", config.usage_flush_interval, kMinInterval,
                       kMaxInterval);
}

absl::Status CheckObjectStore(const ServerConfig& config) {
  if (!IsObjectStore(config)) {
    return absl::OkStatus();
  }
  if (const auto location = ParseS3Location(config.store); !location.ok()) {
    return Annotate(location.status(), "--store");
  }
  if (config.store_cache.empty()) {
    return absl::InvalidArgumentError("--store_cache must name a folder with --store=s3://");
  }
  if (!config.s3_endpoint.empty() && !absl::StartsWith(config.s3_endpoint, "https://") &&
      !absl::StartsWith(config.s3_endpoint, "http://")) {
    return absl::InvalidArgumentError(
        absl::StrCat("--s3_endpoint=", config.s3_endpoint, " is not https://host[:port]"));
  }
  TENON_RETURN_IF_ERROR(
      CheckDuration("store_poll_interval", config.store_poll_interval, kMinInterval, kMaxInterval));
  return CheckRange("store_cache_bytes", config.store_cache_bytes, 1, kMaxBytes);
}

absl::Status CheckAdapters(const ServerConfig& config) {
  TENON_RETURN_IF_ERROR(
      CheckRange("adapter_device_bytes", config.adapter_device_bytes, 1, kMaxBytes));
  TENON_RETURN_IF_ERROR(CheckRange("adapter_host_bytes", config.adapter_host_bytes, 0, kMaxBytes));
  TENON_RETURN_IF_ERROR(CheckRange("merged_bytes", config.merged_bytes, 0, kMaxBytes));
  TENON_RETURN_IF_ERROR(CheckRange("max_upload_bytes", config.max_upload_bytes, 1, kMaxBytes));
  TENON_RETURN_IF_ERROR(CheckRange("max_adapter_rank", config.max_adapter_rank, 1, 4096));
  TENON_RETURN_IF_ERROR(
      CheckRange("max_adapter_tensors", config.max_adapter_tensors, 1, 1'000'000));
  TENON_RETURN_IF_ERROR(
      CheckRange("max_adapter_header_bytes", config.max_adapter_header_bytes, 64, 100 << 20));
  TENON_RETURN_IF_ERROR(CheckRange("max_virtual_tokens", config.max_virtual_tokens, 1, 1 << 20));
  TENON_RETURN_IF_ERROR(
      CheckRange("max_bottleneck_width", config.max_bottleneck_width, 1, 1 << 20));
  TENON_RETURN_IF_ERROR(CheckRange("max_override_bytes", config.max_override_bytes, 0, kMaxBytes));
  TENON_RETURN_IF_ERROR(CheckRange("max_adapters", config.max_adapters, 1, 1'000'000));
  return CheckRange("max_concurrent_uploads", config.max_concurrent_uploads, 1, 1024);
}

}  // namespace

bool IsObjectStore(const ServerConfig& config) { return absl::StartsWith(config.store, "s3://"); }

const std::string& LocalFolder(const ServerConfig& config) {
  return IsObjectStore(config) ? config.store_cache : config.store;
}

bool IsLocalAddress(absl::string_view address) {
  const absl::string_view host = address.substr(0, address.rfind(':'));
  return address.empty() || absl::StartsWith(address, "unix:") || absl::StartsWith(host, "127.") ||
         host == "localhost" || host == "[::1]";
}

absl::Status ValidateServerConfig(const ServerConfig& config) {
  if (config.model.empty()) {
    return absl::InvalidArgumentError("--model (or TENON_MODEL) must name a model folder");
  }
  if (config.store.empty()) {
    return absl::InvalidArgumentError("--store (or TENON_STORE) must name a folder");
  }
  TENON_RETURN_IF_ERROR(CheckComputation(config));
  TENON_RETURN_IF_ERROR(
      CheckChoice("log_level", config.log_level, {"debug", "info", "warning", "error"}));
  TENON_RETURN_IF_ERROR(CheckAddress("listen", config.listen, /*unix_allowed=*/true));
  TENON_RETURN_IF_ERROR(CheckAddress("http_listen", config.http_listen, /*unix_allowed=*/false));
  TENON_RETURN_IF_ERROR(CheckAccess(config));
  TENON_RETURN_IF_ERROR(CheckSizes(config));
  TENON_RETURN_IF_ERROR(CheckAdapters(config));
  TENON_RETURN_IF_ERROR(CheckObjectStore(config));
  return CheckDuration("drain_timeout", config.drain_timeout, absl::ZeroDuration(),
                       absl::Hours(24));
}

}  // namespace tenon
