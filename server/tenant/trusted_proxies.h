// TrustedProxies: whose word counts on where a call came from.
#ifndef TENON_SERVER_TENANT_TRUSTED_PROXIES_H_
#define TENON_SERVER_TENANT_TRUSTED_PROXIES_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tenon {

/// The peers that may say, in `x-forwarded-for`, whom they speak for. Immutable; thread-safe.
///
///   StatusOr<TrustedProxies> proxies = TrustedProxies::Parse("unix,10.4.0.0/16");
///   proxies->CallerOf("unix:", {"198.51.100.7, 203.0.113.9"})  // "ipv4:203.0.113.9"
class TrustedProxies {
 public:
  /// A list of "unix" (whoever reaches the Unix socket), addresses and CIDR blocks, separated by
  /// commas; empty: nobody. INVALID_ARGUMENT, naming the part, for anything else.
  static absl::StatusOr<TrustedProxies> Parse(absl::string_view text);

  /// Trusts nobody.
  TrustedProxies() = default;

  /// Where a call came from, as gRPC writes peers (without a port when a proxy said it). From the
  /// right, which is what the nearest proxy wrote, to the first address that is no trusted proxy
  /// itself: what a caller puts in front of that is his invention and is not looked at. `peer`, as
  /// it is, when it is not trusted, or when what it says is no address.
  std::string CallerOf(absl::string_view peer,
                       const std::vector<absl::string_view>& forwarded_for) const;

  /// Whether `peer` ("unix:/path", "ipv4:10.4.0.1:5000", "ipv6:%5B::1%5D:5000") is one of them.
  bool Trusts(absl::string_view peer) const;

 private:
  using Address = std::array<uint8_t, 16>;  // IPv4 as ::ffff:a.b.c.d
  struct Block {
    Address address;
    int prefix_bits;  // of 128
  };

  static bool ParseAddress(absl::string_view text, Address* address);
  bool Contains(const Address& address) const;

  bool unix_socket_ = false;
  std::vector<Block> blocks_;
};

}  // namespace tenon

#endif  // TENON_SERVER_TENANT_TRUSTED_PROXIES_H_
