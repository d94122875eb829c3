// TLS and mTLS of the real binary, with certificates that openssl(1) makes for the test.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/client.h"
#include "tests/integration/certificates.h"
#include "tests/integration/tenant_fixture.h"

namespace tenon {
namespace {

constexpr char kRules[] = R"({"rules": [
  {"spiffe_id": "spiffe://acme.example/*", "tenant": "acme", "role": "inference"}]})";

class TlsTest : public TenantServerTest {
 protected:
  void SetUp() override {
    certificates_.MakeAuthority("authority");
    certificates_.MakeCertificate("first", "authority", "IP:127.0.0.1");
    certificates_.Install("first", "server");
    std::ofstream(certificates_.Path("rules.json")) << kRules;
  }
  void StartTls(bool mutual) {
    std::vector<std::string> flags = {
        "--listen=127.0.0.1:0",
        absl::StrCat("--tls-certificate-file=", certificates_.Path("server.pem")),
        absl::StrCat("--tls-key-file=", certificates_.Path("server.key"))};
    if (mutual) {
      flags.push_back(absl::StrCat("--tls-client-ca-file=", certificates_.Path("authority.pem")));
      flags.push_back(absl::StrCat("--certificate-rules-file=", certificates_.Path("rules.json")));
    }
    StartWithTenants(flags);
  }

  Client Connect(const std::string& authority, const std::string& certificate,
                 const std::string& key) {
    ClientOptions options;
    options.timeout = absl::Seconds(5);
    options.api_key = key;
    if (!authority.empty()) {
      options.tls_authorities = ReadFile(certificates_.Path(authority + ".pem"));
    }
    if (!certificate.empty()) {
      options.tls_certificate = ReadFile(certificates_.Path(certificate + ".pem"));
      options.tls_key = ReadFile(certificates_.Path(certificate + ".key"));
    }
    return Client::Connect(server_->address(), options);
  }

  const CertificateFolder certificates_{folder_.path()};
};

TEST_F(TlsTest, KeysAreTakenOverTlsAndPlaintextIsNot) {
  StartTls(/*mutual=*/false);
  EXPECT_TRUE(Connect("authority", "", secret("inference")).GetModel().ok());
  EXPECT_EQ(Connect("authority", "", "").GetModel().status().code(),
            absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(Connect("", "", secret("inference")).GetModel().status().code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(TlsTest, ClientCertificateProvesItsTenant) {
  certificates_.MakeAuthority("stranger");
  certificates_.MakeCertificate("web", "authority", "URI:spiffe://acme.example/ns/prod/sa/web");
  certificates_.MakeCertificate("other", "authority", "URI:spiffe://globex.example/web");
  certificates_.MakeCertificate("forged", "stranger", "URI:spiffe://acme.example/ns/prod/sa/web");
  StartTls(/*mutual=*/true);
  ASSERT_TRUE(Connect("authority", "", secret("adapter-writer"))
                  .UploadAdapter("mine", TinyModelPath("adapters/plain-qv"))
                  .ok());
  const auto adapters = Connect("authority", "web", "").ListAdapters();
  ASSERT_TRUE(adapters.ok()) << adapters.status();
  EXPECT_EQ(adapters->size(), 1u) << "acme's";
  EXPECT_EQ(Connect("authority", "other", "").GetModel().status().code(),
            absl::StatusCode::kUnauthenticated)
      << "no rule knows it";
  EXPECT_EQ(Connect("authority", "forged", "").GetModel().status().code(),
            absl::StatusCode::kUnavailable)
      << "the handshake fails";
  EXPECT_TRUE(Connect("authority", "", secret("globex")).GetModel().ok())
      << "a key does without a certificate";
  EXPECT_EQ(Connect("authority", "", "").GetModel().status().code(),
            absl::StatusCode::kUnauthenticated);
}

TEST_F(TlsTest, ReplacedCertificateHoldsForNewConnections) {
  StartTls(/*mutual=*/false);
  const Client before = Connect("authority", "", secret("inference"));
  ASSERT_TRUE(before.GetModel().ok());
  certificates_.MakeAuthority("next");
  certificates_.MakeCertificate("second", "next", "IP:127.0.0.1");
  certificates_.Install("second", "server");
  const absl::Time give_up = absl::Now() + absl::Seconds(30);
  absl::Status status;
  do {  // gRPC reads the files each second
    status = Connect("next", "", secret("inference")).GetModel().status();
  } while (!status.ok() && absl::Now() < give_up);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(before.GetModel().ok()) << "the connection that was there goes on";
}

}  // namespace
}  // namespace tenon
