"""The connection to Redis: time-outs, few retries, and a pool that waits instead of failing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from inturn.errors import ConfigurationError, MailboxError, MailboxUnavailableError
from inturn.settings import Settings

if TYPE_CHECKING:
    from redis import Redis


def connect(settings: Settings, *, connections: int = 32, timeout: float = 5.0, retries: int = 3) -> Redis:
    """Open a client of `settings.redis_url`; it connects with its first call.

    A call waits at most `timeout` seconds for an answer and is repeated `retries` times. Both are small: a
    producer must be able to answer its caller within seconds, and a worker has better things to do than to
    wait (the lease and the sweeper bring its sessions back).
    """
    from redis import BlockingConnectionPool, Redis
    from redis.backoff import ExponentialWithJitterBackoff
    from redis.exceptions import ConnectionError, TimeoutError
    from redis.retry import Retry

    try:
        pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
            settings.redis_url.get_secret_value(),
            max_connections=connections,
            timeout=20,
            decode_responses=True,
            socket_timeout=timeout,
            socket_connect_timeout=min(timeout, 2.0),
            socket_keepalive=True,
            health_check_interval=30,
            retry=Retry(ExponentialWithJitterBackoff(cap=0.5, base=0.05), retries),
            retry_on_error=[ConnectionError, TimeoutError],
        )
    except ValueError as error:
        raise ConfigurationError(
            f"REDIS_URL is not a Redis URL ({error}); it looks like redis://127.0.0.1:6379/0"
        ) from None
    return Redis(connection_pool=pool)


@contextmanager
def redis_errors() -> Iterator[None]:
    """Translate what redis-py raises inside the block into errors of ours."""
    from redis import exceptions

    try:
        yield
    except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
        raise MailboxUnavailableError(
            f"Redis cannot be reached ({type(error).__name__}); nothing is half accepted: repeat the call "
            "with the same turn ID"
        ) from error
    except (
        exceptions.OutOfMemoryError,
        exceptions.ReadOnlyError,
        exceptions.ClusterDownError,
        exceptions.MasterDownError,
    ) as error:
        raise MailboxUnavailableError(f"Redis cannot answer now ({type(error).__name__})") from error
    except exceptions.ResponseError as error:
        if any(code in str(error) for code in ("BUSY ", "MISCONF")):
            raise MailboxUnavailableError(f"Redis cannot answer now ({str(error).split()[0]})") from error
        raise MailboxError(f"Redis refused a call: {error}") from error
    except exceptions.RedisError as error:
        raise MailboxError(f"Redis refused a call: {type(error).__name__}") from error
