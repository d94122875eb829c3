// The client against answers that a test writes, without network, time or chance.
#include "adapters/s3/s3_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

class S3ClientTest : public testing::Test {
 protected:
  struct Sent {
    std::string method, url, body;
    std::map<std::string, std::string> headers;
  };

  S3Client Make(const S3Location& location, int64_t part_bytes = 8 << 20) {
    S3Client::Options options;
    options.location = location;
    options.credentials = [] { return S3Credentials{"id", "secret-secret", token_}; };
    options.transport = [this](const HttpRequest& request) { return Answer(request); };
    options.retry.clock = [this] { return now_; };
    options.retry.sleep = [this](absl::Duration time) {
      sleeps_.push_back(time);
      now_ += time;
    };
    options.retry.chance = [] { return 0.999; };
    options.part_bytes = part_bytes;
    return S3Client(std::move(options));
  }
  static S3Location Location() {
    S3Location location = *ParseS3Location("s3://bucket/models/eu");
    location.endpoint = "https://store.example:9000";
    location.path_style = true;
    return location;
  }

  absl::StatusOr<HttpResponse> Answer(const HttpRequest& request) {
    Sent& sent = sent_.emplace_back();
    sent.method = request.method;
    sent.url = request.url;
    sent.body = std::string(request.body);
    for (const auto& [name, value] : request.headers) {
      sent.headers[name] = value;
    }
    if (answers_.empty()) {
      ADD_FAILURE() << "an unexpected request: " << request.method << " " << request.url;
      return absl::InternalError("no answer");
    }
    absl::StatusOr<HttpResponse> answer = std::move(answers_.front());
    answers_.pop_front();
    if (answer.ok() && request.sink != nullptr && answer->status == 200) {
      const absl::Status taken = request.sink(answer->body);
      if (!taken.ok()) {
        return taken;
      }
      if (answer->headers.contains("torn")) {
        return absl::UnavailableError("transfer closed with bytes remaining");
      }
    }
    return answer;
  }
  void Give(int status, const std::string& body = "",
            const std::map<std::string, std::string>& headers = {}) {
    answers_.push_back(HttpResponse{status, headers, body});
  }
  void GiveNothing() { answers_.push_back(absl::UnavailableError("connection refused")); }

  static inline std::string token_;
  absl::Time now_ = absl::FromUnixSeconds(1'800'000'000);
  std::vector<absl::Duration> sleeps_;
  std::deque<absl::StatusOr<HttpResponse>> answers_;
  std::vector<Sent> sent_;
};

TEST_F(S3ClientTest, LocationIsParsedAndOthersAreRefused) {
  EXPECT_EQ(ParseS3Location("s3://bucket")->prefix, "");
  EXPECT_EQ(ParseS3Location("s3://bucket/")->prefix, "");
  EXPECT_EQ(ParseS3Location("s3://bucket/a/b")->prefix, "a/b/");
  EXPECT_EQ(ParseS3Location("s3://bucket/a/b/")->prefix, "a/b/");
  for (const char* text :
       {"", "bucket", "/folder", "s3://", "s3:///a", "s3://Bucket", "s3://a_b"}) {
    EXPECT_FALSE(ParseS3Location(text).ok()) << text;
  }
}

TEST_F(S3ClientTest, PathStyleAndVirtualHostedNameTheBucketInTheirPlaces) {
  Give(200, "content", {{"etag", "\"1\""}});
  const auto object = Make(Location()).Get("a b");
  ASSERT_TRUE(object.ok()) << object.status();
  EXPECT_EQ(object->bytes, "content");
  EXPECT_EQ(object->etag, "\"1\"");
  EXPECT_EQ(sent_[0].url, "https://store.example:9000/bucket/models/eu/a%20b");
  EXPECT_EQ(sent_[0].headers["host"], "store.example:9000");
  S3Location location = *ParseS3Location("s3://bucket");
  location.region = "eu-west-1";
  Give(200);
  ASSERT_TRUE(Make(location).Get("k").ok());
  EXPECT_EQ(sent_[1].url, "https://bucket.s3.eu-west-1.amazonaws.com/k");
  EXPECT_THAT(sent_[1].headers["authorization"], HasSubstr("/eu-west-1/s3/aws4_request"));
}

TEST_F(S3ClientTest, TemporaryCredentialsShowTheirTokenAndSignIt) {
  token_ = "token";
  Give(200);
  ASSERT_TRUE(Make(Location()).Get("k").ok());
  token_ = "";
  EXPECT_EQ(sent_[0].headers["x-amz-security-token"], "token");
  EXPECT_THAT(sent_[0].headers["authorization"], HasSubstr("x-amz-security-token"));
}

TEST_F(S3ClientTest, WhatMayPassIsTriedAgainWithGrowingDelays) {
  GiveNothing();
  Give(503, "<Error><Code>SlowDown</Code><Message>later</Message></Error>");
  Give(500);
  Give(200, "content");
  ASSERT_TRUE(Make(Location()).Get("k").ok());
  ASSERT_THAT(sleeps_, SizeIs(3));
  EXPECT_LT(sleeps_[0], sleeps_[1]);
  EXPECT_LT(sleeps_[1], sleeps_[2]);
  EXPECT_NE(sent_[0].headers["x-amz-date"], "") << "and signed each time";
}

TEST_F(S3ClientTest, StoreThatStaysDownIsUnavailableWithinTheBudget) {
  for (int i = 0; i < 20; ++i) {
    Give(503, "<Error><Code>SlowDown</Code><Message>later</Message></Error>");
  }
  const absl::Time begin = now_;
  const absl::Status status = Make(Location()).Get("k").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("SlowDown: later"));
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("secret")));
  EXPECT_LE(now_ - begin, absl::Seconds(2));
  EXPECT_GT(sent_.size(), 2u);
}

TEST_F(S3ClientTest, WhatWillNotPassIsNotTriedAgain) {
  Give(404);
  EXPECT_EQ(Make(Location()).Get("k").status().code(), absl::StatusCode::kNotFound);
  Give(403, "<Error><Code>AccessDenied</Code></Error>");
  EXPECT_EQ(Make(Location()).Get("k").status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(sent_, SizeIs(2));
}

TEST_F(S3ClientTest, ConditionsGoWithTheWriteAndTheirFailureIsAborted) {
  Give(200, "", {{"etag", "\"2\""}});
  EXPECT_EQ(*Make(Location()).Put("k", "v", {.absent = true}), "\"2\"");
  EXPECT_EQ(sent_[0].headers["if-none-match"], "*");
  Give(412);
  EXPECT_EQ(Make(Location()).Put("k", "v", {.absent = false, .etag = "\"1\""}).status().code(),
            absl::StatusCode::kAborted);
  EXPECT_EQ(sent_[1].headers["if-match"], "\"1\"");
  EXPECT_THAT(sent_, SizeIs(2)) << "a refusal at the first try is a refusal";
}

TEST_F(S3ClientTest, LostAnswerToAConditionalWriteIsRecognised) {
  GiveNothing();  // it took place, and nobody heard
  Give(412);
  Give(200, "mine", {{"etag", "\"7\""}});
  EXPECT_EQ(*Make(Location()).Put("k", "mine", {.absent = true}), "\"7\"");
  GiveNothing();
  Give(412);
  Give(200, "another's", {{"etag", "\"8\""}});
  EXPECT_EQ(Make(Location()).Put("k", "mine", {.absent = true}).status().code(),
            absl::StatusCode::kAborted);
}

TEST_F(S3ClientTest, TornDownloadBeginsAgain) {
  Give(200, "half", {{"torn", ""}});
  Give(200, "whole");
  std::string got;
  ASSERT_TRUE(Make(Location())
                  .Download(
                      "k",
                      [&](absl::string_view piece) {
                        got.append(piece.data(), piece.size());
                        return absl::OkStatus();
                      },
                      [&] {
                        got.clear();
                        return absl::OkStatus();
                      })
                  .ok());
  EXPECT_EQ(got, "whole");
}

TEST_F(S3ClientTest, DiskThatIsFullIsNotTheStoresFault) {
  Give(200, "content");
  const absl::Status status =
      Make(Location())
          .Download(
              "k", [](absl::string_view) { return absl::ResourceExhaustedError("disk full"); },
              [] { return absl::OkStatus(); });
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(sent_, SizeIs(1));
}

TEST_F(S3ClientTest, LargeObjectGoesUpInParts) {
  Give(200,
       "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>");
  Give(200, "", {{"etag", "\"p1\""}});
  Give(503);
  Give(200, "", {{"etag", "\"p2\""}});
  Give(200, "<CompleteMultipartUploadResult/>", {{"etag", "\"done\""}});
  ASSERT_TRUE(Make(Location(), /*part_bytes=*/4).Put("k", "abcdef").ok());
  ASSERT_THAT(sent_, SizeIs(5));
  EXPECT_THAT(sent_[0].url, HasSubstr("?uploads="));
  EXPECT_EQ(sent_[1].body, "abcd");
  EXPECT_EQ(sent_[3].body, "ef");
  EXPECT_THAT(sent_[3].url, HasSubstr("partNumber=2&uploadId=u1"));
  EXPECT_THAT(sent_[4].body, HasSubstr("<PartNumber>2</PartNumber><ETag>\"p2\"</ETag>"));
}

TEST_F(S3ClientTest, PartsOfAFailedUploadAreGivenUp) {
  Give(200,
       "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>");
  Give(200, "", {{"etag", "\"p1\""}});
  Give(403);
  Give(204);
  EXPECT_EQ(Make(Location(), /*part_bytes=*/4).Put("k", "abcdef").status().code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(sent_.back().method, "DELETE");
  EXPECT_THAT(sent_.back().url, HasSubstr("uploadId=u1"));
}

TEST_F(S3ClientTest, ErrorInsideASuccessfulAnswerIsAnError) {
  Give(200,
       "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>");
  Give(200, "", {{"etag", "\"p1\""}});
  Give(200, "", {{"etag", "\"p2\""}});
  Give(200, "<Error><Code>InternalError</Code><Message>sorry</Message></Error>");
  Give(204);
  EXPECT_EQ(Make(Location(), /*part_bytes=*/4).Put("k", "abcdef").status().code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(S3ClientTest, ListingFollowsItsPagesAndDropsThePrefix) {
  Give(200, R"(<?xml version="1.0"?><ListBucketResult><IsTruncated>true</IsTruncated>
    <NextContinuationToken>a+/=</NextContinuationToken>
    <Contents><Key>models/eu/names/a</Key><ETag>&quot;1&quot;</ETag><Size>7</Size></Contents>
    </ListBucketResult>)");
  Give(200, R"(<ListBucketResult><IsTruncated>false</IsTruncated>
    <Contents><Key>models/eu/names/b</Key><ETag>"2"</ETag><Size>9</Size></Contents>
    </ListBucketResult>)");
  const auto entries = Make(Location()).List("names/");
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_THAT(*entries, SizeIs(2));
  EXPECT_EQ((*entries)[0].key, "names/a");
  EXPECT_EQ((*entries)[0].etag, "\"1\"");
  EXPECT_EQ((*entries)[1].num_bytes, 9);
  EXPECT_THAT(sent_[0].url, HasSubstr("list-type=2&prefix=models%2Feu%2Fnames%2F"));
  EXPECT_THAT(sent_[1].url, HasSubstr("continuation-token=a%2B%2F%3D"));
}

TEST_F(S3ClientTest, AnswersThatAreNoneAreDataLoss) {
  for (const char* body :
       {"", "<html>login</html>", "<ListBucketResult><Contents>",
        "<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"}) {
    EXPECT_EQ(ParseListPage(body).status().code(), absl::StatusCode::kDataLoss) << body;
  }
}

TEST_F(S3ClientTest, CredentialsComeFromTheEnvironmentOrAFile) {
  std::map<std::string, std::string> variables;
  const auto environment = [&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
  EXPECT_THAT(std::string(CredentialsFromEnvironment(environment).status().message()),
              HasSubstr("AWS_ACCESS_KEY_ID"));
  variables["AWS_ACCESS_KEY_ID"] = "id";
  variables["AWS_SECRET_ACCESS_KEY"] = "key";
  EXPECT_EQ((*CredentialsFromEnvironment(environment))()->secret_access_key, "key");
  const auto parsed = ParseCredentials(
      "[other]\naws_access_key_id=no\n# comment\n[default]\n aws_access_key_id = id\n"
      "aws_secret_access_key = a=b\n");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->access_key_id, "id");
  EXPECT_EQ(parsed->secret_access_key, "a=b");
  EXPECT_FALSE(ParseCredentials("[other]\naws_access_key_id=id\naws_secret_access_key=k").ok());
}

}  // namespace
}  // namespace tenon
