// TLS and mTLS of the real binary, with certificates that openssl(1) makes for the test.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/client.h"
#include "tests/integration/tenant_fixture.h"

namespace tenon {
namespace {

constexpr char kRules[] = R"({"rules": [
  {"spiffe_id": "spiffe://acme.example/*", "tenant": "acme", "role": "inference"}]})";

class TlsTest : public TenantServerTest {
 protected:
  std::string Path(const std::string& name) const {
    return absl::StrCat(folder_.path(), "/", name);
  }

  void OpenSsl(const std::string& arguments) {
    const std::string command =
        absl::StrCat("cd ", folder_.path(), " && openssl ", arguments, " 2>openssl.log");
    ASSERT_EQ(std::system(command.c_str()), 0) << command << "\n" << ReadFile(Path("openssl.log"));
  }
  void MakeAuthority(const std::string& name) {
    OpenSsl(
        absl::StrCat("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "
                     "/CN=",
                     name, " -keyout ", name, ".key -out ", name, ".pem"));
  }
  // NAME.pem and NAME.key, signed by `authority`, for an alternative name such as "IP:127.0.0.1".
  void MakeCertificate(const std::string& name, const std::string& authority,
                       const std::string& alternative) {
    std::ofstream(Path(name + ".ext")) << "subjectAltName=" << alternative << "\n";
    OpenSsl(absl::StrCat("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=", name,
                         " -keyout ", name, ".key -out ", name, ".csr"));
    OpenSsl(absl::StrCat("x509 -req -days 2 -in ", name, ".csr -CA ", authority, ".pem -CAkey ",
                         authority, ".key -CAcreateserial -extfile ", name, ".ext -out ", name,
                         ".pem"));
  }
  // Puts a pair in the place that the server reads.
  void Install(const std::string& name) {
    for (const char* suffix : {".key", ".pem"}) {
      const std::string temporary = Path(absl::StrCat("installing", suffix));
      std::filesystem::copy_file(Path(name + suffix), temporary);
      std::filesystem::rename(temporary, Path(absl::StrCat("server", suffix)));
    }
  }

  void SetUp() override {
    MakeAuthority("authority");
    MakeCertificate("first", "authority", "IP:127.0.0.1");
    Install("first");
    std::ofstream(Path("rules.json")) << kRules;
  }
  void StartTls(bool mutual) {
    std::vector<std::string> flags = {"--listen=127.0.0.1:0",
                                      absl::StrCat("--tls-certificate-file=", Path("server.pem")),
                                      absl::StrCat("--tls-key-file=", Path("server.key"))};
    if (mutual) {
      flags.push_back(absl::StrCat("--tls-client-ca-file=", Path("authority.pem")));
      flags.push_back(absl::StrCat("--certificate-rules-file=", Path("rules.json")));
    }
    StartWithTenants(flags);
  }

  Client Connect(const std::string& authority, const std::string& certificate,
                 const std::string& key) {
    ClientOptions options;
    options.timeout = absl::Seconds(5);
    options.api_key = key;
    if (!authority.empty()) {
      options.tls_authorities = ReadFile(Path(authority + ".pem"));
    }
    if (!certificate.empty()) {
      options.tls_certificate = ReadFile(Path(certificate + ".pem"));
      options.tls_key = ReadFile(Path(certificate + ".key"));
    }
    return Client::Connect(server_->address(), options);
  }
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
  MakeAuthority("stranger");
  MakeCertificate("web", "authority", "URI:spiffe://acme.example/ns/prod/sa/web");
  MakeCertificate("other", "authority", "URI:spiffe://globex.example/web");
  MakeCertificate("forged", "stranger", "URI:spiffe://acme.example/ns/prod/sa/web");
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
  MakeAuthority("next");
  MakeCertificate("second", "next", "IP:127.0.0.1");
  Install("second");
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
