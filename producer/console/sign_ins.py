"""Sign-ins: which browsers an operator is signed in with, and how often a password may be tried."""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from limits import parse
from redis import Redis
from redis.exceptions import RedisClusterException, RedisError

from inturn.errors import MailboxUnavailableError
from inturn.settings import Settings
from inturn.turns.connection import redis_errors
from inturn.turns.keys import Keys

from ..limits import moving_window
from ..problems import Refusal
from .operators import Operators

SIGN_IN_SECONDS = 8 * 3600
"""How long one stays signed in: a working day."""
TRIES = parse("10/15 minutes")
"""Passwords that may be tried for one name from one address; a right one sets it back."""
TRIES_OF_ADDRESS = parse("60/15 minutes")
"""The same from one address for all names."""


@dataclass(frozen=True, slots=True)
class Operator:
    """Who is signed in. `csrf` is what each of their forms must bring along."""

    name: str
    csrf: str


class SignIns:
    """They are random, and kept in Redis by their digests: processes need not share a secret.

    Raises `MailboxUnavailableError` while Redis is away: nobody is let in then.
    """

    def __init__(self, redis: Redis, settings: Settings, operators: Operators) -> None:
        self._redis = redis
        self._keys = Keys(settings.key_prefix)
        self._operators = operators
        self._window = moving_window(redis, f"{self._keys.limits}:console")

    def open(self, name: str, password: str, address: str) -> str | None:
        """Sign an operator in; gives the secret for their browser, or None where the password is wrong.

        Raises `Refusal` with 429 after too many tries.
        """
        self._count(name, address)
        if not self._operators.check(name, password):
            return None
        with redis_errors():
            self._window.clear(TRIES, *_whose(name, address))
            token = secrets.token_urlsafe(32)
            self._redis.set(self._key(token), f"{name} {self._seal(token, name)}", ex=SIGN_IN_SECONDS)
        return token

    def find(self, token: str) -> Operator | None:
        """Who holds this secret; None: nobody, or nobody who is an operator still with the same password."""
        with redis_errors():
            found: Any = self._redis.get(self._key(token))
        name, _, seal = str(found or "").partition(" ")
        if name not in self._operators or not hmac.compare_digest(seal, self._seal(token, name)):
            return None
        return Operator(name, _digest(token, b"csrf"))

    def close(self, token: str) -> None:
        """Sign out."""
        with redis_errors():
            self._redis.delete(self._key(token))

    def _seal(self, token: str, name: str) -> str:
        # The token is not in Redis, so nobody can try passwords against what is.
        return _digest(token, self._operators.mark(name))

    def _count(self, name: str, address: str) -> None:
        """Count a try, before it is known what it comes to: of many at the same time none is free."""
        try:
            for item, whose in ((TRIES_OF_ADDRESS, _whose(address)), (TRIES, _whose(name, address))):
                if not self._window.hit(item, *whose):
                    reset = self._window.get_window_stats(item, *whose).reset_time
                    wait = max(1, math.ceil(reset - time.time()))
                    raise Refusal(
                        429,
                        "rate-limit",
                        f"too many passwords were tried; wait {math.ceil(wait / 60)} min",
                        {"Retry-After": str(wait)},
                    )
        except (RedisError, RedisClusterException) as error:
            raise MailboxUnavailableError("Redis is away; nobody can sign in until it is back") from error

    def _key(self, token: str) -> str:
        return self._keys.of_sign_in(hashlib.sha256(token.encode(errors="replace")).hexdigest())


def _digest(token: str, text: bytes) -> str:
    return hmac.new(token.encode(errors="replace"), text, hashlib.sha256).hexdigest()


def _whose(*parts: str) -> tuple[str, ...]:
    return tuple(quote(part[:100], safe="", errors="replace") for part in parts)
