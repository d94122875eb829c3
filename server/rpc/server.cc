#include "server/rpc/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <grpcpp/server_builder.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.pb.h"

namespace tenon {
namespace {

// gRPC's own health service registers no descriptor; without this reference the linker would drop
// the one that we have, and reflection would not know the service.
void RegisterHealthDescriptor() { grpc::health::v1::HealthCheckRequest::descriptor(); }

void SetLimits(const RpcServerOptions& options, grpc::ServerBuilder& builder) {
  const auto ms = [](absl::Duration duration) {
    return static_cast<int>(absl::ToInt64Milliseconds(duration));
  };
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  // gRPC 1.51 unpacks a message whole before it measures it: 4 MiB of zeros are 4 GiB.
  for (const grpc_compression_algorithm packed : {GRPC_COMPRESS_GZIP, GRPC_COMPRESS_DEFLATE}) {
    builder.SetCompressionAlgorithmSupportStatus(packed, false);
  }
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, options.max_metadata_bytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, ms(options.max_connection_idle));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, ms(options.max_connection_age));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, ms(options.keepalive));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, ms(options.keepalive_timeout));
  // PINGs are answered, however many: gRPC 1.51 answers each beyond its strikes with a GOAWAY of
  // some kilobytes, which a flooding client need not read, and cuts off a client that is only
  // diligent.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  // A second server on the same port must fail, not share its connections.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

constexpr unsigned int kTlsRefreshSeconds = 1;

std::shared_ptr<grpc::ServerCredentials> MakeCredentials(const TlsFiles& files) {
  if (files.certificate.empty()) {
    return grpc::InsecureServerCredentials();
  }
  grpc::experimental::TlsServerCredentialsOptions options(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
          files.key, files.certificate, files.client_authorities, kTlsRefreshSeconds));
  options.watch_identity_key_cert_pairs();
  if (!files.client_authorities.empty()) {
    options.watch_root_certs();
  }
  options.set_cert_request_type(files.client_authorities.empty()
                                    ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                    : GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
  return grpc::experimental::TlsServerCredentials(options);
}

std::string WithPort(const std::string& address, int port) {
  const size_t colon = address.rfind(':');
  return absl::StartsWith(address, "unix:") || colon == std::string::npos
             ? address
             : absl::StrCat(address.substr(0, colon), ":", port);
}

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(
    const RpcServerOptions& options, const std::vector<grpc::Service*>& services) {
  RegisterHealthDescriptor();
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  SetLimits(options, builder);
  int port = 0;
  builder.AddListeningPort(options.address, MakeCredentials(options.tls), &port);
  for (grpc::Service* service : services) {
    builder.RegisterService(service);
  }
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port <= 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen for gRPC on '", options.address, "'"));
  }
  std::unique_ptr<RpcServer> started(
      new RpcServer(std::move(server), WithPort(options.address, port), options.health_names));
  started->SetServing(false);
  return started;
}

RpcServer::RpcServer(std::unique_ptr<grpc::Server> server, std::string address,
                     std::vector<std::string> health_names)
    : server_(std::move(server)),
      address_(std::move(address)),
      health_names_(std::move(health_names)) {}

RpcServer::~RpcServer() { Shutdown(absl::Now()); }

void RpcServer::SetServing(bool serving) {
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  health->SetServingStatus("", serving);
  for (const std::string& name : health_names_) {
    health->SetServingStatus(name, serving);
  }
}

void RpcServer::SetServing(const std::string& service, bool serving) {
  server_->GetHealthCheckService()->SetServingStatus(service, serving);
}

void RpcServer::Shutdown(absl::Time deadline) {
  server_->Shutdown(absl::ToChronoTime(deadline));
  server_->Wait();
}

}  // namespace tenon
