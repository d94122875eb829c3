// Tokens that PyJWT made, and what attackers make of them.
#include "server/tenant/jwt_verifier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "adapters/base/errors.h"
#include "nlohmann/json.hpp"
#include "tests/source_dir.h"

namespace tenon {
namespace {

using ::testing::StartsWith;

class JwtVerifierTest : public testing::Test {
 protected:
  void SetUp() override {
    std::ifstream file(SourcePath("tests/server/tenant/data/tokens.json"));
    data_ = nlohmann::json::parse(file);
    now_ = absl::FromUnixSeconds(data_["now"].get<int64_t>());
    ASSERT_TRUE(verifier_.Replace(data_["jwks"].dump()).ok());
  }

  std::string Token(const std::string& name) const {
    return data_["tokens"].at(name).get<std::string>();
  }
  absl::StatusOr<Identity> Verify(const std::string& name) const {
    return verifier_.Verify(Token(name), now_);
  }

  static JwtRules Rules() {
    JwtRules rules;
    rules.issuer = "https://issuer.example";
    rules.audience = "tenon";
    return rules;
  }

  nlohmann::json data_;
  absl::Time now_;
  JwtVerifier verifier_{Rules()};
};

TEST_F(JwtVerifierTest, TakesEachAlgorithm) {
  for (const char* name : {"good_rsa", "good_ec", "good_ed", "good_without_kid",
                           "good_audience_list", "good_without_nbf", "in_leeway"}) {
    const absl::StatusOr<Identity> identity = Verify(name);
    ASSERT_TRUE(identity.ok()) << name << ": " << identity.status();
    EXPECT_EQ(identity->tenant, "acme") << name;
    EXPECT_EQ(identity->roles, RoleSet({Role::kInference})) << name;
    EXPECT_EQ(identity->credential, "jwt:alice") << name;
  }
}

TEST_F(JwtVerifierTest, TakesSeveralRolesAndPassesOverUnknownOnes) {
  EXPECT_EQ(Verify("good_role_list")->roles, RoleSet({Role::kInference, Role::kTenantAdmin}));
}

TEST_F(JwtVerifierTest, OperatorNeedsNoTenant) {
  const absl::StatusOr<Identity> identity = Verify("good_operator");
  ASSERT_TRUE(identity.ok()) << identity.status();
  EXPECT_EQ(identity->tenant, "");
  EXPECT_EQ(identity->roles, RoleSet({Role::kOperator}));
}

// Every other token of the file is a bad one.
TEST_F(JwtVerifierTest, RefusesEveryBadToken) {
  int num_refused = 0;
  for (const auto& [name, token] : data_["tokens"].items()) {
    if (name.rfind("good_", 0) == 0 || name == "in_leeway") {
      continue;
    }
    const absl::Status status = Verify(name).status();
    ++num_refused;
    EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated) << name;
    const std::string reason =
        GetErrorDetail(status).has_value() ? GetErrorDetail(status)->reason : "";
    EXPECT_EQ(reason, name == "expired" ? "CREDENTIALS_EXPIRED" : "CREDENTIALS_INVALID") << name;
  }
  EXPECT_GE(num_refused, 25);
}

TEST_F(JwtVerifierTest, RefusesEverySingleChangedCharacterOfTheSignedPart) {
  const std::string token = Token("good_ed");
  const size_t end = token.rfind('.');
  for (size_t i = 0; i < end; ++i) {
    std::string changed = token;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    EXPECT_FALSE(verifier_.Verify(changed, now_).ok()) << i;
  }
}

TEST_F(JwtVerifierTest, RefusesWhatIsTooLongOrEmpty) {
  EXPECT_FALSE(verifier_.Verify("", now_).ok());
  EXPECT_FALSE(verifier_.Verify("..", now_).ok());
  EXPECT_FALSE(verifier_.Verify(std::string(kMaxTokenBytes + 1, 'a'), now_).ok());
  EXPECT_FALSE(verifier_.Verify(std::string(4000, '.'), now_).ok());
}

TEST_F(JwtVerifierTest, KeepsTheLastGoodSetWhenTheFileTurnsBad) {
  for (const auto& [name, jwks] : data_["bad_jwks"].items()) {
    EXPECT_FALSE(verifier_.Replace(jwks.dump()).ok()) << name;
    EXPECT_FALSE(verifier_.is_current()) << name;
    EXPECT_TRUE(Verify("good_ec").ok()) << name;
  }
  for (const char* text : {"", "{", "[]", "null", "{\"keys\": [null, 7, []]}"}) {
    EXPECT_FALSE(verifier_.Replace(text).ok()) << text;
  }
  EXPECT_TRUE(Verify("good_rsa").ok());
  ASSERT_TRUE(verifier_.Replace(data_["jwks"].dump()).ok());
  EXPECT_TRUE(verifier_.is_current());
}

TEST_F(JwtVerifierTest, ReplacedKeysHoldAtOnce) {
  ASSERT_TRUE(verifier_.Replace(data_["stranger_jwks"].dump()).ok());
  EXPECT_TRUE(Verify("stranger").ok());
  EXPECT_FALSE(Verify("good_ec").ok());
}

TEST_F(JwtVerifierTest, SubjectCannotForgeALogLine) {
  JwtVerifier any{JwtRules()};
  ASSERT_TRUE(any.Replace(data_["jwks"].dump()).ok());
  const absl::StatusOr<Identity> identity = any.Verify(Token("good_ec"), now_);
  ASSERT_TRUE(identity.ok());
  EXPECT_THAT(identity->credential, StartsWith("jwt:"));
  EXPECT_EQ(identity->credential.find_first_of(" \n\""), std::string::npos);
}

TEST(Base64UrlTest, TakesTheAlphabetOnly) {
  EXPECT_EQ(DecodeBase64Url("-_8"), "\xfb\xff");
  EXPECT_EQ(DecodeBase64Url(""), "");
  for (const char* text : {"+/8", "a", "ab=", "ab==", "a b", "ab\n"}) {
    EXPECT_EQ(DecodeBase64Url(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace tenon
