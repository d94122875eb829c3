#include "server/http/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tenon {
namespace {

class HttpServerTest : public testing::Test {
 protected:
  void SetUp() override {
    auto server = HttpServer::Start("127.0.0.1:0",
                                    {[this] { return absl::StrCat("scrapes ", ++scrapes_, "\n"); },
                                     [this] { return ready_.load(); }});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<httplib::Client>("127.0.0.1", server_->port());
  }

  int Get(const std::string& path) {
    const httplib::Result result = client_->Get(path);
    body_ = result ? result->body : "";
    type_ = result ? result->get_header_value("Content-Type") : "";
    return result ? result->status : -1;
  }

  std::atomic<int> scrapes_ = 0;
  std::atomic<bool> ready_ = false;
  std::unique_ptr<HttpServer> server_;
  std::unique_ptr<httplib::Client> client_;
  std::string body_, type_;
};

TEST_F(HttpServerTest, MetricsAreReadAtEachScrape) {
  EXPECT_EQ(Get("/metrics"), 200);
  EXPECT_EQ(body_, "scrapes 1\n");
  EXPECT_THAT(type_, testing::HasSubstr("version=0.0.4"));
  Get("/metrics");
  EXPECT_EQ(body_, "scrapes 2\n");
}

TEST_F(HttpServerTest, LivenessDoesNotDependOnReadiness) { EXPECT_EQ(Get("/healthz"), 200); }

TEST_F(HttpServerTest, ReadinessFollowsItsSource) {
  EXPECT_EQ(Get("/readyz"), 503);
  ready_ = true;
  EXPECT_EQ(Get("/readyz"), 200);
  ready_ = false;
  EXPECT_EQ(Get("/readyz"), 503);
}

TEST_F(HttpServerTest, OtherPathsAndMethodsAreNotFound) {
  EXPECT_EQ(Get("/"), 404);
  EXPECT_EQ(Get("/metrics/../etc/passwd"), 404);
  const httplib::Result posted = client_->Post("/metrics", "x", "text/plain");
  ASSERT_TRUE(posted);
  EXPECT_EQ(posted->status, 404);
}

TEST_F(HttpServerTest, LargeBodiesAreRefused) {
  const httplib::Result posted = client_->Post("/metrics", std::string(1 << 20, 'x'), "text/plain");
  EXPECT_TRUE(!posted || posted->status == 413);
  EXPECT_EQ(httplib::Client("127.0.0.1", server_->port()).Get("/healthz")->status, 200);
}

TEST_F(HttpServerTest, PortInUseIsAnError) {
  const auto second = HttpServer::Start(absl::StrCat("127.0.0.1:", server_->port()),
                                        {[] { return ""; }, [] { return true; }});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
}

TEST(HttpServerAddressTest, MalformedAddressesAreRefused) {
  for (const char* address : {"", "8080", ":8080", "localhost", "localhost:", "localhost:http",
                              "localhost:65536", "localhost:-1"}) {
    const auto server = HttpServer::Start(address, {[] { return ""; }, [] { return true; }});
    EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument) << address;
  }
}

TEST(HttpServerAddressTest, StartsAndStopsAtOnce) {
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(HttpServer::Start("127.0.0.1:0", {[] { return ""; }, [] { return true; }}).ok());
  }
}

}  // namespace
}  // namespace tenon
