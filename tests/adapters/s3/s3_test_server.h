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
  explicit S3TestServer(const std::string& folder);

  int port() const { return port_; }
  std::string endpoint() const;
  static constexpr char kAccessKeyId[] = "tenon";
  static constexpr char kSecretAccessKey[] = "very-secret";

  /// For s3://models/prod by way of `port`: this server's, or one of a proxy in front of it.
  static S3Client::Options ClientOptions(int port);

 private:
  int port_ = 0;
  std::unique_ptr<ChildProcess> process_;
};

}  // namespace tenon

#endif  // TENON_TESTS_ADAPTERS_S3_S3_TEST_SERVER_H_
