#include "adapters/s3/sigv4.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <cstddef>
#include <span>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "adapters/base/sha256.h"

namespace tenon {
namespace {

std::string Hmac(absl::string_view key, absl::string_view text) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
       reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest, &size);
  return std::string(reinterpret_cast<const char*>(digest), size);
}

std::string DateOf(absl::Time time) {
  return absl::FormatTime("%Y%m%d", time, absl::UTCTimeZone());
}

}  // namespace

std::string AmzDate(absl::Time time) {
  return absl::FormatTime("%Y%m%dT%H%M%SZ", time, absl::UTCTimeZone());
}

std::string UriEncode(absl::string_view text, bool keep_slash) {
  std::string encoded;
  for (const char c : text) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.' ||
        c == '~' || (c == '/' && keep_slash)) {
      encoded.push_back(c);
    } else {
      absl::StrAppend(&encoded, "%",
                      absl::AsciiStrToUpper(absl::BytesToHexString(absl::string_view(&c, 1))));
    }
  }
  return encoded;
}

std::string CanonicalQuery(const std::vector<std::pair<std::string, std::string>>& query) {
  std::vector<std::string> encoded;
  for (const auto& [name, value] : query) {
    encoded.push_back(absl::StrCat(UriEncode(name, false), "=", UriEncode(value, false)));
  }
  std::sort(encoded.begin(), encoded.end());
  return absl::StrJoin(encoded, "&");
}

std::string Sha256Hex(absl::string_view text) {
  Sha256 hash;
  hash.Update(text);
  return hash.HexDigest();
}

std::string Authorization(const SignedParts& parts, const S3Credentials& credentials,
                          absl::string_view region, absl::string_view service, absl::Time time) {
  auto headers = parts.headers;
  std::sort(headers.begin(), headers.end());
  std::string canonical_headers;
  std::vector<absl::string_view> names;
  for (const auto& [name, value] : headers) {
    absl::StrAppend(&canonical_headers, name, ":", absl::StripAsciiWhitespace(value), "\n");
    names.push_back(name);
  }
  const std::string signed_headers = absl::StrJoin(names, ";");
  const std::string canonical =
      absl::StrJoin({parts.method, parts.path, CanonicalQuery(parts.query), canonical_headers,
                     signed_headers, parts.payload_sha256},
                    "\n");
  const std::string date = DateOf(time);
  const std::string scope = absl::StrCat(date, "/", region, "/", service, "/aws4_request");
  const std::string to_sign =
      absl::StrCat("AWS4-HMAC-SHA256\n", AmzDate(time), "\n", scope, "\n", Sha256Hex(canonical));
  std::string key = absl::StrCat("AWS4", credentials.secret_access_key);
  for (const absl::string_view step :
       {absl::string_view(date), region, service, absl::string_view("aws4_request")}) {
    key = Hmac(key, step);
  }
  return absl::StrCat("AWS4-HMAC-SHA256 Credential=", credentials.access_key_id, "/", scope,
                      ",SignedHeaders=", signed_headers,
                      ",Signature=", absl::BytesToHexString(Hmac(key, to_sign)));
}

}  // namespace tenon
