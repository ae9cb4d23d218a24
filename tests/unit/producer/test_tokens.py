"""Tokens: which are taken, by which key, and whom they name."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from inturn.errors import ConfigurationError
from inturn.settings import load_settings
from producer.tokens import Tokens, WrongTokenError

SECRET = "a secret of sixty-four bytes, which is as many as HS512 asks for."
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def claims(**more: Any) -> dict[str, Any]:
    return {"sub": "ada", "exp": time.time() + 3600, **more}


def token(key: Any = SECRET, algorithm: str = "HS256", **more: Any) -> str:
    headers = more.pop("headers", None)
    return jwt.encode(claims(**more), key, algorithm=algorithm, headers=headers)


def pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def with_secret(**more: Any) -> Tokens:
    return Tokens(load_settings(jwt_secret=SECRET, **more))


def with_file(path: Path, content: bytes | str, **more: Any) -> Tokens:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Tokens(load_settings(jwt_key_file=path, **more))


def forged(header: dict[str, Any], body: Any, signature: bytes = b"x") -> str:
    parts = [
        json.dumps(header).encode(),
        body if isinstance(body, bytes) else json.dumps(body).encode(),
        signature,
    ]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def test_a_token_names_its_user() -> None:
    assert with_secret().user_of(token()) == "ada"


@pytest.mark.parametrize(
    "wrong",
    [
        token("another secret of thirty-two bytes"),
        token(algorithm="HS512"),
        token(exp=time.time() - 60),
        token(exp="soon"),
        token(nbf=time.time() + 3600),
        token(iat=time.time() + 3600),
        jwt.encode({"sub": "ada"}, SECRET),
        jwt.encode({"exp": time.time() + 60}, SECRET),
        token(sub=7),
        token(sub=""),
        token(sub="a\x00b"),
        token(sub="x" * 300),
        token(aud="somebody else's"),
        forged({"alg": "none"}, claims(), b""),
        forged({"alg": "None"}, claims()),
        forged({"alg": "HS256"}, claims()),
        forged({"alg": ["HS256"]}, claims()),
        forged({"alg": "HS256", "crit": ["exp"]}, claims()),
        forged({"alg": "HS256"}, b"[" * 100_000),
        forged({}, claims()),
        forged({"alg": "HS256"}, [1]),
        token()[:-2],
        token() + "x",
        f"{token()}.{token()}",
        "..",
        "a.b.c",
        "",
        "\ud800.\ud800.\ud800",
        "é" * 100,
        "x" * 100_000,
    ],
    ids=lambda wrong: "token",  # their names must be the same in every process
)
def test_what_is_forged_too_old_or_nonsense_is_refused_without_showing_it(wrong: str) -> None:
    with pytest.raises(WrongTokenError) as refused:
        with_secret().user_of(wrong)

    assert len(wrong) < 10 or wrong[:10] not in str(refused.value)


def test_without_keys_every_token_is_refused() -> None:
    nothing = Tokens(load_settings())

    assert not nothing.is_set_up
    with pytest.raises(WrongTokenError):
        nothing.user_of(forged({"alg": "none"}, claims(), b""))


@pytest.mark.parametrize(
    ("key", "algorithm"), [(RSA_KEY, "RS256"), (RSA_KEY, "PS256"), (EC_KEY, "ES256"), (ED_KEY, "EdDSA")]
)
def test_a_public_key_knows_what_its_private_one_has_signed(tmp_path: Path, key: Any, algorithm: str) -> None:
    tokens = with_file(tmp_path / "key.pem", pem(key))

    assert tokens.user_of(token(key, algorithm)) == "ada"
    for other, name in [(RSA_KEY, "RS256"), (EC_KEY, "ES256"), (ED_KEY, "EdDSA")]:
        if other is not key:
            with pytest.raises(WrongTokenError):
                tokens.user_of(token(other, name))


@pytest.mark.parametrize("form", ["pem", "jwks"])
def test_a_public_key_is_no_secret(tmp_path: Path, form: str) -> None:
    jwks = json.dumps({"keys": [{**RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True), "kid": "1"}]})
    public = pem(RSA_KEY)
    tokens = with_file(tmp_path / "key", public if form == "pem" else jwks)
    head = jwt.utils.base64url_encode(json.dumps({"alg": "HS256", "kid": "1"}).encode())
    body = jwt.utils.base64url_encode(json.dumps(claims()).encode())
    for secret in (public, public.strip(), jwks.encode()):
        # By hand: the library that signs refuses to do it.
        signer = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
        signature = jwt.utils.base64url_encode(signer.sign(head + b"." + body, secret))
        with pytest.raises(WrongTokenError):
            tokens.user_of(b".".join([head, body, signature]).decode())


def test_of_a_key_set_the_one_is_taken_that_the_token_names(tmp_path: Path) -> None:
    keys = [
        {**RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True), "kid": "old"},
        {**ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True), "kid": "new", "use": "sig"},
        {"kty": "oct", "k": jwt.utils.base64url_encode(SECRET.encode()).decode(), "kid": "shared"},
    ]
    tokens = with_file(tmp_path / "jwks.json", json.dumps({"keys": keys}))

    assert tokens.user_of(token(RSA_KEY, "RS256", headers={"kid": "old"})) == "ada"
    assert tokens.user_of(token(EC_KEY, "ES256", headers={"kid": "new"})) == "ada"
    for wrong in (
        token(RSA_KEY, "RS256", headers={"kid": "new"}),
        token(RSA_KEY, "RS256", headers={"kid": "other"}),
        token(RSA_KEY, "RS256"),
        token(SECRET, "HS256", headers={"kid": "shared"}),
    ):
        with pytest.raises(WrongTokenError):
            tokens.user_of(wrong)


def test_audience_and_issuer_must_be_those_that_are_set() -> None:
    tokens = with_secret(jwt_audience="chat", jwt_issuer="https://id.example.com")
    right: dict[str, Any] = {"aud": ["chat", "mail"], "iss": "https://id.example.com"}

    assert tokens.user_of(token(**right)) == "ada"
    for wrong in (
        {},
        {"aud": "chat"},
        {**right, "aud": "mail"},
        {**right, "iss": "https://evil.example.com"},
    ):
        with pytest.raises(WrongTokenError):
            tokens.user_of(token(**wrong))


def test_algorithms_may_be_named() -> None:
    tokens = with_secret(jwt_algorithms="HS384, HS512")

    assert (
        tokens.user_of(token(SECRET * 2, "HS512"))
        if False
        else tokens.user_of(token(algorithm="HS384")) == "ada"
    )
    with pytest.raises(WrongTokenError):
        tokens.user_of(token(algorithm="HS256"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"jwt_secret": "short"}, "INTURN_JWT_SECRET has less than 32 bytes"),
        ({"jwt_secret": SECRET[:40], "jwt_algorithms": "HS512"}, "INTURN_JWT_SECRET has less than 64 bytes"),
        ({"jwt_secret": SECRET, "jwt_algorithms": "RS256"}, "RS256 cannot be used here"),
        ({"jwt_secret": SECRET, "jwt_algorithms": "none"}, "none cannot be used here"),
        ({"jwt_secret": SECRET, "jwt_key_file": "key.pem"}, "not both"),
        ({"jwt_key_file": "/no/such/file"}, "cannot be read"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as refused:
        Tokens(load_settings(**given))

    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b"[]",
        b'{"keys": []}',
        b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}',
        b'{"keys": 7}',
        b"-----BEGIN PUBLIC KEY-----\nnonsense\n-----END PUBLIC KEY-----\n",
        RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    ],
)
def test_a_file_without_a_public_key_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigurationError, match="neither a public key"):
        with_file(tmp_path / "key", content)
