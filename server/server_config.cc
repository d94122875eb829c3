#include "server/server_config.h"

#include <algorithm>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/reflection.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/s3/s3_client.h"
#include "server/tenant/trusted_proxies.h"
#include "server/version.h"

ABSL_FLAG(std::string, model, "", "Folder of the base model, as Hugging Face lays it out.");
ABSL_FLAG(std::string, model_name, "", "Name it is served under; default: the folder's name.");
ABSL_FLAG(std::string, dtype, "auto", "auto (the checkpoint's), fp32 or bf16.");
ABSL_FLAG(std::string, quantization, "none",
          "none, or int8: the base model's matrices in int8, with a scale an output and a scale a "
          "row of activations. Adapters stay as they are. Excludes --merged_bytes.");
ABSL_FLAG(std::string, device, "cpu",
          "cpu, cuda, cuda:N (that GPU of the machine), or auto (the first GPU, else the CPU).");
ABSL_FLAG(int32_t, threads, 0, "Threads of a step; 0: one per CPU.");
ABSL_FLAG(std::string, listen, "127.0.0.1:50051", "gRPC: host:port or unix:/path.");
ABSL_FLAG(std::string, http_listen, "127.0.0.1:8080", "HTTP: /metrics, /healthz, /readyz.");
ABSL_FLAG(std::string, admin_listen, "",
          "gRPC of TenantService; default: unix:<store>/admin.sock.");
ABSL_FLAG(bool, allow_plaintext, false, "Serve without TLS where other machines reach it.");
ABSL_FLAG(bool, allow_unauthenticated, false,
          "Serve other machines with no credentials configured.");
ABSL_FLAG(std::string, tls_certificate_file, "",
          "PEM chain of the gRPC listeners; read again when changed.");
ABSL_FLAG(std::string, tls_key_file, "", "PEM key of --tls_certificate_file.");
ABSL_FLAG(std::string, tls_client_ca_file, "", "PEM authorities of client certificates.");
ABSL_FLAG(std::string, operator_key_file, "",
          "File with a key of role operator, 32 bytes or more.");
ABSL_FLAG(std::string, jwks_file, "", "Keys that sign JWTs (JWKS); read again when changed.");
ABSL_FLAG(std::string, jwt_issuer, "", "What iss of a JWT must be.");
ABSL_FLAG(std::string, jwt_audience, "", "What aud of a JWT must hold.");
ABSL_FLAG(std::string, jwt_tenant_claim, "tenant", "Claim with the tenant.");
ABSL_FLAG(std::string, jwt_role_claim, "role", "Claim with the role, or a list.");
ABSL_FLAG(std::string, certificate_rules_file, "", "Whose client certificates are (JSON).");
ABSL_FLAG(std::string, trusted_proxies, "",
          "Whose x-forwarded-for is believed: unix, addresses, CIDR blocks, with commas.");
ABSL_FLAG(absl::Duration, max_connection_idle, absl::Minutes(15),
          "A connection without calls is closed after this long.");
ABSL_FLAG(absl::Duration, max_connection_age, absl::Hours(1),
          "Connections are renewed after this long; calls on them finish.");
ABSL_FLAG(std::string, usage_log, "", "File of usage records, a JSON line a request.");
ABSL_FLAG(absl::Duration, usage_flush_interval, absl::Seconds(5),
          "What a crash loses of usage at most.");
ABSL_FLAG(
    std::string, store, "tenon-store",
    "Uploaded adapters: a folder, made when missing, or s3://bucket/prefix, shared by replicas.");
ABSL_FLAG(std::string, store_cache, "tenon-store",
          "Local folder beside --store=s3://: copies, tenants, the admin socket.");
ABSL_FLAG(int64_t, store_cache_bytes, int64_t{10} << 30, "Copies of adapters' files there.");
ABSL_FLAG(absl::Duration, store_poll_interval, absl::Seconds(5),
          "How often a shared store is looked at for what other replicas changed.");
ABSL_FLAG(std::string, s3_endpoint, "", "https://host[:port] of the store; default: AWS's.");
ABSL_FLAG(std::string, s3_region, "us-east-1", "Region that requests are signed for.");
ABSL_FLAG(bool, s3_path_style, false, "https://host/bucket/ instead of https://bucket.host/.");
ABSL_FLAG(std::string, s3_ca_file, "", "PEM authorities of the store; default: the system's.");
ABSL_FLAG(std::string, s3_credentials_file, "",
          "As AWS's tools keep it, read again when used; default: AWS_ACCESS_KEY_ID and so on.");
ABSL_FLAG(int64_t, kv_cache_bytes, 0, "Memory of the KV cache; 0: part of what is free.");
ABSL_FLAG(int64_t, kv_block_size, 16, "Tokens of a KV block.");
ABSL_FLAG(int64_t, max_batch_tokens, 512, "Tokens of a step at most.");
ABSL_FLAG(int64_t, prefill_chunk_tokens, 32,
          "Prompt tokens of a step that decodes too, for each of up to eight prompts, or two a "
          "decoded row when that is more; 0: no such bound.");
ABSL_FLAG(int64_t, max_sequences, 64, "Sequences of a step at most.");
ABSL_FLAG(int64_t, max_queued, 1024, "Sequences that wait at most; more are refused.");
ABSL_FLAG(int64_t, max_context_tokens, 0, "Prompt and answer together; 0: the model's own.");
ABSL_FLAG(bool, fair_shares, true,
          "Share the engine among tenants by weight; false: first come, first served, and neither "
          "weights nor kv_percent count.");
ABSL_FLAG(bool, share_base_prefixes, false,
          "Let tenants find each other's prompts of the base model in the prefix cache. Saves time, "
          "and shows to who measures it what others have asked.");
ABSL_FLAG(bool, deterministic, false,
          "Promise every answer the bits of a solo run; refuses to start where that cannot hold.");
ABSL_FLAG(bool, poison_freed_kv, false,
          "Overwrite KV blocks with NaN when they are freed, so that a read of them cannot go "
          "unseen. Takes all KV memory at the start.");
ABSL_FLAG(int64_t, adapter_device_bytes, int64_t{1} << 30,
          "Compiled adapters where the model runs; on a CPU this is host memory.");
ABSL_FLAG(int64_t, adapter_host_bytes, int64_t{1} << 30,
          "Files of adapters kept mapped, checked and parsed; 0: none.");
ABSL_FLAG(int64_t, merged_bytes, 0,
          "Weights of their own for adapters that carry most of the traffic; 0: none.");
ABSL_FLAG(int64_t, max_upload_bytes, int64_t{1} << 30, "All files of one upload.");
ABSL_FLAG(int64_t, max_adapter_rank, 256, "Largest rank of an uploaded adapter.");
ABSL_FLAG(int64_t, max_adapter_tensors, 20'000, "Tensors of an uploaded adapter's file.");
ABSL_FLAG(int64_t, max_adapter_header_bytes, int64_t{8} << 20, "Header of its safetensors file.");
ABSL_FLAG(int64_t, max_virtual_tokens, 1024, "Virtual tokens of an uploaded adapter.");
ABSL_FLAG(int64_t, max_bottleneck_width, 4096, "Widest bottleneck of an uploaded adapter.");
ABSL_FLAG(int64_t, max_override_bytes, int64_t{64} << 20,
          "Rows and matrices of the base that an uploaded adapter replaces.");
ABSL_FLAG(int64_t, max_adapters, 10'000, "Live adapter versions of a tenant.");
ABSL_FLAG(int64_t, max_concurrent_uploads, 8, "Uploads at the same time.");
ABSL_FLAG(std::string, log_level, "info", "debug, info, warning or error.");
ABSL_FLAG(absl::Duration, drain_timeout, absl::Seconds(30),
          "How long a stopping server lets requests finish.");
ABSL_FLAG(bool, print_config, false, "Print the configuration that holds and exit.");

namespace tenon {
namespace {

// The order in which --print_config prints.
constexpr absl::string_view kFlagNames[] = {"model",
                                            "model_name",
                                            "dtype",
                                            "quantization",
                                            "device",
                                            "threads",
                                            "listen",
                                            "http_listen",
                                            "admin_listen",
                                            "allow_plaintext",
                                            "allow_unauthenticated",
                                            "tls_certificate_file",
                                            "tls_key_file",
                                            "tls_client_ca_file",
                                            "operator_key_file",
                                            "jwks_file",
                                            "jwt_issuer",
                                            "jwt_audience",
                                            "jwt_tenant_claim",
                                            "jwt_role_claim",
                                            "certificate_rules_file",
                                            "trusted_proxies",
                                            "max_connection_idle",
                                            "max_connection_age",
                                            "usage_log",
                                            "usage_flush_interval",
                                            "store",
                                            "store_cache",
                                            "store_cache_bytes",
                                            "store_poll_interval",
                                            "s3_endpoint",
                                            "s3_region",
                                            "s3_path_style",
                                            "s3_ca_file",
                                            "s3_credentials_file",
                                            "kv_cache_bytes",
                                            "kv_block_size",
                                            "max_batch_tokens",
                                            "prefill_chunk_tokens",
                                            "max_sequences",
                                            "max_queued",
                                            "max_context_tokens",
                                            "fair_shares",
                                            "share_base_prefixes",
                                            "deterministic",
                                            "poison_freed_kv",
                                            "adapter_device_bytes",
                                            "adapter_host_bytes",
                                            "merged_bytes",
                                            "max_upload_bytes",
                                            "max_adapter_rank",
                                            "max_adapter_tensors",
                                            "max_adapter_header_bytes",
                                            "max_virtual_tokens",
                                            "max_bottleneck_width",
                                            "max_override_bytes",
                                            "max_adapters",
                                            "max_concurrent_uploads",
                                            "log_level",
                                            "drain_timeout"};

std::string VariableOf(absl::string_view flag) {
  return absl::StrCat("TENON_", absl::AsciiStrToUpper(flag));
}

absl::Status ReadEnvironment(const Environment& environment) {
  for (const absl::string_view name : kFlagNames) {
    const std::string variable = VariableOf(name);
    const char* value = environment(variable.c_str());
    std::string error;
    if (value != nullptr && !absl::FindCommandLineFlag(name)->ParseFrom(value, &error)) {
      return absl::InvalidArgumentError(
          absl::StrCat(variable, "='", value, "' is not a value of --", name, ": ", error));
    }
  }
  return absl::OkStatus();
}

// absl's flags have underscores; people write dashes.
std::vector<std::string> WithUnderscores(int argc, char** argv) {
  std::vector<std::string> args(argv, argv + argc);
  for (size_t i = 1; i < args.size(); ++i) {
    if (args[i] == "--") {
      break;
    }
    if (absl::StartsWith(args[i], "--")) {
      const auto end = std::find(args[i].begin(), args[i].end(), '=');
      std::replace(args[i].begin() + 2, end, '-', '_');
    }
  }
  return args;
}

absl::Status ParseCommandLine(int argc, char** argv) {
  std::vector<std::string> args = WithUnderscores(argc, argv);
  std::vector<char*> pointers;
  for (std::string& arg : args) {
    pointers.push_back(arg.data());
  }
  pointers.push_back(nullptr);
  const std::vector<char*> rest =
      absl::ParseCommandLine(static_cast<int>(args.size()), pointers.data());
  if (rest.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat("unexpected argument '", rest[1], "'"));
  }
  return absl::OkStatus();
}

void DescribeProgram() {
  absl::SetProgramUsageMessage(
      "Serves one base model and many LoRA adapters over gRPC.\n\n"
      "  tenon-server --model=/models/smollm2 --store=/var/lib/tenon\n\n"
      "Flags may be written with dashes or underscores. Each has an environment variable\n"
      "(--kv-cache-bytes: TENON_KV_CACHE_BYTES), which the flag overrides.");
  absl::FlagsUsageConfig usage;
  const auto is_ours = [](absl::string_view file) {
    return absl::EndsWith(file, "server/server_config.cc");
  };
  usage.contains_helpshort_flags = is_ours;
  usage.contains_help_flags = is_ours;
  usage.contains_helppackage_flags = is_ours;
  usage.version_string = [] { return absl::StrCat("tenon-server ", kVersion, "\n"); };
  absl::SetFlagsUsageConfig(usage);
}

void CollectAccess(ServerConfig& config) {
  config.admin_listen = absl::GetFlag(FLAGS_admin_listen);
  config.allow_plaintext = absl::GetFlag(FLAGS_allow_plaintext);
  config.allow_unauthenticated = absl::GetFlag(FLAGS_allow_unauthenticated);
  config.tls_certificate_file = absl::GetFlag(FLAGS_tls_certificate_file);
  config.tls_key_file = absl::GetFlag(FLAGS_tls_key_file);
  config.tls_client_ca_file = absl::GetFlag(FLAGS_tls_client_ca_file);
  config.operator_key_file = absl::GetFlag(FLAGS_operator_key_file);
  config.jwks_file = absl::GetFlag(FLAGS_jwks_file);
  config.jwt_issuer = absl::GetFlag(FLAGS_jwt_issuer);
  config.jwt_audience = absl::GetFlag(FLAGS_jwt_audience);
  config.jwt_tenant_claim = absl::GetFlag(FLAGS_jwt_tenant_claim);
  config.jwt_role_claim = absl::GetFlag(FLAGS_jwt_role_claim);
  config.certificate_rules_file = absl::GetFlag(FLAGS_certificate_rules_file);
  config.trusted_proxies = absl::GetFlag(FLAGS_trusted_proxies);
  config.max_connection_idle = absl::GetFlag(FLAGS_max_connection_idle);
  config.max_connection_age = absl::GetFlag(FLAGS_max_connection_age);
  config.usage_log = absl::GetFlag(FLAGS_usage_log);
  config.usage_flush_interval = absl::GetFlag(FLAGS_usage_flush_interval);
}

ServerConfig CollectFlags() {
  ServerConfig config;
  config.model = absl::GetFlag(FLAGS_model);
  config.model_name = absl::GetFlag(FLAGS_model_name);
  config.dtype = absl::GetFlag(FLAGS_dtype);
  config.quantization = absl::GetFlag(FLAGS_quantization);
  config.device = absl::GetFlag(FLAGS_device);
  config.threads = absl::GetFlag(FLAGS_threads);
  config.listen = absl::GetFlag(FLAGS_listen);
  config.http_listen = absl::GetFlag(FLAGS_http_listen);
  config.store = absl::GetFlag(FLAGS_store);
  config.store_cache = absl::GetFlag(FLAGS_store_cache);
  config.store_cache_bytes = absl::GetFlag(FLAGS_store_cache_bytes);
  config.store_poll_interval = absl::GetFlag(FLAGS_store_poll_interval);
  config.s3_endpoint = absl::GetFlag(FLAGS_s3_endpoint);
  config.s3_region = absl::GetFlag(FLAGS_s3_region);
  config.s3_path_style = absl::GetFlag(FLAGS_s3_path_style);
  config.s3_ca_file = absl::GetFlag(FLAGS_s3_ca_file);
  config.s3_credentials_file = absl::GetFlag(FLAGS_s3_credentials_file);
  CollectAccess(config);
  config.kv_cache_bytes = absl::GetFlag(FLAGS_kv_cache_bytes);
  config.kv_block_size = absl::GetFlag(FLAGS_kv_block_size);
  config.max_batch_tokens = absl::GetFlag(FLAGS_max_batch_tokens);
  config.prefill_chunk_tokens = absl::GetFlag(FLAGS_prefill_chunk_tokens);
  config.max_sequences = absl::GetFlag(FLAGS_max_sequences);
  config.max_queued = absl::GetFlag(FLAGS_max_queued);
  config.max_context_tokens = absl::GetFlag(FLAGS_max_context_tokens);
  config.fair_shares = absl::GetFlag(FLAGS_fair_shares);
  config.share_base_prefixes = absl::GetFlag(FLAGS_share_base_prefixes);
  config.deterministic = absl::GetFlag(FLAGS_deterministic);
  config.poison_freed_kv = absl::GetFlag(FLAGS_poison_freed_kv);
  config.adapter_device_bytes = absl::GetFlag(FLAGS_adapter_device_bytes);
  config.adapter_host_bytes = absl::GetFlag(FLAGS_adapter_host_bytes);
  config.merged_bytes = absl::GetFlag(FLAGS_merged_bytes);
  config.max_upload_bytes = absl::GetFlag(FLAGS_max_upload_bytes);
  config.max_adapter_rank = absl::GetFlag(FLAGS_max_adapter_rank);
  config.max_adapter_tensors = absl::GetFlag(FLAGS_max_adapter_tensors);
  config.max_adapter_header_bytes = absl::GetFlag(FLAGS_max_adapter_header_bytes);
  config.max_virtual_tokens = absl::GetFlag(FLAGS_max_virtual_tokens);
  config.max_bottleneck_width = absl::GetFlag(FLAGS_max_bottleneck_width);
  config.max_override_bytes = absl::GetFlag(FLAGS_max_override_bytes);
  config.max_adapters = absl::GetFlag(FLAGS_max_adapters);
  config.max_concurrent_uploads = absl::GetFlag(FLAGS_max_concurrent_uploads);
  config.log_level = absl::GetFlag(FLAGS_log_level);
  config.drain_timeout = absl::GetFlag(FLAGS_drain_timeout);
  config.print_config = absl::GetFlag(FLAGS_print_config);
  return config;
}

absl::Status CheckRange(absl::string_view flag, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, "=", value, " is not in [", low, ", ", high, "]"));
}

absl::Status CheckChoice(absl::string_view flag, const std::string& value,
                         const std::vector<absl::string_view>& choices) {
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, "=", value, " is none of ", absl::StrJoin(choices, ", ")));
}

absl::Status CheckDevice(absl::string_view device) {
  absl::string_view number = device;
  int32_t index = 0;
  if (device == "auto" || device == "cpu" || device == "cuda" ||
      (absl::ConsumePrefix(&number, "cuda:") && absl::SimpleAtoi(number, &index) && index >= 0 &&
       index < 128)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--device=", device, ": want auto, cpu, cuda or cuda:N"));
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

constexpr int64_t kMaxBytes = int64_t{1} << 44;

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

absl::Status CheckConnectionTime(absl::string_view flag, absl::Duration value) {
  if (value >= absl::Seconds(1) && value <= absl::Hours(24)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, "=", absl::FormatDuration(value), " is not in [1s, 24h]"));
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
  TENON_RETURN_IF_ERROR(CheckConnectionTime("max_connection_idle", config.max_connection_idle));
  TENON_RETURN_IF_ERROR(CheckConnectionTime("max_connection_age", config.max_connection_age));
  if (config.usage_flush_interval < absl::Milliseconds(10) ||
      config.usage_flush_interval > absl::Hours(1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--usage_flush_interval=", absl::FormatDuration(config.usage_flush_interval),
                     " is not in [10ms, 1h]"));
  }
  return absl::OkStatus();
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
  if (config.store_poll_interval < absl::Milliseconds(10) ||
      config.store_poll_interval > absl::Hours(1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--store_poll_interval=", absl::FormatDuration(config.store_poll_interval),
                     " is not in [10ms, 1h]"));
  }
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
  TENON_RETURN_IF_ERROR(CheckChoice("dtype", config.dtype, {"auto", "fp32", "bf16"}));
  TENON_RETURN_IF_ERROR(CheckChoice("quantization", config.quantization, {"none", "int8"}));
  if (config.quantization == "int8" && config.merged_bytes > 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--merged_bytes=", config.merged_bytes,
                     " with --quantization=int8: adapters are not merged into int8 weights; leave "
                     "one of the two out"));
  }
  TENON_RETURN_IF_ERROR(CheckDevice(config.device));
  if (config.quantization == "int8" && config.device != "cpu") {
    return absl::InvalidArgumentError(absl::StrCat(
        "--device=", config.device, " with --quantization=int8: int8 is computed on the CPU only"));
  }
  TENON_RETURN_IF_ERROR(
      CheckChoice("log_level", config.log_level, {"debug", "info", "warning", "error"}));
  TENON_RETURN_IF_ERROR(CheckRange("threads", config.threads, 0, 1024));
  TENON_RETURN_IF_ERROR(CheckAddress("listen", config.listen, /*unix_allowed=*/true));
  TENON_RETURN_IF_ERROR(CheckAddress("http_listen", config.http_listen, /*unix_allowed=*/false));
  TENON_RETURN_IF_ERROR(CheckAccess(config));
  TENON_RETURN_IF_ERROR(CheckSizes(config));
  TENON_RETURN_IF_ERROR(CheckAdapters(config));
  TENON_RETURN_IF_ERROR(CheckObjectStore(config));
  if (config.drain_timeout < absl::ZeroDuration() || config.drain_timeout > absl::Hours(24)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--drain_timeout=", absl::FormatDuration(config.drain_timeout), " is not in [0, 24h]"));
  }
  return absl::OkStatus();
}

absl::StatusOr<ServerConfig> ReadServerConfig(int argc, char** argv,
                                              const Environment& environment) {
  static const bool described = (DescribeProgram(), true);  // absl takes it once
  static_cast<void>(described);
  TENON_RETURN_IF_ERROR(ReadEnvironment(environment));
  TENON_RETURN_IF_ERROR(ParseCommandLine(argc, argv));
  ServerConfig config = CollectFlags();
  TENON_RETURN_IF_ERROR(ValidateServerConfig(config));
  return config;
}

std::string PrintServerConfig() {
  std::string text;
  for (const absl::string_view name : kFlagNames) {
    absl::StrAppend(&text, "--", name, "=", absl::FindCommandLineFlag(name)->CurrentValue(), "\n");
  }
  return text;
}

}  // namespace tenon
