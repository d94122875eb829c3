#include "tests/adapters/s3/s3_test_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "adapters/s3/curl_transport.h"

namespace tenon {
namespace {

// versitygw takes no port 0: the kernel is asked for a free one first.
int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  bind(fd, reinterpret_cast<sockaddr*>(&address), size);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  close(fd);
  return ntohs(address.sin_port);
}

}  // namespace

S3TestServer::S3TestServer(const std::string& folder, const Tls& tls)
    : port_(FreePort()), tls_(!tls.certificate.empty()) {
  std::filesystem::create_directories(folder + "/data/models");
  std::vector<std::string> command = {
      TestS3Server(),   "--access", kAccessKeyId, "--secret",
      kSecretAccessKey, "--quiet",  "--port",     absl::StrCat("127.0.0.1:", port_)};
  if (tls_) {
    command.insert(command.end(), {"--cert", tls.certificate, "--key", tls.key});
  }
  command.insert(command.end(), {"posix", folder + "/data"});
  process_ = std::make_unique<ChildProcess>(std::move(command));
  const S3Client client(ClientOptions(port_, tls.authority));
  const absl::Time give_up = absl::Now() + absl::Seconds(30);
  absl::Status status;
  do {
    status = client.List("").status();
  } while (!status.ok() && absl::Now() < give_up);
  EXPECT_TRUE(status.ok()) << status;
}

std::string S3TestServer::endpoint() const {
  return absl::StrCat(tls_ ? "https" : "http", "://127.0.0.1:", port_);
}

S3Client::Options S3TestServer::ClientOptions(int port, const std::string& ca_file) {
  S3Client::Options options;
  options.location = *ParseS3Location("s3://models/prod");
  options.location.endpoint =
      absl::StrCat(ca_file.empty() ? "http" : "https", "://127.0.0.1:", port);
  options.location.path_style = true;
  options.credentials = [] { return S3Credentials{kAccessKeyId, kSecretAccessKey, ""}; };
  CurlTransport::Options transport;
  transport.ca_file = ca_file;
  options.transport = [curl = std::make_shared<CurlTransport>(std::move(transport))](
                          const HttpRequest& request) { return curl->Send(request); };
  options.retry.clock = [] { return absl::Now(); };
  options.retry.sleep = [](absl::Duration time) { absl::SleepFor(time); };
  options.retry.chance = [] { return 0.5; };
  return options;
}

}  // namespace tenon
