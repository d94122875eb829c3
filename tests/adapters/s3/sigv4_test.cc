// Against the signatures that AWS publishes: the S3 guide's examples of the authorization header,
// and get-vanilla of the Signature Version 4 test suite.
#include "adapters/s3/sigv4.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace tenon {
namespace {

using ::testing::EndsWith;
using ::testing::StartsWith;

constexpr char kEmptySha256[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const S3Credentials& GuideCredentials() {
  static const auto& credentials =
      *new S3Credentials{"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", ""};
  return credentials;
}

absl::Time GuideTime() { return absl::FromUnixSeconds(1369353600); }  // 2013-05-24 00:00:00 UTC

SignedParts GuideParts(const std::string& method, const std::string& path,
                       const std::string& payload_sha256) {
  SignedParts parts;
  parts.method = method;
  parts.path = path;
  parts.payload_sha256 = payload_sha256;
  parts.headers = {{"host", "examplebucket.s3.amazonaws.com"},
                   {"x-amz-content-sha256", payload_sha256},
                   {"x-amz-date", "20130524T000000Z"}};
  return parts;
}

std::string Sign(const SignedParts& parts) {
  return Authorization(parts, GuideCredentials(), "us-east-1", "s3", GuideTime());
}

TEST(SigV4Test, DateIsAsTheHeaderHasIt) { EXPECT_EQ(AmzDate(GuideTime()), "20130524T000000Z"); }

TEST(SigV4Test, GetOfARange) {
  SignedParts parts = GuideParts("GET", "/test.txt", kEmptySha256);
  parts.headers.emplace_back("range", "bytes=0-9");
  EXPECT_EQ(Sign(parts),
            "AWS4-HMAC-SHA256 "
            "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
            "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
            "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

TEST(SigV4Test, PutOfAnObjectWhoseNameIsEncoded) {
  SignedParts parts = GuideParts("PUT", absl::StrCat("/", UriEncode("test$file.text", true)),
                                 Sha256Hex("Welcome to Amazon S3."));
  parts.headers.emplace_back("date", "Fri, 24 May 2013 00:00:00 GMT");
  parts.headers.emplace_back("x-amz-storage-class", "REDUCED_REDUNDANCY");
  EXPECT_THAT(Sign(parts),
              EndsWith("98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"));
}

TEST(SigV4Test, ParameterWithoutAValue) {
  SignedParts parts = GuideParts("GET", "/", kEmptySha256);
  parts.query = {{"lifecycle", ""}};
  EXPECT_THAT(Sign(parts),
              EndsWith("fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"));
}

TEST(SigV4Test, ListingWithParametersOutOfOrder) {
  SignedParts parts = GuideParts("GET", "/", kEmptySha256);
  parts.query = {{"prefix", "J"}, {"max-keys", "2"}};
  EXPECT_THAT(Sign(parts),
              EndsWith("34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"));
}

TEST(SigV4Test, TestSuiteGetVanilla) {
  SignedParts parts;
  parts.method = "GET";
  parts.path = "/";
  parts.payload_sha256 = kEmptySha256;
  parts.headers = {{"host", "example.amazonaws.com"}, {"x-amz-date", "20150830T123600Z"}};
  EXPECT_THAT(Authorization(parts, {"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", ""},
                            "us-east-1", "service", absl::FromUnixSeconds(1440938160)),
              EndsWith("5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"));
}

TEST(SigV4Test, EncodingKeepsTheUnreservedAndTheSlashWhereAsked) {
  EXPECT_EQ(UriEncode("aZ09-_.~", false), "aZ09-_.~");
  EXPECT_EQ(UriEncode("a/b c+\xc3\xa9", true), "a/b%20c%2B%C3%A9");
  EXPECT_EQ(UriEncode("a/b", false), "a%2Fb");
}

}  // namespace
}  // namespace tenon
