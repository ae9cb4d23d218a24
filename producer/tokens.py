"""Tokens: JSON Web Tokens, by which signed-in users are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from inturn.errors import ConfigurationError, InvalidInputError
from inturn.ids import check_id
from inturn.settings import Settings

LEEWAY = 10.0
"""Seconds by which clocks may differ."""
WITH_SECRET = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The bytes that a secret must have (RFC 7518): a shorter one can be found by trying."""
WITH_KEY = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES256K", "ES384", "ES512", "EdDSA"}
)


class WrongTokenError(Exception):
    """A token was refused; its message says why, and shows nothing of it."""


class Tokens:
    """Verifies tokens by the settings `INTURN_JWT_...`; a token names its user as `sub`, and must expire.

    With a secret only HMAC algorithms are taken, with a key never: else a public key could serve as a secret.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.jwt_secret is not None and settings.jwt_key_file is not None:
            raise ConfigurationError("set INTURN_JWT_SECRET or INTURN_JWT_KEY_FILE, not both")
        self._keys: dict[str | None, Any] = {}
        """By their IDs in a key set, else one without."""
        possible: frozenset[str] = frozenset()
        if settings.jwt_secret is not None:
            self._keys[None] = settings.jwt_secret.get_secret_value()
            possible = frozenset(WITH_SECRET)
        elif settings.jwt_key_file is not None:
            self._keys = _read_keys(settings.jwt_key_file)
            possible = WITH_KEY
        wanted = {name.strip() for name in settings.jwt_algorithms.split(",") if name.strip()}
        if self._keys and (wrong := wanted - possible):
            raise ConfigurationError(
                f"INTURN_JWT_ALGORITHMS: {', '.join(sorted(wrong))} cannot be used here; "
                f"possible are {', '.join(sorted(possible))}"
            )
        self._algorithms = sorted(wanted or (possible & {"HS256"}) or possible)
        if settings.jwt_secret is not None:
            _check_secret(self._keys[None], max(WITH_SECRET[name] for name in self._algorithms))
        self._audience = settings.jwt_audience
        self._issuer = settings.jwt_issuer

    @property
    def is_set_up(self) -> bool:
        """Whether any token can be right."""
        return bool(self._keys)

    def user_of(self, token: str) -> str:
        """The user a token names; raises `WrongTokenError`."""
        if not self._keys:
            raise WrongTokenError("this key is not known")
        try:
            claims = jwt.decode(
                token,
                self._key_for(token),
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "sub"], "enforce_minimum_key_length": True},
            )
            return check_id(claims["sub"], "user ID")
        except jwt.ExpiredSignatureError:
            raise WrongTokenError("the token has expired; get a new one") from None
        except jwt.InvalidAudienceError:
            raise WrongTokenError("the token is for another audience than INTURN_JWT_AUDIENCE") from None
        except jwt.InvalidIssuerError:
            raise WrongTokenError("the token is of another issuer than INTURN_JWT_ISSUER") from None
        except jwt.MissingRequiredClaimError as error:
            raise WrongTokenError(f"the token has no claim {error.claim!r}") from None
        except (jwt.PyJWTError, InvalidInputError, ValueError, TypeError, RecursionError):
            # What it says of a forged token may quote it.
            raise WrongTokenError("neither a known API key nor a valid token") from None

    def _key_for(self, token: str) -> Any:
        if None in self._keys:
            return self._keys[None]
        key_id = jwt.get_unverified_header(token).get("kid")
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        if not isinstance(key_id, str) or key_id not in self._keys:
            raise jwt.InvalidKeyError
        return self._keys[key_id]


def _check_secret(secret: str, shortest: int) -> None:
    if len(secret.encode()) < shortest:
        raise ConfigurationError(
            f"INTURN_JWT_SECRET has less than {shortest} bytes; "
            f"`openssl rand -hex {shortest}` makes a good one"
        )


def _read_keys(path: Path) -> dict[str | None, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"INTURN_JWT_KEY_FILE cannot be read ({type(error).__name__})") from None
    try:
        if content.lstrip().startswith(b"-----"):
            return {None: load_pem_public_key(content)}
        keys: dict[str | None, Any] = {
            key.key_id or f"key {number}": key
            for number, key in enumerate(jwt.PyJWKSet.from_dict(json.loads(content)))
            if key.algorithm_name in WITH_KEY and key.public_key_use in (None, "sig")
        }
    except (ValueError, AttributeError, UnsupportedAlgorithm, jwt.PyJWTError):
        keys = {}
    if not keys:
        raise ConfigurationError(
            "INTURN_JWT_KEY_FILE holds neither a public key (PEM) nor a key set (JWKS) with one"
        )
    return keys
