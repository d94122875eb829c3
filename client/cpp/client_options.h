// ClientOptions: what all calls of a client have in common.
#ifndef TENON_CLIENT_CPP_CLIENT_OPTIONS_H_
#define TENON_CLIENT_CPP_CLIENT_OPTIONS_H_

#include <string>

#include "absl/time/time.h"

namespace tenon {

struct ClientOptions {
  absl::Duration timeout = absl::InfiniteDuration();  ///< deadline of each call, from its start
  std::string api_key;                                ///< or a JWT; empty: none
  /// PEM text of the authorities that the server's certificate must come from. Empty: plaintext.
  std::string tls_authorities;
  /// PEM texts of the client's own certificate and key, for mTLS. Empty: none.
  std::string tls_certificate, tls_key;
};

}  // namespace tenon

#endif  // TENON_CLIENT_CPP_CLIENT_OPTIONS_H_
