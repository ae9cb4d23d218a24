"""Limits: how many requests one caller may make, and how large a request may be."""

from __future__ import annotations

import math
import time
from typing import Any
from urllib.parse import quote

import structlog
from limits import RateLimitItem, parse_many
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter
from redis import Redis
from redis.exceptions import RedisClusterException, RedisError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inturn.errors import ConfigurationError
from inturn.settings import Settings
from inturn.turns.batch import cluster_of
from inturn.turns.keys import Keys

from .problems import Refusal

log = structlog.get_logger(__name__)


class RateLimits:
    """The limits of `INTURN_RATE_LIMIT`, for each caller over all processes, in a window that moves along.

    While Redis is away nobody is counted: whoever writes is refused then anyway, and reading costs little.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        try:
            self._items: list[RateLimitItem] = parse_many(settings.rate_limit) if settings.rate_limit else []
        except ValueError:
            raise ConfigurationError(
                "INTURN_RATE_LIMIT is no rate; write 60/minute, or 5/second;1000/hour"
            ) from None
        self._limiter = moving_window(redis, Keys(settings.key_prefix).limits)

    def __bool__(self) -> bool:
        return bool(self._items)

    def spend(self, name: str) -> None:
        """Count a request of this caller; raises `Refusal` with 429 if they have made as many as they may."""
        whose = quote(name, safe="")
        try:
            for item in self._items:
                if not self._limiter.hit(item, whose):
                    reset = self._limiter.get_window_stats(item, whose).reset_time
                    wait = max(1, math.ceil(reset - time.time()))
                    raise Refusal(429, "rate-limit", f"more than {item}; wait", {"Retry-After": str(wait)})
        except (RedisError, RedisClusterException) as error:
            log.warning("a request was not counted: Redis is away", error=type(error).__name__)


def moving_window(redis: Redis, prefix: str) -> MovingWindowRateLimiter:
    """What counts in a window that moves along, on our own client, in keys that begin with `prefix`."""
    return MovingWindowRateLimiter(
        _ClusterStorage(redis, prefix)
        if cluster_of(redis)
        else RedisStorage("redis://", connection_pool=redis.connection_pool, key_prefix=prefix)
    )


class _ClusterStorage(RedisStorage):
    """On our own client: the storage of `limits` for clusters would open another, by other options."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        super().__init__("redis://", key_prefix=prefix)

    def get_connection(self, readonly: bool = False) -> Any:  # noqa: ARG002  as the storage calls it
        return self._redis


class BodyLimit:
    """Refuses requests of more than `most` bytes, by what they say, and by what comes while they are read."""

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = Headers(scope=scope).get("content-length", "")
        says_too_much = said.isdecimal() and (len(said) > 18 or int(said) > self._most)
        read = 0

        async def limited() -> Message:
            nonlocal read
            if says_too_much:
                raise self._too_large()
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise self._too_large()
            return message

        await self._app(scope, limited, send)

    def _too_large(self) -> HTTPException:
        # FastAPI lets this one through; the rest of the body is not worth a connection.
        return HTTPException(413, f"a request may have {self._most} bytes", {"Connection": "close"})


def most_bytes(settings: Settings) -> int:
    """The largest request that can hold a turn: JSON may write one character as six bytes."""
    return settings.max_payload_bytes + 6 * settings.max_message_chars
