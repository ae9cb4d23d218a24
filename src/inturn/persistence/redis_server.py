"""Where RedisAdapter gets its connections and scripts, and what becomes of redis-py's errors."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, TypeVar

import structlog
from redis import BlockingConnectionPool, Redis
from redis import exceptions as redis_exceptions
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.client import NEVER_DECODE
from redis.retry import Retry

from inturn.errors import ConfigurationError, StoreError, StoreUnavailableError

T = TypeVar("T")
Argument = str | bytes | int

_POOL_SECONDS = 3.0
"""How long each of the four tries of a call waits for a connection of the pool."""
_SCRIPTS = ("load", "commit", "find_named", "find_messages", "delete", "find_turns", "rewrite")

_log = structlog.get_logger(__name__)


class Server:
    """Runs the scripts on one server, through a caller's client or one of our own."""

    def __init__(self, source: object, pool_size: int) -> None:
        self._owned = isinstance(source, str)
        if isinstance(source, str):
            self._client = _open(source, pool_size)
            # A client of our own repeats nothing by itself, for not every call may be repeated.
            self._retry = Retry(ExponentialWithJitterBackoff(cap=0.5, base=0.05), 3)
        elif isinstance(source, Redis):
            self._client = source
            self._retry = Retry(NoBackoff(), 0)
        else:
            raise ConfigurationError(
                f"a RedisAdapter takes a URL or a redis.Redis, not {type(source).__name__}; "
                "Redis Cluster and asyncio are not supported"
            )
        self._execute: Callable[..., Any] = self._client.execute_command
        self._closed = False
        self._scripts = {name: _Script(name) for name in _SCRIPTS}

    def close(self) -> None:
        """Close the connections, if they are our own."""
        if self._owned:
            self._closed = True
            self._client.connection_pool.disconnect()

    def ping(self) -> None:
        """Return if the server answers."""
        self._call(lambda: self._execute("PING"), repeatable=True)

    def run(
        self, name: str, keys: Sequence[str], arguments: Sequence[Argument], *, repeatable: bool = True
    ) -> Any:
        """Run a script; texts in its reply are UTF-8 in bytes, whatever the client decodes."""
        script = self._scripts[name]
        # In bytes, for a caller's client may encode in another way.
        rest = [
            len(keys),
            *(each.encode() if isinstance(each, str) else each for each in (*keys, *arguments)),
        ]

        def call() -> Any:
            try:
                return self._execute("EVALSHA", script.sha, *rest, **_RAW)
            except redis_exceptions.NoScriptError:  # a server that has just started
                return self._execute("EVAL", script.text, *rest, **_RAW)

        return self._call(call, repeatable=repeatable)

    def check(self) -> None:
        """Raise `ConfigurationError` for a server that cannot serve; warn of one that loses what it holds."""
        try:
            about: dict[str, Any] = self._call(self._client.info, repeatable=True)
        except StoreError as refusal:
            if isinstance(refusal.__cause__, redis_exceptions.NoPermissionError):
                return  # some hosts keep it to themselves
            raise
        if about.get("cluster_enabled"):
            raise ConfigurationError(
                "this is a node of a Redis Cluster, where a session and the indexes cannot change in one "
                "step; use a single server, with Sentinel if it must not fail"
            )
        policy = about.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            _log.warning(
                "Redis may evict sessions when its memory is full: set maxmemory-policy noeviction",
                maxmemory_policy=policy,
            )

    def _call(self, call: Callable[[], T], *, repeatable: bool) -> T:
        if self._closed:
            raise StoreError("this adapter is closed")
        with redis_errors():
            if repeatable:
                return self._retry.call_with_retry(call, lambda _: None, is_retryable=_may_repeat)
            return call()


_RAW: dict[str, Any] = {NEVER_DECODE: True}


class _Script:
    def __init__(self, name: str) -> None:
        folder = files("inturn.persistence") / "lua"
        self.text = b"".join((folder / f"{part}.lua").read_bytes() for part in ("common", name))
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()


def milliseconds(ttl: float | None, name: str) -> int:
    """A time to live in ms, 0 for none; raises `ConfigurationError` for what is no number of seconds."""
    if ttl is None:
        return 0
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0.001 <= ttl <= 10**10:
        raise ConfigurationError(f"{name} must be a number of seconds above 0, or None, not {ttl!r}")
    return math.ceil(ttl * 1000)


def _open(url: str, pool_size: int) -> Redis:
    if pool_size < 1:
        raise ConfigurationError(f"pool_size must be at least 1, not {pool_size}")
    try:
        pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
            url,
            max_connections=pool_size,
            timeout=_POOL_SECONDS,
            socket_timeout=5,
            socket_connect_timeout=2,
            health_check_interval=30,
            retry=Retry(NoBackoff(), 0),
        )
        pool.connection_class(**pool.connection_kwargs)  # does not connect; refuses what it does not know
    except (ValueError, TypeError, redis_exceptions.RedisError):
        # Their words may quote the password.
        raise ConfigurationError(
            "this is not a Redis URL; one looks like redis://user:password@host:6379/0, "
            "with special characters percent-encoded"
        ) from None
    return Redis(connection_pool=pool)


_REFUSED_LOGIN = (redis_exceptions.AuthenticationError, redis_exceptions.AuthorizationError)
_LOST = (redis_exceptions.ConnectionError, redis_exceptions.TimeoutError)
_LATER = (
    redis_exceptions.BusyLoadingError,
    redis_exceptions.ReadOnlyError,
    redis_exceptions.OutOfMemoryError,
    redis_exceptions.MasterDownError,
    redis_exceptions.ClusterDownError,
    redis_exceptions.TryAgainError,
)
# redis-py has no classes for these.
_LATER_WORDS = ("BUSY", "MISCONF", "NOREPLICAS", "UNBLOCKED")


def _may_repeat(error: Exception) -> bool:
    return not isinstance(error, _REFUSED_LOGIN)


@contextmanager
def redis_errors() -> Iterator[None]:
    """Translate what redis-py raises inside the block into errors of ours."""
    try:
        yield
    except redis_exceptions.RedisError as error:
        raise _translated(error) from error


def _translated(error: redis_exceptions.RedisError) -> StoreError:
    # An unknown command is quoted with its arguments, which may be what somebody said.
    said = " ".join(str(error).partition(", with args")[0].split())
    text = f"{type(error).__name__}: {said}"
    if isinstance(error, _REFUSED_LOGIN):
        return StoreError(f"Redis refused the login: {text}")
    if isinstance(error, (*_LOST, *_LATER)) or said.startswith(_LATER_WORDS):
        return StoreUnavailableError(f"Redis is not available: {text}")
    return StoreError(f"Redis refused: {text}")
