#include "server/tenant/authenticator.h"

#include <set>

#include "adapters/registry/adapter_id.h"
#include "server/tenant/method_policy.h"
#include "tests/server/tenant/directory_fixture.h"

namespace tenon {
namespace {

using ::testing::HasSubstr;

constexpr char kRules[] = R"({"rules": [
  {"spiffe_id": "spiffe://x/ns/prod/sa/*", "tenant": "default", "role": "inference"},
  {"subject": "CN=ops,O=Acme", "role": "operator"},
  {"subject": "CN=ghost", "tenant": "nobody", "role": "inference"}]})";

class AuthenticatorTest : public DirectoryTest {
 protected:
  AuthenticatorTest() {
    options_.directory = directory_.get();
    options_.clock = [this] { return now_; };
    local_.peer = "unix:";
    remote_.peer = "ipv4:10.0.0.7:5000";
  }

  absl::StatusOr<Identity> Admit(absl::string_view method, const CallerEvidence& evidence) {
    return Authenticator(options_).Admit(method, evidence);
  }
  static CallerEvidence Bearer(const std::string& header) {
    CallerEvidence evidence;
    evidence.authorization = {header};
    evidence.peer = "unix:";
    return evidence;
  }

  Authenticator::Options options_;
  CallerEvidence local_, remote_;
};

TEST_F(AuthenticatorTest, WithoutCredentialsThisMachineIsTheDefaultTenant) {
  const absl::StatusOr<Identity> identity = Admit("Generate", local_);
  ASSERT_TRUE(identity.ok());
  EXPECT_EQ(identity->tenant, kDefaultTenant);
  EXPECT_TRUE(Admit("CreateTenant", local_).ok());
  EXPECT_EQ(ReasonOf(Admit("Generate", remote_).status()), "CREDENTIALS_MISSING");
  options_.allow_unauthenticated = true;
  EXPECT_TRUE(Admit("Generate", remote_).ok());
}

TEST_F(AuthenticatorTest, CallThatWasPassedOnIsNotThisMachinesOwn) {
  local_.forwarded = true;  // by a proxy on this machine that nobody declared
  EXPECT_EQ(ReasonOf(Admit("Generate", local_).status()), "CREDENTIALS_MISSING");
  options_.allow_unauthenticated = true;
  EXPECT_TRUE(Admit("Generate", local_).ok());
}

TEST_F(AuthenticatorTest, AnyKindOfCredentialClosesTheServer) {
  JwtVerifier tokens{JwtRules()};
  for (int kind = 0; kind < 4; ++kind) {
    Authenticator::Options options = options_;
    options.allow_unauthenticated = true;
    if (kind == 0) {
      options.operator_key = std::string(32, 'k');
    } else if (kind == 1) {
      options.tokens = &tokens;
    } else if (kind == 2) {
      options.certificates = *CertificateRules::Parse(R"({"rules": []})");
    } else {
      MakeOperator();
    }
    EXPECT_EQ(ReasonOf(Authenticator(options).Admit("Generate", local_).status()),
              "CREDENTIALS_MISSING")
        << kind;
  }
}

TEST_F(AuthenticatorTest, SchemeIsBearerInAnyCase) {
  const std::string key = MakeKey("acme").text;
  EXPECT_TRUE(Admit("Generate", Bearer("Bearer " + key)).ok());
  EXPECT_TRUE(Admit("Generate", Bearer("bearer " + key)).ok());
  for (const std::string& header :
       {key, "Basic " + key, std::string("Bearer"), std::string("Bearer "), "Bearer  " + key}) {
    EXPECT_EQ(ReasonOf(Admit("Generate", Bearer(header)).status()), "CREDENTIALS_INVALID")
        << header;
  }
}

TEST_F(AuthenticatorTest, TwoHeadersAreRefusedEvenWhenBothAreGood) {
  const std::string header = "Bearer " + MakeKey("acme").text;
  CallerEvidence evidence = Bearer(header);
  evidence.authorization.push_back(header);
  EXPECT_EQ(ReasonOf(Admit("Generate", evidence).status()), "CREDENTIALS_INVALID");
}

TEST_F(AuthenticatorTest, BadHeaderIsNotSavedByALocalPeerOrACertificate) {
  options_.certificates = *CertificateRules::Parse(kRules);
  const std::string nonsense = "Bearer nonsense";  // the evidence only looks at it
  CallerEvidence evidence = Bearer(nonsense);
  evidence.certificate.spiffe_ids = {"spiffe://x/ns/prod/sa/web"};
  EXPECT_EQ(ReasonOf(Admit("Generate", evidence).status()), "CREDENTIALS_INVALID");
  options_.certificates.reset();
  EXPECT_EQ(ReasonOf(Admit("Generate", Bearer(nonsense)).status()), "CREDENTIALS_INVALID");
}

TEST_F(AuthenticatorTest, RoleDecides) {
  const std::string header = "Bearer " + MakeKey("acme", Role::kInference).text;
  EXPECT_TRUE(Admit("Generate", Bearer(header)).ok());
  const absl::Status denied = Admit("UploadAdapter", Bearer(header)).status();
  EXPECT_EQ(denied.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(ReasonOf(denied), "ROLE_MISSING");
  EXPECT_THAT(std::string(denied.message()), HasSubstr("adapter-writer, tenant-admin"));
}

TEST_F(AuthenticatorTest, MethodWithoutPolicyIsNobodys) {
  EXPECT_EQ(ReasonOf(Admit("Shutdown", local_).status()), "METHOD_UNKNOWN");
  EXPECT_EQ(ReasonOf(Admit("", local_).status()), "METHOD_UNKNOWN");
}

TEST_F(AuthenticatorTest, OperatorKeyOfAFileIsAnOperator) {
  options_.operator_key = std::string(40, 'k');
  const absl::StatusOr<Identity> identity =
      Admit("CreateTenant", Bearer("Bearer " + options_.operator_key));
  ASSERT_TRUE(identity.ok());
  EXPECT_EQ(identity->roles, RoleSet({Role::kOperator}));
  EXPECT_FALSE(Admit("CreateTenant", Bearer("Bearer " + std::string(39, 'k'))).ok());
  EXPECT_FALSE(Admit("Generate", Bearer("Bearer " + options_.operator_key)).ok());
}

TEST_F(AuthenticatorTest, CertificatesFollowTheFirstRuleThatMatches) {
  options_.certificates = *CertificateRules::Parse(kRules);
  remote_.certificate.spiffe_ids = {"spiffe://x/ns/prod/sa/web"};
  EXPECT_EQ(Admit("Generate", remote_)->tenant, "default");
  remote_.certificate = {{}, "CN=ops,O=Acme"};
  EXPECT_TRUE(Admit("CreateTenant", remote_).ok());
  for (const CertificateNames& names :
       {CertificateNames{{"spiffe://x/ns/dev/sa/web"}, ""}, CertificateNames{{}, "CN=ops"},
        CertificateNames{{}, "CN=ghost"}, CertificateNames{{}, "CN=ops,O=Acme,O=more"}}) {
    remote_.certificate = names;
    EXPECT_EQ(ReasonOf(Admit("Generate", remote_).status()), "CREDENTIALS_INVALID")
        << names.subject;
  }
}

TEST_F(AuthenticatorTest, SuspendedTenantsCertificateIsRefused) {
  options_.certificates = *CertificateRules::Parse(kRules);
  ASSERT_TRUE(directory_->SetState("default", TenantState::kSuspended, source_).ok());
  remote_.certificate.spiffe_ids = {"spiffe://x/ns/prod/sa/web"};
  EXPECT_EQ(ReasonOf(Admit("Generate", remote_).status()), "TENANT_SUSPENDED");
}

TEST(CertificateRulesTest, MalformedRulesAreRefusedByNumber) {
  const char* const bad[] = {
      "",
      "[]",
      "{}",
      R"({"rules": {}})",
      R"({"rules": [], "more": 1})",
      R"({"rules": [7]})",
      R"({"rules": [{"tenant": "a", "role": "inference"}]})",
      R"({"rules": [{"subject": "CN=a", "spiffe_id": "spiffe://a", "tenant": "a", "role": "inference"}]})",
      R"({"rules": [{"subject": "CN=a", "tenant": "a", "role": "root"}]})",
      R"({"rules": [{"subject": "CN=a", "tenant": "a"}]})",
      R"({"rules": [{"subject": "CN=a", "role": "inference"}]})",
      R"({"rules": [{"subject": "CN=a", "tenant": "a", "role": "operator"}]})",
      R"({"rules": [{"subject": "CN=*a", "tenant": "a", "role": "inference"}]})",
      R"({"rules": [{"subject": "CN=a", "tenant": "../a", "role": "inference"}]})",
      R"({"rules": [{"subject": "CN=a", "tenant": "a", "role": "inference", "x": 1}]})",
      R"({"rules": [{"subject": 7, "tenant": "a", "role": "inference"}]})"};
  for (const char* text : bad) {
    EXPECT_EQ(CertificateRules::Parse(text).status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
}

TEST(IsLocalPeerTest, KnowsLoopbackOnly) {
  for (const char* peer : {"unix:", "unix:/run/x", "ipv4:127.0.0.1:1", "ipv4:127.9.9.9:1",
                           "ipv6:%5B::1%5D:1", "ipv6:[::1]:1"}) {
    EXPECT_TRUE(IsLocalPeer(peer)) << peer;
  }
  for (const char* peer : {"", "ipv4:10.0.0.1:1", "ipv4:128.0.0.1:1", "ipv6:[::2]:1",
                           "ipv6:[::1:2]:1", "dns:127.0.0.1"}) {
    EXPECT_FALSE(IsLocalPeer(peer)) << peer;
  }
}

TEST(MethodPolicyTest, ShortNamesAreDistinct) {
  std::set<absl::string_view> names;
  for (const MethodPolicy& policy : MethodPolicies()) {
    EXPECT_TRUE(names.insert(policy.method.substr(policy.method.rfind('.') + 1)).second)
        << policy.method;
    EXPECT_EQ(FindMethodPolicy(policy.method), &policy);
  }
  EXPECT_EQ(FindMethodPolicy("Check"), nullptr) << "only our own have short names";
}

}  // namespace
}  // namespace tenon
