#include "tests/integration/server_process.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "tests/source_dir.h"

namespace tenon {

ScratchFolder::ScratchFolder() {
  std::string pattern = absl::StrCat(testing::TempDir(), "/tenon-XXXXXX");
  path_ = mkdtemp(pattern.data());
}

ScratchFolder::~ScratchFolder() { std::filesystem::remove_all(path_); }

ServerProcess::ServerProcess(const std::string& folder, std::vector<std::string> flags)
    : socket_(absl::StrCat("unix:", folder, "/rpc.sock")) {
  std::vector<std::string> args = {TENON_SERVER_BINARY,
                                   absl::StrCat("--model=", TinyModelPath("model")),
                                   absl::StrCat("--store=", folder, "/store"),
                                   absl::StrCat("--listen=", socket_),
                                   "--http-listen=127.0.0.1:0",
                                   "--threads=1"};
  args.insert(args.end(), flags.begin(), flags.end());
  process_ = std::make_unique<ChildProcess>(std::move(args));
  ready_line_ = process_->ReadLine();
  EXPECT_NE(ready_line_.find("ready"), std::string::npos) << ready_line_;
  socket_ = ReadyField("grpc");  // flags may have named another address
}

std::shared_ptr<grpc::Channel> ServerProcess::NewChannel(const std::string& address) const {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), args);
}

std::string ServerProcess::ReadyField(const std::string& name) const {
  const size_t begin = ready_line_.find(absl::StrCat(" ", name, "=")) + name.size() + 2;
  return ready_line_.substr(begin, ready_line_.find(' ', begin) - begin);
}

std::string ServerProcess::HttpGet(const std::string& path) const {
  httplib::Client client(absl::StrCat("http://", ReadyField("http")));
  const httplib::Result result = client.Get(path);
  return result ? result->body : "";
}

double MetricValue(const std::string& text, const std::string& name) {
  double value = -1;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (absl::ConsumePrefix(&line, absl::StrCat(name, " "))) {
      EXPECT_TRUE(absl::SimpleAtod(line, &value)) << line;
    }
  }
  return value;
}

std::string TinyModelPath(const std::string& path) {
  return SourcePath(absl::StrCat("tests/golden/data/tiny-llama/", path));
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace tenon
