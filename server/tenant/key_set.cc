#include "server/tenant/key_set.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/x509.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/json_text.h"
#include "adapters/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace tenon {
namespace {

constexpr size_t kMinRsaBits = 2048;
constexpr size_t kMaxRsaBytes = 1024;    // 8192 bits: bounds the time of a verification
constexpr size_t kCoordinateBytes = 32;  // of P-256 and of Ed25519

using PublicKey = std::shared_ptr<EVP_PKEY>;

template <auto Free>
struct Freer {
  template <typename T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};
using Bignum = std::unique_ptr<BIGNUM, Freer<BN_free>>;
using Builder = std::unique_ptr<OSSL_PARAM_BLD, Freer<OSSL_PARAM_BLD_free>>;
using Params = std::unique_ptr<OSSL_PARAM, Freer<OSSL_PARAM_free>>;
using KeyContext = std::unique_ptr<EVP_PKEY_CTX, Freer<EVP_PKEY_CTX_free>>;
using DigestContext = std::unique_ptr<EVP_MD_CTX, Freer<EVP_MD_CTX_free>>;
using EcdsaSignature = std::unique_ptr<ECDSA_SIG, Freer<ECDSA_SIG_free>>;

const unsigned char* Bytes(absl::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

Bignum ToBignum(absl::string_view bytes) {
  return Bignum(BN_bin2bn(Bytes(bytes), static_cast<int>(bytes.size()), nullptr));
}

// Null when OpenSSL refuses the parameters, for example a point that is not on its curve.
PublicKey FromParams(const char* type, OSSL_PARAM_BLD* builder) {
  const Params params(OSSL_PARAM_BLD_to_param(builder));
  const KeyContext context(EVP_PKEY_CTX_new_from_name(nullptr, type, nullptr));
  EVP_PKEY* raw = nullptr;
  if (params == nullptr || context == nullptr || EVP_PKEY_fromdata_init(context.get()) != 1 ||
      EVP_PKEY_fromdata(context.get(), &raw, EVP_PKEY_PUBLIC_KEY, params.get()) != 1) {
    return nullptr;
  }
  PublicKey key(raw, EVP_PKEY_free);
  const KeyContext check(EVP_PKEY_CTX_new_from_pkey(nullptr, raw, nullptr));
  return EVP_PKEY_public_check(check.get()) == 1 ? key : nullptr;
}

PublicKey MakeRsa(absl::string_view modulus, absl::string_view exponent) {
  const Bignum n = ToBignum(modulus);
  const Bignum e = ToBignum(exponent);
  const Builder builder(OSSL_PARAM_BLD_new());
  if (modulus.size() > kMaxRsaBytes || exponent.size() > 8 ||
      static_cast<size_t>(BN_num_bits(n.get())) < kMinRsaBits ||
      OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_N, n.get()) != 1 ||
      OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_E, e.get()) != 1) {
    return nullptr;
  }
  return FromParams("RSA", builder.get());
}

PublicKey MakeP256(absl::string_view x, absl::string_view y) {
  if (x.size() != kCoordinateBytes || y.size() != kCoordinateBytes) {
    return nullptr;
  }
  const std::string point = absl::StrCat("\x04", x, y);  // uncompressed, SEC 1
  const Builder builder(OSSL_PARAM_BLD_new());
  OSSL_PARAM_BLD_push_utf8_string(builder.get(), OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0);
  OSSL_PARAM_BLD_push_octet_string(builder.get(), OSSL_PKEY_PARAM_PUB_KEY, point.data(),
                                   point.size());
  return FromParams("EC", builder.get());
}

PublicKey MakeEd25519(absl::string_view x) {
  if (x.size() != kCoordinateBytes) {
    return nullptr;
  }
  return PublicKey(EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, Bytes(x), x.size()),
                   EVP_PKEY_free);
}

// "" when there is no such member or it is no string.
std::string Text(const nlohmann::json& object, const char* name) {
  const auto found = object.find(name);
  const auto* text = found == object.end() ? nullptr : found->get_ptr<const std::string*>();
  return text == nullptr ? std::string() : *text;
}

// "" for what is not base64url, which no kind of key takes.
std::string Binary(const nlohmann::json& object, const char* name) {
  return DecodeBase64Url(Text(object, name)).value_or(std::string());
}

// r and s side by side (RFC 7518, section 3.4) -> DER, as OpenSSL wants it.
std::string ToDer(absl::string_view signature) {
  if (signature.size() != 2 * kCoordinateBytes) {
    return "";
  }
  const EcdsaSignature pair(ECDSA_SIG_new());
  ECDSA_SIG_set0(pair.get(), ToBignum(signature.substr(0, kCoordinateBytes)).release(),
                 ToBignum(signature.substr(kCoordinateBytes)).release());
  unsigned char* der = nullptr;
  const int size = i2d_ECDSA_SIG(pair.get(), &der);
  const std::string text(reinterpret_cast<char*>(der), static_cast<size_t>(std::max(size, 0)));
  OPENSSL_free(der);
  return text;
}

bool VerifyWith(EVP_PKEY* key, const EVP_MD* digest, absl::string_view message,
                absl::string_view signature) {
  const DigestContext context(EVP_MD_CTX_new());
  return EVP_DigestVerifyInit(context.get(), nullptr, digest, nullptr, key) == 1 &&
         EVP_DigestVerify(context.get(), Bytes(signature), signature.size(), Bytes(message),
                          message.size()) == 1;
}

}  // namespace

std::optional<SignatureAlgorithm> ParseSignatureAlgorithm(absl::string_view name) {
  if (name == "RS256") {
    return SignatureAlgorithm::kRs256;
  }
  if (name == "ES256") {
    return SignatureAlgorithm::kEs256;
  }
  return name == "EdDSA" ? std::make_optional(SignatureAlgorithm::kEdDsa) : std::nullopt;
}

std::optional<std::string> DecodeBase64Url(absl::string_view text) {
  const bool alphabet = std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_';
  });
  std::string bytes;
  if (!alphabet || text.size() % 4 == 1 || !absl::WebSafeBase64Unescape(text, &bytes)) {
    return std::nullopt;
  }
  return bytes;
}

absl::StatusOr<KeySet> KeySet::Parse(absl::string_view jwks) {
  const nlohmann::json json = ParseJson(jwks);
  if (!json.is_object() || !json.contains("keys") || !json["keys"].is_array()) {
    return absl::InvalidArgumentError("the JWKS is not {\"keys\": [...]}");
  }
  KeySet set;
  for (const nlohmann::json& item : json["keys"]) {
    const std::string type = Text(item, "kty");
    const std::string curve = Text(item, "crv");
    const std::string use = Text(item, "use");
    Key key;
    key.id = Text(item, "kid");
    if (!use.empty() && use != "sig") {
      continue;
    }
    if (type == "RSA") {
      key.algorithm = SignatureAlgorithm::kRs256;
      key.key = MakeRsa(Binary(item, "n"), Binary(item, "e"));
    } else if (type == "EC" && curve == "P-256") {
      key.algorithm = SignatureAlgorithm::kEs256;
      key.key = MakeP256(Binary(item, "x"), Binary(item, "y"));
    } else if (type == "OKP" && curve == "Ed25519") {
      key.algorithm = SignatureAlgorithm::kEdDsa;
      key.key = MakeEd25519(Binary(item, "x"));
    } else {
      continue;
    }
    const std::string declared = Text(item, "alg");
    if (!declared.empty() && ParseSignatureAlgorithm(declared) != key.algorithm) {
      continue;  // for an algorithm that is not taken, such as PS256
    }
    if (key.key == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("the JWKS holds a bad ", type, " key, id ", Quoted(key.id)));
    }
    set.keys_.push_back(std::move(key));
  }
  if (set.keys_.empty()) {
    return absl::InvalidArgumentError("the JWKS holds no key for RS256, ES256 or EdDSA");
  }
  return set;
}

bool KeySet::Verify(SignatureAlgorithm algorithm, absl::string_view key_id,
                    absl::string_view message, absl::string_view signature) const {
  const bool is_ecdsa = algorithm == SignatureAlgorithm::kEs256;
  const std::string wanted = is_ecdsa ? ToDer(signature) : std::string(signature);
  // Ed25519 hashes by itself.
  const EVP_MD* const digest = algorithm == SignatureAlgorithm::kEdDsa ? nullptr : EVP_sha256();
  return !wanted.empty() && std::any_of(keys_.begin(), keys_.end(), [&](const Key& key) {
    return key.algorithm == algorithm && (key_id.empty() || key.id == key_id) &&
           VerifyWith(key.key.get(), digest, message, wanted);
  });
}

}  // namespace tenon
