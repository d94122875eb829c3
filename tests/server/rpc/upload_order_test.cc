#include "server/rpc/upload_order.h"

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"

namespace tenon {
namespace {

v1::UploadAdapterRequest Parse(const std::string& text) {
  v1::UploadAdapterRequest message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
  return message;
}

constexpr char kHeader[] = "header { name: 'fr' }";
constexpr char kConfig[] = "chunk { file_name: 'adapter_config.json' data: '{' }";
constexpr char kWeights[] = "chunk { file_name: 'adapter_model.safetensors' data: 'x' }";
constexpr char kDigest[] = "digest {}";

// The field of the first error, or "" when all messages are taken.
std::string FirstBadField(const std::vector<std::string>& messages) {
  UploadOrder order;
  for (const std::string& text : messages) {
    const absl::Status status = order.Accept(Parse(text));
    if (!status.ok()) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      return GetErrorDetail(status)->subject;
    }
  }
  return "";
}

TEST(UploadOrderTest, TakesHeaderChunksFileByFileAndDigest) {
  EXPECT_EQ(FirstBadField({kHeader, kConfig, kConfig, kWeights, kWeights, kDigest}), "");
  EXPECT_EQ(FirstBadField({kHeader, kWeights, kConfig, kDigest}), "");
}

TEST(UploadOrderTest, KeepsTheName) {
  UploadOrder order;
  ASSERT_TRUE(order.Accept(Parse(kHeader)).ok());
  EXPECT_EQ(order.name(), "fr");
}

TEST(UploadOrderTest, HeaderSaysWhichAliasMoves) {
  EXPECT_EQ(FirstBadField({"header { name: 'fr' alias: 'canary' expected_version: 0 }"}), "");
  EXPECT_EQ(FirstBadField({"header { name: 'fr' no_promote: true }"}), "");
  EXPECT_EQ(FirstBadField({"header { name: 'fr' alias: '7' }"}), "header.alias");
  EXPECT_EQ(FirstBadField({"header { name: 'fr' alias: 'a' no_promote: true }"}),
            "header.no_promote");
  EXPECT_EQ(FirstBadField({"header { name: 'fr' no_promote: true expected_version: 1 }"}),
            "header.no_promote");
  EXPECT_EQ(FirstBadField({"header { name: 'fr' expected_version: -1 }"}),
            "header.expected_version");
}

TEST(UploadOrderTest, HeaderComesFirstAndOnce) {
  EXPECT_EQ(FirstBadField({kConfig}), "part");
  EXPECT_EQ(FirstBadField({kDigest}), "part");
  EXPECT_EQ(FirstBadField({""}), "part");
  EXPECT_EQ(FirstBadField({kHeader, kHeader}), "header");
  EXPECT_EQ(FirstBadField({kHeader, ""}), "part");
}

TEST(UploadOrderTest, NothingFollowsTheDigest) {
  EXPECT_EQ(FirstBadField({kHeader, kConfig, kDigest, kConfig}), "part");
}

TEST(UploadOrderTest, UploadWithoutFilesIsNone) {
  EXPECT_EQ(FirstBadField({kHeader, kDigest}), "chunk");
}

TEST(UploadOrderTest, ChunksOfAFileFollowEachOther) {
  EXPECT_EQ(FirstBadField({kHeader, kConfig, kWeights, kConfig}), "chunk.file_name");
}

TEST(UploadOrderTest, NamesAreChecked) {
  EXPECT_EQ(FirstBadField({"header { name: '../x' }"}), "header.name");
  EXPECT_EQ(FirstBadField({"header {}"}), "header.name");
  for (const char* name : {"", "..", "../adapter_config.json", "/adapter_config.json",
                           "adapter_config.json\\000", "ADAPTER_CONFIG.JSON"}) {
    EXPECT_EQ(FirstBadField({kHeader, absl::StrCat("chunk { file_name: '", name, "' }")}),
              "chunk.file_name")
        << name;
  }
}

TEST(UploadOrderTest, ChunksAreBounded) {
  v1::UploadAdapterRequest message = Parse(kConfig);
  UploadOrder order;
  ASSERT_TRUE(order.Accept(Parse(kHeader)).ok());
  message.mutable_chunk()->mutable_data()->assign(kMaxChunkBytes, 'x');
  EXPECT_TRUE(order.Accept(message).ok());
  message.mutable_chunk()->mutable_data()->push_back('x');
  EXPECT_EQ(GetErrorDetail(order.Accept(message))->subject, "chunk.data");
}

TEST(UploadOrderTest, DigestIsLowerCaseHexOrEmpty) {
  for (const std::string& digest :
       {std::string(64, 'A'), std::string(63, 'a'), std::string(65, 'a'), std::string(64, 'g')}) {
    EXPECT_EQ(FirstBadField({kHeader, kConfig, absl::StrCat("digest { sha256: '", digest, "' }")}),
              "digest.sha256");
  }
  EXPECT_EQ(FirstBadField({kHeader, kConfig,
                           absl::StrCat("digest { sha256: '", std::string(64, 'a'), "' }")}),
            "");
}

TEST(UploadOrderTest, IncompleteNamesWhatIsMissing) {
  UploadOrder order;
  EXPECT_EQ(GetErrorDetail(order.Incomplete())->subject, "header");
  ASSERT_TRUE(order.Accept(Parse(kHeader)).ok());
  EXPECT_EQ(GetErrorDetail(order.Incomplete())->subject, "digest");
}

}  // namespace
}  // namespace tenon
