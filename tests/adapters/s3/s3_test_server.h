// S3TestServer: a real S3 server with one bucket, as a child of the test.
#ifndef TENON_TESTS_ADAPTERS_S3_S3_TEST_SERVER_H_
#define TENON_TESTS_ADAPTERS_S3_S3_TEST_SERVER_H_

#include <memory>
#include <string>

#include "adapters/s3/s3_client.h"
#include "tests/child_process.h"

namespace tenon {

/// versitygw with the bucket `models`, its objects as files in `folder`/data/models. Answers when
/// the constructor returns.
class S3TestServer {
 public:
  /// Files of a TLS server and of the authority that signed its certificate. Empty: plain HTTP.
  struct Tls {
    std::string certificate, key, authority;
  };
  explicit S3TestServer(const std::string& folder, const Tls& tls = {});

  int port() const { return port_; }
  std::string endpoint() const;
  static constexpr char kAccessKeyId[] = "tenon";
  static constexpr char kSecretAccessKey[] = "very-secret";

  /// For s3://models/prod by way of `port`: this server's, or one of a proxy in front of it. By TLS
  /// when it names an authority.
  static S3Client::Options ClientOptions(int port, const std::string& ca_file = "");

 private:
  int port_ = 0;
  bool tls_ = false;
  std::unique_ptr<ChildProcess> process_;
};

}  // namespace tenon

#endif  // TENON_TESTS_ADAPTERS_S3_S3_TEST_SERVER_H_
