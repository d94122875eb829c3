// What must not get in, sent to the real binary over real gRPC: each upload is refused with the
// right code, nothing of it stays, and the server goes on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/adapters/formats/hostile_corpus.h"
#include "tests/adapters/formats/method_folders.h"
#include "tests/integration/server_fixture.h"

namespace tenon {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Files = std::map<std::string, std::string>;
using Messages = std::vector<v1::UploadAdapterRequest>;

Files ToFiles(const FileSet& set) {
  Files files;
  for (const auto& [name, file] : set) {
    files[name] = std::string(reinterpret_cast<const char*>(file.bytes.data()), file.bytes.size());
  }
  return files;
}

// As UploadMessages, but an empty file is sent too.
Messages WholeUpload(const std::string& name, const Files& files) {
  Messages messages = UploadMessages(name, files, 1 << 20);
  for (const auto& [file_name, bytes] : files) {
    if (bytes.empty()) {
      v1::UploadAdapterRequest empty;
      empty.mutable_chunk()->set_file_name(file_name);
      messages.insert(messages.end() - 1, empty);
    }
  }
  return messages;
}

class HostileUploadsTest : public ServerTest {
 protected:
  grpc::Status Send(const Messages& messages) {
    v1::UploadAdapterResponse response;
    return Upload(messages, &response);
  }
  grpc::Status Send(const Files& files) { return Send(WholeUpload("evil", files)); }

  /// All paths below the test's folder, the store's among them.
  std::set<std::string> Paths() const {
    std::set<std::string> paths;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_.path())) {
      paths.insert(entry.path().string());
    }
    return paths;
  }
};

// A valid upload of a tiny adapter, with one message changed or added.
Messages Changed(const std::function<void(Messages&)>& change) {
  Messages messages = UploadMessages("fr", TinyAdapterFiles("plain-qv"));
  change(messages);
  return messages;
}

struct HostileMessages {
  const char* what;
  Messages messages;
  grpc::StatusCode code = grpc::StatusCode::INVALID_ARGUMENT;
};

std::vector<HostileMessages> HostileStreams() {
  std::vector<HostileMessages> streams;
  for (const std::string& name :
       {std::string(), std::string("../up"), std::string("/etc"), std::string(".hidden"),
        std::string("a/b"), std::string("nul\0", 4), std::string(129, 'n'), std::string("fr@1"),
        std::string("f\xc3\xbcr"), std::string("new\nline")}) {
    streams.push_back({"adapter name", Changed([&](Messages& messages) {
                         messages[0].mutable_header()->set_name(name);
                       })});
  }
  for (const std::string& name :
       {std::string(".."), std::string("../../etc/passwd"), std::string("/etc/passwd"),
        std::string("x/adapter_config.json"), std::string("adapter_config.json\0", 20),
        std::string(300, 'n'), std::string("adapter_model.pt")}) {
    streams.push_back({"file name", Changed([&](Messages& messages) {
                         messages[1].mutable_chunk()->set_file_name(name);
                       })});
  }
  streams.push_back({"nothing", {}});
  streams.push_back({"no header", Changed([](Messages& all) { all.erase(all.begin()); })});
  streams.push_back(
      {"two headers", Changed([](Messages& all) { all.insert(all.begin(), all.front()); })});
  streams.push_back({"empty message", Changed([](Messages& all) { all[1].Clear(); })});
  streams.push_back({"no digest", Changed([](Messages& all) { all.pop_back(); })});
  streams.push_back(
      {"file in two parts", Changed([](Messages& all) { all.insert(all.end() - 1, all[1]); })});
  streams.push_back({"chunk of 1 MiB and a byte", Changed([](Messages& all) {
                       all[1].mutable_chunk()->set_data(std::string((1 << 20) + 1, 'x'));
                     })});
  streams.push_back({"digest of another length", Changed([](Messages& all) {
                       all.back().mutable_digest()->set_sha256("abc");
                     })});
  streams.push_back({"digest of other bytes", Changed([](Messages& all) {
                       all.back().mutable_digest()->set_sha256(std::string(64, '0'));
                     }),
                     grpc::StatusCode::DATA_LOSS});
  return streams;
}

TEST_F(HostileUploadsTest, TheWholeCorpusIsRefusedAndLeavesNothing) {
  Start();
  const std::set<std::string> before = Paths();
  size_t refused = 0;
  for (const testing::HostileFolder& hostile : testing::HostileFolders()) {
    const grpc::Status status = Send(ToFiles(hostile.files));
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << hostile.what << ": " << status.error_message();
    EXPECT_TRUE(FindDetail<google::rpc::BadRequest>(status).has_value()) << hostile.what;
    EXPECT_TRUE(FindDetail<google::rpc::ErrorInfo>(status).has_value()) << hostile.what;
    ++refused;
  }
  for (const HostileMessages& hostile : HostileStreams()) {
    EXPECT_EQ(Send(hostile.messages).error_code(), hostile.code) << hostile.what;
    ++refused;
  }
  std::cout << refused << " hostile uploads refused\n";
  EXPECT_GE(refused, 60u);
  EXPECT_THAT(List(), IsEmpty());
  EXPECT_EQ(Paths(), before);
  EXPECT_EQ(UploadTiny("plain-qv", "fr").version(), 1) << "the server goes on";
}

// Valid folders of every method, made for a base with 8 features.
TEST_F(HostileUploadsTest, AdaptersOfAnotherBaseAreRefused) {
  Start();
  for (const testing::MethodFolder& folder : testing::AllMethodFolders()) {
    const grpc::Status status = Send(ToFiles(folder.Build()));
    EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION)
        << folder.method << ": " << status.error_message();
    EXPECT_TRUE(FindDetail<google::rpc::PreconditionFailure>(status).has_value()) << folder.method;
  }
  EXPECT_THAT(List(), IsEmpty());
}

/// A flag that makes one limit small, and an upload just over it.
struct Limit {
  std::string flag;
  Files files;
  grpc::StatusCode code;
  std::vector<std::string> message;  ///< the thing with its value, and the limit
};

std::vector<Limit> Limits() {
  const Files tiny = TinyAdapterFiles("plain-qv");
  size_t upload_bytes = 0;
  for (const auto& [name, content] : tiny) {
    upload_bytes += content.size();
  }
  uint64_t header_bytes = 0;  // the file begins with it, little-endian as this machine
  std::memcpy(&header_bytes, tiny.at("adapter_model.safetensors").data(), sizeof(header_bytes));
  const Files prompt = ToFiles(testing::VirtualTokensFolder("PROMPT_TUNING").Build());
  const Files bottleneck = ToFiles(testing::BottleneckFolder().Build());
  const Files saved = ToFiles(testing::DoraFolder().Build());
  const auto invalid = grpc::StatusCode::INVALID_ARGUMENT;
  return {
      {absl::StrCat("--max-upload-bytes=", upload_bytes - 1),
       tiny,
       grpc::StatusCode::RESOURCE_EXHAUSTED,
       {absl::StrCat(upload_bytes), absl::StrCat("max_upload_bytes ", upload_bytes - 1)}},
      {"--max-adapter-rank=2",
       TinyAdapterFiles("rank-3"),
       invalid,
       {"r 3 exceeds the limit of 2 (max_adapter_rank)"}},
      {"--max-adapter-tensors=3", tiny, invalid, {"more than 3 tensors", "(max_adapter_tensors)"}},
      {absl::StrCat("--max-adapter-header-bytes=", header_bytes - 1),
       tiny,
       invalid,
       {absl::StrCat("header length ", header_bytes, " exceeds the limit of ", header_bytes - 1),
        "(max_adapter_header_bytes)"}},
      {"--max-virtual-tokens=2",
       prompt,
       invalid,
       {"num_virtual_tokens 3 exceeds the limit of 2 (max_virtual_tokens)"}},
      {"--max-bottleneck-width=1",
       bottleneck,
       invalid,
       {"reduction_factor", "at most 1 wide (max_bottleneck_width)"}},
      {"--max-override-bytes=100", saved, invalid, {"limit of 100 (max_override_bytes)"}},
  };
}

TEST_F(HostileUploadsTest, EveryLimitIsAFlagAndIsNamed) {
  for (const Limit& limit : Limits()) {
    server_.reset();
    Start({limit.flag});
    const grpc::Status status = Send(limit.files);
    EXPECT_EQ(status.error_code(), limit.code) << limit.flag << ": " << status.error_message();
    for (const std::string& part : limit.message) {
      EXPECT_THAT(status.error_message(), HasSubstr(part)) << limit.flag;
    }
    EXPECT_THAT(List(), IsEmpty()) << limit.flag;
  }
}

TEST_F(HostileUploadsTest, AdaptersOfATenantAreCounted) {
  Start({"--max-adapters=2"});
  UploadTiny("plain-qv", "one");
  UploadTiny("rslora", "one");
  const grpc::Status third = Send(WholeUpload("two", TinyAdapterFiles("plain-qv")));
  EXPECT_EQ(third.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(FindDetail<google::rpc::QuotaFailure>(third).has_value());
  EXPECT_THAT(third.error_message(),
              HasSubstr("has 2 adapter versions, the limit max_adapters is 2"));
  EXPECT_EQ(List().size(), 2u);
}

}  // namespace
}  // namespace tenon
