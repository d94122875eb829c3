#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/flags/reflection.h"
#include "absl/strings/match.h"
#include "server/server_flags.h"

namespace tenon {
namespace {

class ServerConfigTest : public testing::Test {
 protected:
  absl::StatusOr<ServerConfig> Read(std::vector<std::string> args) {
    args.insert(args.begin(), "tenon-server");
    std::vector<char*> pointers;
    for (std::string& arg : args) {
      pointers.push_back(arg.data());
    }
    pointers.push_back(nullptr);
    return ReadServerConfig(static_cast<int>(args.size()), pointers.data(),
                            [this](const char* name) {
                              const auto it = environment_.find(name);
                              return it == environment_.end() ? nullptr : it->second.c_str();
                            });
  }

  absl::FlagSaver saver_;  // flags are the process's: each test gets them as they were
  std::map<std::string, std::string> environment_;
};

TEST_F(ServerConfigTest, ModelIsAllThatMustBeGiven) {
  const auto config = Read({"--model=/models/m"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model, "/models/m");
  EXPECT_EQ(config->listen, "127.0.0.1:50051");
  EXPECT_EQ(config->http_listen, "127.0.0.1:8080");
  EXPECT_EQ(config->dtype, "auto");
  EXPECT_EQ(config->drain_timeout, absl::Seconds(30));
  const auto without = Read({"--model="});
  EXPECT_EQ(without.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(without.status().message(), "TENON_MODEL"));
}

TEST_F(ServerConfigTest, DashesAndUnderscoresAreTheSame) {
  const auto dashes = Read({"--model=m", "--kv-cache-bytes=4096", "--drain-timeout", "5s"});
  ASSERT_TRUE(dashes.ok()) << dashes.status();
  EXPECT_EQ(dashes->kv_cache_bytes, 4096);
  EXPECT_EQ(dashes->drain_timeout, absl::Seconds(5));
  const auto underscores = Read({"--model=m", "--kv_cache_bytes=8192"});
  EXPECT_EQ(underscores->kv_cache_bytes, 8192);
}

TEST_F(ServerConfigTest, DashesInValuesStay) {
  const auto config = Read({"--model=/a-b/c-d", "--model-name", "x-y"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model, "/a-b/c-d");
  EXPECT_EQ(config->model_name, "x-y");
}

TEST_F(ServerConfigTest, EnvironmentStandsInForFlags) {
  environment_ = {{"TENON_MODEL", "/env"}, {"TENON_MAX_QUEUED", "7"}};
  const auto config = Read({});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model, "/env");
  EXPECT_EQ(config->max_queued, 7);
}

TEST_F(ServerConfigTest, FlagOverridesEnvironment) {
  environment_ = {{"TENON_MODEL", "/env"}};
  EXPECT_EQ(Read({"--model=/flag"})->model, "/flag");
}

TEST_F(ServerConfigTest, BadVariableIsNamed) {
  environment_ = {{"TENON_MAX_QUEUED", "many"}};
  const auto config = Read({"--model=m"});
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(config.status().message(), "TENON_MAX_QUEUED='many'"));
}

TEST_F(ServerConfigTest, ForeignVariablesAreNobodysBusiness) {
  environment_ = {
      {"TENON_SERVICE_HOST", "10.0.0.1"}};  // what Kubernetes sets for a service "tenon"
  EXPECT_TRUE(Read({"--model=m"}).ok());
}

TEST_F(ServerConfigTest, StrayArgumentsAreRefused) {
  EXPECT_EQ(Read({"--model=m", "serve"}).status().message(), "unexpected argument 'serve'");
}

TEST_F(ServerConfigTest, PrintedConfigurationReadsBack) {
  ASSERT_TRUE(Read({"--model=m", "--kv-block-size=32"}).ok());
  const std::string text = PrintServerConfig();
  EXPECT_TRUE(absl::StrContains(text, "--model=m\n")) << text;
  EXPECT_TRUE(absl::StrContains(text, "--kv_block_size=32\n")) << text;
}

TEST_F(ServerConfigTest, EachBoundIsCheckedAndNamed) {
  const std::vector<std::string> bad = {"--dtype=fp8",
                                        "--device=gpu",
                                        "--device=cuda:",
                                        "--device=cuda:-1",
                                        "--device=cuda:128",
                                        "--log-level=loud",
                                        "--threads=-1",
                                        "--listen=50051",
                                        "--listen=:50051",
                                        "--listen=h:70000",
                                        "--listen=unix:",
                                        "--http-listen=unix:/x",
                                        "--kv-cache-bytes=-1",
                                        "--kv-block-size=0",
                                        "--kv-block-size=257",
                                        "--max-batch-tokens=0",
                                        "--prefill-chunk-tokens=-1",
                                        "--max-sequences=0",
                                        "--max-queued=0",
                                        "--max-upload-bytes=0",
                                        "--max-adapter-rank=0",
                                        "--max-adapter-tensors=0",
                                        "--max-adapter-header-bytes=1",
                                        "--max-virtual-tokens=0",
                                        "--max-bottleneck-width=0",
                                        "--max-override-bytes=-1",
                                        "--adapter-device-bytes=0",
                                        "--max-adapters=0",
                                        "--drain-timeout=-1s",
                                        "--max-concurrent-uploads=0",
                                        "--store=",
                                        "--trusted-proxies=nobody",
                                        "--max-connection-age=0",
                                        "--max-connection-idle=25h",
                                        "--max-context-tokens=-1"};
  for (const std::string& flag : bad) {
    absl::FlagSaver saver;
    const auto config = Read({"--model=m", flag});
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << flag;
    std::string name = flag.substr(0, flag.find('='));
    std::replace(name.begin() + 2, name.end(), '-', '_');
    EXPECT_TRUE(absl::StrContains(config.status().message(), name)) << config.status();
  }
}

TEST_F(ServerConfigTest, BatchMustHoldATokenOfEachSequence) {
  const auto config = Read({"--model=m", "--max-batch-tokens=8", "--max-sequences=9"});
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ServerConfigTest, UnixSocketsAreAddresses) {
  EXPECT_TRUE(Read({"--model=m", "--listen=unix:/run/tenon.sock"}).ok());
}

TEST_F(ServerConfigTest, PlaintextForOtherMachinesTakesAFlag) {
  for (const char* flag : {"--listen", "--admin-listen"}) {
    for (const char* address : {"0.0.0.0:1", "[::]:1", "10.0.0.7:1", "tenon.example:1"}) {
      const std::string given = std::string(flag) + "=" + address;
      absl::FlagSaver saver;
      const auto config = Read({"--model=m", given});
      EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << given;
      EXPECT_TRUE(absl::StrContains(config.status().message(), "--allow_plaintext")) << given;
      EXPECT_TRUE(Read({"--model=m", given, "--allow-plaintext"}).ok()) << given;
      EXPECT_TRUE(Read({"--model=m", given, "--noallow_plaintext", "--tls-certificate-file=c",
                        "--tls-key-file=k"})
                      .ok())
          << given;
    }
  }
}

TEST_F(ServerConfigTest, ThisMachineNeedsNoTls) {
  for (const char* address : {"127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1", "unix:/s"}) {
    EXPECT_TRUE(Read({"--model=m", std::string("--listen=") + address}).ok()) << address;
    EXPECT_TRUE(IsLocalAddress(address)) << address;
  }
}

TEST_F(ServerConfigTest, FlagsThatNeedOthersSaySo) {
  for (const std::vector<std::string>& flags :
       std::vector<std::vector<std::string>>{{"--tls-certificate-file=c"},
                                             {"--tls-key-file=k"},
                                             {"--tls-client-ca-file=a"},
                                             {"--certificate-rules-file=r"},
                                             {"--jwt-issuer=i"}}) {
    absl::FlagSaver saver;
    const auto config = Read({"--model=m", flags[0]});
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << flags[0];
    EXPECT_TRUE(absl::StrContains(config.status().message(), "needs")) << config.status();
  }
}

}  // namespace
}  // namespace tenon
