#include "server/adapter_storage.h"

#include <cstdlib>
#include <string>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "adapters/base/status_macros.h"
#include "adapters/s3/curl_transport.h"
#include "adapters/store/local_store.h"
#include "adapters/store/s3_store.h"

namespace tenon {
namespace {

double DrawChance() {
  thread_local absl::BitGen generator;
  return absl::Uniform<double>(generator, 0, 1);
}

std::string DrawNonce() {
  thread_local absl::BitGen generator;
  return absl::StrFormat("%016x%016x", absl::Uniform<uint64_t>(generator),
                         absl::Uniform<uint64_t>(generator));
}

absl::StatusOr<std::unique_ptr<AdapterStore>> OpenBucket(const ServerConfig& config) {
  S3AdapterStore::Options options;
  S3Client::Options& client = options.client;
  TENON_ASSIGN_OR_RETURN(client.location, ParseS3Location(config.store));
  client.location.endpoint = config.s3_endpoint;
  client.location.region = config.s3_region;
  client.location.path_style = config.s3_path_style;
  if (config.s3_credentials_file.empty()) {
    TENON_ASSIGN_OR_RETURN(client.credentials, CredentialsFromEnvironment([](const char* name) {
                             return static_cast<const char*>(std::getenv(name));
                           }));
  } else {
    TENON_ASSIGN_OR_RETURN(client.credentials, CredentialsFromFile(config.s3_credentials_file));
  }
  CurlTransport::Options transport;
  transport.ca_file = config.s3_ca_file;
  client.transport = [curl = std::make_shared<CurlTransport>(std::move(transport))](
                         const HttpRequest& request) { return curl->Send(request); };
  client.retry.clock = [] { return absl::Now(); };
  client.retry.sleep = [](absl::Duration time) { absl::SleepFor(time); };
  client.retry.chance = DrawChance;
  options.cache_folder = config.store_cache;
  options.cache_bytes = config.store_cache_bytes;
  options.clock = [] { return absl::Now(); };
  options.draw_nonce = DrawNonce;
  return S3AdapterStore::Create(std::move(options));
}

}  // namespace

absl::StatusOr<std::unique_ptr<AdapterStore>> OpenAdapterStore(const ServerConfig& config) {
  if (IsObjectStore(config)) {
    return OpenBucket(config);
  }
  return LocalAdapterStore::Create(config.store);
}

}  // namespace tenon
