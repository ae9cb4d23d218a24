"""What it takes to wake the sessions of a dead worker, in commands of Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from inturn.embedded.valkey import EmbeddedValkey
from inturn.settings import load_settings
from inturn.turns import Kicked, Mailbox, Sweeper
from inturn.turns.connection import connect
from inturn.turns.keys import Keys
from inturn.turns.lease import create_token
from tests.waiting import wait_until

STRANDED = 500
WALKS = {"keys", "scan", "hscan", "sscan", "zscan", "hgetall", "lrange", "smembers"}
"""Commands that cost more where more is stored."""


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Redis]:
    """A server of this test's own: another's commands would be counted with it."""
    with EmbeddedValkey(tmp_path / "valkey") as server, Redis.from_url(server.url) as redis:
        yield redis


def strand(mailbox: Mailbox, name: str, count: int) -> list[tuple[str, str]]:
    """Take the leases of so many sessions, let them lapse, and tell which turns they hold."""
    turns = [(f"{name}{number}", f"t{number}") for number in range(count)]
    for session_id, turn_id in turns:
        assert mailbox.begin(session_id, turn_id, create_token(), payload="x").outcome == "ok"
    wait_until(
        lambda: all(view.state == "waiting" for view in mailbox.look_all(turns)), what="the leases to lapse"
    )
    return turns


def test_stranded_sessions_are_woken_once_each_and_with_few_commands(alone: Redis) -> None:
    url = "redis://127.0.0.1:{port}".format(**alone.connection_pool.connection_kwargs)
    # The grace time is long: whoever is woken is woken once, however slow the machine is.
    settings = load_settings(redis_url=url, lease_seconds=0.5, renew_seconds=0.1, grace_seconds=3600)
    woken: list[Kicked] = []
    with connect(settings) as one, connect(settings) as two:
        mailbox = Mailbox(one, settings)
        sweepers = [Sweeper(Mailbox(each, settings), woken.append, 1) for each in (one, two)]
        strand(mailbox, "first", 1)
        assert sweepers[0].sweep() == 1, "what the scripts' loading takes is not counted"
        woken.clear()
        turns = strand(mailbox, "s", STRANDED)
        alone.config_resetstat()

        assert [sweeper.sweep() for sweeper in (*sweepers, *sweepers)] == [STRANDED, 0, 0, 0]

    assert sorted(woken) == sorted(Kicked(session_id, turn_id, True) for session_id, turn_id in turns)
    commands = commands_of(alone)
    assert not WALKS & commands.keys()
    # A sweep looks at each bucket once, and again as long as it was full.
    indexes = len(mailbox._keys.indexes)
    assert commands["zrangebyscore"] <= 4 * indexes + STRANDED / 100
    scripts = commands["evalsha"] - STRANDED
    assert scripts <= 4 + STRANDED / 100, "one script for each session, and one for all buckets"
    inside = sum(commands.values()) - commands["zrangebyscore"] - 2 * commands["time"]
    assert inside <= 10 * STRANDED


def test_an_idle_sweep_costs_the_same_however_many_sessions_wait(alone: Redis) -> None:
    url = "redis://127.0.0.1:{port}".format(**alone.connection_pool.connection_kwargs)
    settings = load_settings(redis_url=url, lease_seconds=3600, grace_seconds=3600)
    with connect(settings) as redis:
        mailbox = Mailbox(redis, settings)
        sweeper = Sweeper(mailbox, lambda _: None, 1)
        sweeper.sweep()
        alone.config_resetstat()
        sweeper.sweep()
        nobody = commands_of(alone)
        assert nobody["evalsha"] == nobody["time"] == 1, "one script for all buckets"
        for number in range(STRANDED):
            mailbox.begin(f"s{number}", "t", create_token(), payload="x")
        alone.config_resetstat()

        assert sweeper.sweep() == 0

        assert commands_of(alone) == nobody


def commands_of(redis: Redis) -> Counter[str]:
    """How often each command ran, inside scripts too, since the counters were reset."""
    stats: Any = redis.info("commandstats")
    ours = {key.removeprefix("cmdstat_"): int(stat["calls"]) for key, stat in stats.items()}
    asking = {name for name in ours if name.startswith(("config", "info", "client", "hello", "script"))}
    return Counter({name: calls for name, calls in ours.items() if name not in asking})


@pytest.mark.leaves_keys("*")
def test_a_session_is_woken_again_soon_after_a_crash_and_not_while_many_messages_wait(
    make_mailbox: Callable[..., Mailbox], redis_client: Redis, key_prefix: str
) -> None:
    mailbox = make_mailbox(grace_seconds=1000)
    keys = Keys(key_prefix).of_session("s")
    mailbox.offer("s", "t", "")

    def due_in() -> float:
        score: Any = redis_client.zscore(keys[0], "s")
        now: Any = redis_client.time()
        return float(score / 1000 - now[0] - now[1] / 1e6)

    def wait_and_sweep(*, backlog: bool) -> list[Kicked]:
        redis_client.zadd(keys[0], {"s": 1})
        return list(mailbox.sweep(backlog=lambda: backlog))

    begun = mailbox.begin("s", "t", create_token())
    assert begun.head is not None
    redis_client.hset(keys[3], "until", 1)
    assert wait_and_sweep(backlog=True) == [Kicked("s", "t", True)], "what has crashed is woken at once"
    assert 200 < due_in() <= 250
    assert wait_and_sweep(backlog=False) == [Kicked("s", "t", False)], "that message may be lost as well"
    assert 450 < due_in() <= 500
    assert [len(wait_and_sweep(backlog=True)) for _ in range(6)] == [0, 0, 1, 0, 0, 1]
    assert mailbox.begin("s", "t", create_token()).outcome == "ok"
    assert wait_and_sweep(backlog=True) == []
    redis_client.hset(keys[3], "until", 1)
    assert wait_and_sweep(backlog=True) == [Kicked("s", "t", True)], "who has begun has counted anew"


@pytest.mark.leaves_keys("*")
def test_a_wake_up_that_could_not_be_sent_counts_for_nothing(
    make_mailbox: Callable[..., Mailbox], redis_client: Redis, key_prefix: str
) -> None:
    mailbox = make_mailbox(grace_seconds=1000)
    keys = Keys(key_prefix).of_session("s")
    mailbox.offer("s", "t", "")
    for _ in range(3):
        redis_client.zadd(keys[0], {"s": 1})
        (kicked,) = mailbox.sweep(backlog=lambda: True)
        mailbox.unkick(kicked, delay=60)
