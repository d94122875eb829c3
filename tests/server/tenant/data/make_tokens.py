#!/usr/bin/env python3
"""Writes tokens.json: key sets and tokens made by PyJWT and cryptography (Debian's python3-jwt 2.6, python3-cryptography 38).

    python3 make_tokens.py > tokens.json

The keys are drawn anew on each run and thrown away: only their public halves are written.
"""
import base64
import hashlib
import hmac
import json

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

NOW = 1_800_000_000


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int, size: int = 0) -> str:
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def public_jwk(key, kid: str) -> dict:
    public = key.public_key()
    if isinstance(key, rsa.RSAPrivateKey):
        n = public.public_numbers()
        return {"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": number(n.n), "e": number(n.e)}
    if isinstance(key, ec.EllipticCurvePrivateKey):
        n = public.public_numbers()
        return {"kty": "EC", "crv": "P-256", "kid": kid, "x": number(n.x, 32), "y": number(n.y, 32)}
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return {"kty": "OKP", "crv": "Ed25519", "kid": kid, "alg": "EdDSA", "x": b64(raw)}


keys = {
    "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ec": ec.generate_private_key(ec.SECP256R1()),
    "ed": ed25519.Ed25519PrivateKey.generate(),
}
ALGORITHMS = {"rsa": "RS256", "ec": "ES256", "ed": "EdDSA"}
stranger = ec.generate_private_key(ec.SECP256R1())
short_rsa = rsa.generate_private_key(public_exponent=65537, key_size=1024)
CLAIMS = {"iss": "https://issuer.example", "aud": "tenon", "sub": "alice", "exp": NOW + 300, "nbf": NOW - 10,
          "tenant": "acme", "role": "inference"}


def sign(changes=None, key="ec", headers=None, kid=True) -> str:
    claims = {name: value for name, value in {**CLAIMS, **(changes or {})}.items() if value is not None}
    head = dict(headers or {}, **({"kid": key} if kid else {}))
    return jwt.encode(claims, keys[key], algorithm=ALGORITHMS[key], headers=head)


def by_hand(header: dict, signature) -> str:
    body = b64(json.dumps(header).encode()) + "." + b64(json.dumps(CLAIMS).encode())
    return body + "." + b64(signature(body.encode()))


rsa_pem = keys["rsa"].public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
good = sign()
head, body, signature = good.split(".")
swapped = b64(json.dumps({**CLAIMS, "tenant": "globex"}).encode())
tokens = {
    "good_rsa": sign(key="rsa"),
    "good_ec": good,
    "good_ed": sign(key="ed"),
    "good_without_kid": sign(kid=False),
    "good_audience_list": sign({"aud": ["other", "tenon"]}),
    "good_role_list": sign({"role": ["inference", "tenant-admin", "something"]}),
    "good_operator": sign({"role": "operator", "tenant": None}),
    "good_without_nbf": sign({"nbf": None}),
    "expired": sign({"exp": NOW - 31}),
    "in_leeway": sign({"exp": NOW - 29}),
    "no_exp": sign({"exp": None}),
    "not_yet": sign({"nbf": NOW + 31}),
    "other_issuer": sign({"iss": "https://evil.example"}),
    "no_issuer": sign({"iss": None}),
    "other_audience": sign({"aud": "other"}),
    "no_audience": sign({"aud": None}),
    "no_role": sign({"role": None}),
    "unknown_role": sign({"role": "root"}),
    "no_tenant": sign({"tenant": None}),
    "tenant_number": sign({"tenant": 7}),
    "tenant_path": sign({"tenant": "../etc"}),
    "crit": sign(headers={"crit": ["exp"]}),
    "unknown_kid": jwt.encode(CLAIMS, keys["ec"], algorithm="ES256", headers={"kid": "nobody"}),
    "stranger": jwt.encode(CLAIMS, stranger, algorithm="ES256", headers={"kid": "ec"}),
    "kid_of_another_kind": jwt.encode(CLAIMS, keys["ec"], algorithm="ES256", headers={"kid": "rsa"}),
    "rs512": jwt.encode(CLAIMS, keys["rsa"], algorithm="RS512", headers={"kid": "rsa"}),
    "ps256": jwt.encode(CLAIMS, keys["rsa"], algorithm="PS256", headers={"kid": "rsa"}),
    "none": by_hand({"alg": "none"}, lambda _: b""),
    "none_with_signature": by_hand({"alg": "None", "kid": "ec"}, lambda _: b"x"),
    # The classic confusion: HMAC, keyed with the public key.
    "hmac_of_public_key": by_hand({"alg": "HS256", "kid": "rsa"}, lambda m: hmac.new(rsa_pem, m, hashlib.sha256).digest()),
    "swapped_claims": ".".join([head, swapped, signature]),
    "cut_signature": good[:-2],
    "no_signature": head + "." + body + ".",
    "zero_signature": head + "." + body + "." + b64(bytes(64)),
    "padded": head + "." + body + "." + signature + "==",
    "two_parts": head + "." + body,
    "four_parts": good + "." + signature,
}
jwks = {"keys": [public_jwk(key, kid) for kid, key in keys.items()] +
        [{"kty": "oct", "kid": "secret", "k": "AAAA"}, {"kty": "EC", "crv": "P-384", "kid": "p384", "x": "AA", "y": "AA"}]}
off_curve = public_jwk(keys["ec"], "ec")
off_curve["y"] = off_curve["x"]
print(json.dumps({
    "now": NOW,
    "jwks": jwks,
    "bad_jwks": {
        "short_rsa": {"keys": [public_jwk(short_rsa, "short")]},
        "off_curve": {"keys": [off_curve]},
        "short_point": {"keys": [dict(off_curve, y="AAAA")]},
        "no_usable_key": {"keys": [{"kty": "oct", "k": "AAAA"}]},
        "for_encryption": {"keys": [dict(public_jwk(keys["rsa"], "rsa"), use="enc")]},
        "not_a_list": {"keys": {}},
        "no_keys": {},
    },
    "stranger_jwks": {"keys": [public_jwk(stranger, "ec")]},
    "tokens": tokens,
}, indent=1))
