"""The connection to Redis: time-outs, few retries, and a pool that waits instead of failing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from inturn.errors import ConfigurationError, MailboxError, MailboxUnavailableError
from inturn.settings import Settings

if TYPE_CHECKING:
    from redis import Redis


def connect(settings: Settings, *, connections: int = 32, timeout: float = 5.0, retries: int = 3) -> Redis:
    """Open a client of `settings.redis_url`; it connects with its first call.

    With `settings.redis_cluster` it is one of the cluster that the URL's node belongs to, typed as what both
    have in common: commands on keys of one slot; what concerns several goes through `turns.batch`. It asks
    that node at once which others there are, and raises `MailboxUnavailableError` if none can be reached,
    `ConfigurationError` if it is of no cluster. `connections` are those to each node.

    A call waits at most `timeout` seconds for an answer and is repeated `retries` times. Both are small: a
    producer must be able to answer its caller within seconds, and a worker has better things to do than to
    wait (the lease and the sweeper bring its sessions back).
    """
    from redis import BlockingConnectionPool, Redis
    from redis.backoff import ExponentialWithJitterBackoff
    from redis.exceptions import ConnectionError, TimeoutError
    from redis.retry import Retry

    if settings.redis_cluster:
        return _connect_to_cluster(settings, connections=connections, timeout=timeout, retries=retries)
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


def _connect_to_cluster(settings: Settings, *, connections: int, timeout: float, retries: int) -> Redis:
    from redis import BlockingConnectionPool, RedisCluster, exceptions
    from redis.backoff import ExponentialWithJitterBackoff
    from redis.retry import Retry

    # redis-py hands these on to the pool of each node.
    pool: dict[str, Any] = {"connection_pool_class": BlockingConnectionPool, "timeout": 20}
    try:
        cluster = RedisCluster.from_url(
            settings.redis_url.get_secret_value(),
            max_connections=connections,
            decode_responses=True,
            socket_timeout=timeout,
            socket_connect_timeout=min(timeout, 2.0),
            socket_keepalive=True,
            retry=Retry(ExponentialWithJitterBackoff(cap=0.5, base=0.05), retries),
            # Where a slot has no node now, sessions of all other slots go on.
            require_full_coverage=False,
            **pool,
        )
    except ValueError as error:
        raise ConfigurationError(
            f"REDIS_URL is not a Redis URL ({error}); of a cluster it looks like redis://127.0.0.1:7000"
        ) from None
    except (exceptions.RedisClusterException, exceptions.RedisError) as error:
        if "not enabled" in str(error):
            raise ConfigurationError(
                "INTURN_REDIS_CLUSTER is true, but the server of REDIS_URL is not a node of a cluster; leave "
                "it out, or name one of the cluster's nodes"
            ) from None
        if "``db``" in str(error) or "Unix Domain" in str(error):
            raise ConfigurationError(
                f"REDIS_URL cannot be that of a cluster: {error}; it looks like redis://127.0.0.1:7000"
            ) from None
        raise MailboxUnavailableError(
            f"no node of the Redis Cluster can be reached ({type(error).__name__})"
        ) from error
    return cast("Redis", cluster)


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
        exceptions.TryAgainError,
    ) as error:
        raise MailboxUnavailableError(f"Redis cannot answer now ({type(error).__name__})") from error
    except exceptions.ResponseError as error:
        if any(code in str(error) for code in ("BUSY ", "MISCONF")):
            raise MailboxUnavailableError(f"Redis cannot answer now ({str(error).split()[0]})") from error
        raise MailboxError(f"Redis refused a call: {error}") from error
    except (exceptions.ClusterError, exceptions.RedisClusterException) as error:
        raise MailboxUnavailableError(f"Redis Cluster cannot answer now ({type(error).__name__})") from error
    except exceptions.RedisError as error:
        raise MailboxError(f"Redis refused a call: {type(error).__name__}") from error
