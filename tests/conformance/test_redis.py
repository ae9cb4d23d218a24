"""RedisAdapter keeps the contract: by URL, with sessions that expire, and on a caller's client."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from functools import partial

import pytest
from redis import Redis

from inturn.persistence import PersistenceAdapter, RedisAdapter, open_adapter
from inturn.testing.conformance import AdapterConformance
from inturn.testing.conformance.base import Reopen
from tests.keys import keys_of, keys_without_ttl

DAY = 86_400


@pytest.fixture(scope="class")
def prefix(redis_url: str) -> Iterator[str]:
    """A prefix for this test class's keys, which are removed after it."""
    name = f"inturn-test-{secrets.token_hex(4)}:"
    yield name
    with Redis.from_url(redis_url) as client:
        if keys := keys_of(client, name):
            client.unlink(*keys)


class TestRedis(AdapterConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, redis_url: str, prefix: str) -> Iterator[PersistenceAdapter]:
        with open_adapter(redis_url, key_prefix=prefix) as adapter:
            yield adapter

    @pytest.fixture
    def reopen(self, redis_url: str, prefix: str) -> Reopen:
        return partial(open_adapter, redis_url, key_prefix=prefix, pool_size=2)


@pytest.mark.variant
class TestRedisExpiry(AdapterConformance):
    """The seed's own example of times to live: no key may be left without one."""

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, redis_url: str, prefix: str) -> Iterator[PersistenceAdapter]:
        options = {"key_prefix": prefix, "session_ttl": DAY, "message_ttl": 7 * DAY}
        with open_adapter(redis_url, **options) as adapter:
            yield adapter
        with Redis.from_url(redis_url) as client:
            assert keys_without_ttl(client, prefix) == []


@pytest.mark.parametrize("decoding", [False, True], ids=["bytes", "texts"], scope="class")
@pytest.mark.variant
class TestRedisClient(AdapterConformance):
    """A caller's client, one that decodes and one that does not, with an encoding of its own."""

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, redis_url: str, prefix: str, decoding: bool) -> Iterator[PersistenceAdapter]:
        with (
            Redis.from_url(
                redis_url, decode_responses=decoding, encoding="latin-1", protocol=2 + decoding
            ) as client,
            RedisAdapter(client, key_prefix=prefix) as adapter,
        ):
            yield adapter
