#include "server/tenant/trusted_proxies.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace tenon {
namespace {

std::string CallerOf(const std::string& trusted, const std::string& peer,
                     const std::vector<absl::string_view>& forwarded_for) {
  return TrustedProxies::Parse(trusted)->CallerOf(peer, forwarded_for);
}

TEST(TrustedProxiesTest, NobodyIsTrustedByDefault) {
  EXPECT_EQ(CallerOf("", "unix:/run/rpc.sock", {"203.0.113.9"}), "unix:/run/rpc.sock");
  EXPECT_EQ(CallerOf("", "ipv4:127.0.0.1:9", {"203.0.113.9"}), "ipv4:127.0.0.1:9");
}

TEST(TrustedProxiesTest, ProxySaysForWhomItSpeaks) {
  EXPECT_EQ(CallerOf("unix", "unix:", {"203.0.113.9"}), "ipv4:203.0.113.9");
  EXPECT_EQ(CallerOf("10.4.0.0/16", "ipv4:10.4.7.1:4444", {"2001:db8::7"}), "ipv6:[2001:db8::7]");
  EXPECT_EQ(CallerOf("::1", "ipv6:%5B::1%5D:4444", {"203.0.113.9"}), "ipv4:203.0.113.9");
}

TEST(TrustedProxiesTest, OthersAreNotBelieved) {
  EXPECT_EQ(CallerOf("10.4.0.0/16", "ipv4:10.5.0.1:1", {"203.0.113.9"}), "ipv4:10.5.0.1:1");
  EXPECT_EQ(CallerOf("10.4.0.0/16", "unix:", {"203.0.113.9"}), "unix:");
  EXPECT_EQ(CallerOf("unix", "ipv4:127.0.0.1:1", {"203.0.113.9"}), "ipv4:127.0.0.1:1");
}

TEST(TrustedProxiesTest, WhatTheCallerWroteHimselfIsNotLookedAt) {
  EXPECT_EQ(CallerOf("unix", "unix:", {"127.0.0.1, 203.0.113.9"}), "ipv4:203.0.113.9");
  EXPECT_EQ(CallerOf("unix", "unix:", {"127.0.0.1", "203.0.113.9"}), "ipv4:203.0.113.9");
}

TEST(TrustedProxiesTest, ChainOfProxiesIsFollowedToItsFirstStranger) {
  EXPECT_EQ(CallerOf("unix,10.4.0.0/16", "unix:", {"127.0.0.1, 203.0.113.9, 10.4.0.8"}),
            "ipv4:203.0.113.9");
}

TEST(TrustedProxiesTest, WhatIsNoAddressEndsTheChain) {
  EXPECT_EQ(CallerOf("unix", "unix:", {}), "unix:");
  EXPECT_EQ(CallerOf("unix", "unix:", {""}), "unix:");
  EXPECT_EQ(CallerOf("unix", "unix:", {"unix:/forged"}), "unix:");
  EXPECT_EQ(CallerOf("unix", "unix:", {"203.0.113.9\nforged=1"}), "unix:");
}

TEST(TrustedProxiesTest, PrefixIsOfBitsAndFamiliesDoNotMix) {
  EXPECT_TRUE(TrustedProxies::Parse("10.4.0.0/15")->Trusts("ipv4:10.5.255.255:1"));
  EXPECT_FALSE(TrustedProxies::Parse("10.4.0.0/15")->Trusts("ipv4:10.6.0.0:1"));
  EXPECT_TRUE(TrustedProxies::Parse("10.4.0.9")->Trusts("ipv6:[::ffff:10.4.0.9]:1"))
      << "the same address on a socket that serves both";
  EXPECT_FALSE(TrustedProxies::Parse("0.0.0.0/0")->Trusts("ipv6:[2001:db8::1]:1"));
}

TEST(TrustedProxiesTest, WhatIsNoBlockIsNamed) {
  for (const char* text :
       {"localhost", "10.4.0.0/33", "10.4.0.0/-1", "::/129", "10.4.0", "unix:/a"}) {
    EXPECT_EQ(TrustedProxies::Parse(text).status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
}

}  // namespace
}  // namespace tenon
