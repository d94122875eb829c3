#include "server/tenant/trusted_proxies.h"

#include <arpa/inet.h>

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "adapters/base/errors.h"

namespace tenon {
namespace {

constexpr int kIpv4Bits = 96;  // of a mapped address in front of the IPv4 one

// The host of gRPC's "ipv4:1.2.3.4:5" or "ipv6:%5B::1%5D:5"; empty for other peers.
std::string HostOf(absl::string_view peer) {
  if (absl::ConsumePrefix(&peer, "ipv4:")) {
    return std::string(peer.substr(0, peer.find(':')));
  }
  if (absl::ConsumePrefix(&peer, "ipv6:") &&
      (absl::ConsumePrefix(&peer, "%5B") || absl::ConsumePrefix(&peer, "["))) {
    return std::string(peer.substr(0, std::min(peer.find("%5D"), peer.find(']'))));
  }
  return "";
}

}  // namespace

bool TrustedProxies::ParseAddress(absl::string_view text, Address* address) {
  const std::string host(text);
  in_addr v4;
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) {
    *address = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    std::copy_n(reinterpret_cast<const uint8_t*>(&v4), 4, address->begin() + 12);
    return true;
  }
  return inet_pton(AF_INET6, host.c_str(), address->data()) == 1;
}

absl::StatusOr<TrustedProxies> TrustedProxies::Parse(absl::string_view text) {
  TrustedProxies proxies;
  for (const absl::string_view piece : absl::StrSplit(text, ',', absl::SkipWhitespace())) {
    const absl::string_view part = absl::StripAsciiWhitespace(piece);
    if (part == "unix") {
      proxies.unix_socket_ = true;
      continue;
    }
    const size_t slash = part.find('/');
    Block block;
    if (!ParseAddress(part.substr(0, slash), &block.address)) {
      return absl::InvalidArgumentError(
          absl::StrCat(Quoted(part), " is neither \"unix\" nor an address nor a CIDR block"));
    }
    const int first = absl::StrContains(part, ':') ? 0 : kIpv4Bits;
    int bits = 128 - first;
    if (slash != absl::string_view::npos &&
        (!absl::SimpleAtoi(part.substr(slash + 1), &bits) || bits < 0 || bits > 128 - first)) {
      return absl::InvalidArgumentError(
          absl::StrCat("the prefix of ", Quoted(part), " is not in [0, ", 128 - first, "]"));
    }
    block.prefix_bits = first + bits;
    proxies.blocks_.push_back(block);
  }
  return proxies;
}

bool TrustedProxies::Contains(const Address& address) const {
  return std::any_of(blocks_.begin(), blocks_.end(), [&](const Block& block) {
    for (int bit = 0; bit < block.prefix_bits; ++bit) {
      const int mask = 0x80 >> (bit % 8);
      if (((address[bit / 8] ^ block.address[bit / 8]) & mask) != 0) {
        return false;
      }
    }
    return true;
  });
}

bool TrustedProxies::Trusts(absl::string_view peer) const {
  if (absl::StartsWith(peer, "unix:")) {
    return unix_socket_;
  }
  Address address;
  return ParseAddress(HostOf(peer), &address) && Contains(address);
}

std::string TrustedProxies::CallerOf(absl::string_view peer,
                                     const std::vector<absl::string_view>& forwarded_for) const {
  if (!Trusts(peer)) {
    return std::string(peer);
  }
  std::string caller(peer);
  for (auto value = forwarded_for.rbegin(); value != forwarded_for.rend(); ++value) {
    const std::vector<absl::string_view> hops = absl::StrSplit(*value, ',');
    for (auto hop = hops.rbegin(); hop != hops.rend(); ++hop) {
      const absl::string_view host = absl::StripAsciiWhitespace(*hop);
      Address address;
      if (!ParseAddress(host, &address)) {
        return caller;
      }
      caller = absl::StrContains(host, ':') ? absl::StrCat("ipv6:[", host, "]")
                                            : absl::StrCat("ipv4:", host);
      if (!Contains(address)) {
        return caller;
      }
    }
  }
  return caller;
}

}  // namespace tenon
