"""The client against a Redis of its own that runs full, pauses or goes away; no worker runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from inturn.client import Client, TurnHandle
from inturn.embedded.valkey import EmbeddedValkey
from inturn.errors import MailboxUnavailableError, TurnCancelledError
from inturn.settings import load_settings


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def redis(server: EmbeddedValkey) -> Iterator[Redis]:
    with Redis.from_url(server.url) as redis:
        yield redis


@pytest.fixture
def client(server: EmbeddedValkey) -> Iterator[Client]:
    with Client(load_settings(redis_url=server.url)) as client:
        yield client


def test_a_redis_that_is_full_or_only_a_replica_cannot_be_reached_for_now(
    client: Client, redis: Redis
) -> None:
    redis.config_set("maxmemory", "1mb")
    with pytest.raises(MailboxUnavailableError, match="OutOfMemoryError"):
        client.respond("s", "hello")
    redis.config_set("maxmemory", "0")

    redis.replicaof("127.0.0.1", 1)
    with pytest.raises(MailboxUnavailableError, match="ReadOnlyError"):
        client.respond("s", "hello")


def test_a_cancellation_whose_result_could_not_be_stored_may_be_repeated(
    client: Client, redis: Redis
) -> None:
    handle = client.respond("s", "hello")
    redis.config_set("maxmemory", "1mb")
    with pytest.raises(MailboxUnavailableError) as refused:
        handle.cancel()
    assert refused.value.turn_id == handle.turn_id
    redis.config_set("maxmemory", "0")

    assert handle.cancel() == "dropped"
    with pytest.raises(TurnCancelledError):
        handle.get(timeout=0)
    assert handle.status() == "cancelled"


def test_two_handles_of_one_turn_both_get_its_result(client: Client) -> None:
    first, again = (client.respond("s", "hello", turn_id="event-1") for _ in range(2))
    first.cancel()

    collected: list[TurnHandle] = [handle for handle, _ in client.collect([first, again], timeout=0)]

    assert collected == [first, again]


def test_asking_a_redis_that_does_not_answer_ends_in_an_error_and_not_in_minutes(
    client: Client, server: EmbeddedValkey
) -> None:
    handle = client.respond("s", "hello")
    os.kill(server.pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        with pytest.raises(MailboxUnavailableError):
            handle.get(timeout=1)
    finally:
        os.kill(server.pid, signal.SIGCONT)

    assert time.monotonic() - began < 60


def test_retention_is_refused_at_once_while_redis_is_away(client: Client, server: EmbeddedValkey) -> None:
    server.stop()

    with pytest.raises(MailboxUnavailableError):
        client.cleanup_sessions()
