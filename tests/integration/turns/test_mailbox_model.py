"""Anything that may befall two mailboxes of one bucket, against a model of one, on a server and on a cluster.

Operations come in any order, each may be repeated as redis-py does after a lost answer, and time passes by
rule only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from redis import Redis
from redis.exceptions import NoScriptError

from inturn.settings import Settings, load_settings
from inturn.turns import Mailbox
from inturn.turns.connection import connect
from inturn.turns.keys import Keys
from tests.integration.turns.mailbox_model import STILL, machine
from tests.servers_cluster import ValkeyCluster


@pytest.fixture(params=["valkey", "cluster"])
def where(
    request: pytest.FixtureRequest, redis_url: str, key_prefix: str
) -> Iterator[tuple[Redis, Settings]]:
    still: dict[str, Any] = {"redis_url": redis_url, "key_prefix": key_prefix, **STILL}
    if request.param == "cluster":
        servers: ValkeyCluster = request.getfixturevalue("cluster")
        still |= {"redis_url": servers.url, "redis_cluster": True, "broker_url": "redis://127.0.0.1:1/0"}
    found = load_settings(**still)
    with connect(found) as redis:
        yield redis, found


def run(mailbox: Mailbox, redis: Redis, keys: Keys, *, examples: int, shrink: bool) -> None:
    run_state_machine_as_test(
        machine(mailbox, redis, keys),
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            database=None,
            # The same examples in each run, where they are to find something that is known to be there.
            derandomize=not shrink,
            report_multiple_bugs=shrink,
            phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_any_mixture_of_operations_does_what_the_model_does(where: tuple[Redis, Settings]) -> None:
    redis, found = where
    run(Mailbox(redis, found), redis, Keys(found.key_prefix), examples=40, shrink=True)


PLANTED = {
    "finish by anybody": ("finish", "if held[1] ~= token then", "if false then"),
    "begin in spite of a live lease": ("begin", "elseif live or ", "elseif "),
    "begin in spite of sleep": ("begin", "or tonumber(held[4] or 0) > now then", "then"),
    "release forgets the attempts": (
        "release",
        "redis.call('HDEL', KEYS[4], 'owner', 'until')\nredis.call('HSET'",
        "redis.call('HDEL', KEYS[4], 'owner', 'until', 'att:' .. (head or ''))\nredis.call('HSET'",
    ),
    "release by anybody": ("release", "if held[1] ~= ARGV[2] then", "if false then"),
    "kick leaves the due time": ("kick", "redis.call('ZADD', KEYS[1], now + math.floor(wait), session)", ""),
    "offer of what is done": ("offer", "if redis.call('ZSCORE', KEYS[5], turn) then", "if false then"),
    "offer of what waits": ("offer", "redis.call('HEXISTS', KEYS[3], turn) == 1", "false"),
    "renew revives a lapsed lease": ("renew", " or tonumber(held[2] or 0) <= now then", " then"),
    "renew by anybody": ("renew", "if held[1] ~= ARGV[2] or ", "if "),
    "a dropped turn is not known": ("cancel", "string.format('%d.5', now)", "now"),
    "cancel leaves an empty session": ("cancel", "redis.call('ZREM', KEYS[1], ARGV[1])", ""),
    "cancel does not count": ("cancel", "count(-1)", ""),
    "cancel leaves the owner": ("cancel", "'stop', 'owner', 'until')", "'stop')"),
    "finish leaves the flag to stop": ("finish", "redis.call('HDEL', KEYS[4], 'stop')", ""),
    "finish keeps the lease": ("finish", "redis.call('HDEL', KEYS[4], 'owner', 'until')", ""),
}
"""What the machine must find: a script, what stands there, and what would stand there instead."""


@pytest.mark.long
@pytest.mark.leaves_keys("*")
@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_fault_is_found(planted: str, redis_url: str, key_prefix: str) -> None:
    found = load_settings(redis_url=redis_url, key_prefix=key_prefix, **STILL)
    name, right, wrong = PLANTED[planted]
    with connect(found) as redis:
        mailbox = Mailbox(redis, found)
        script = mailbox._scripts._scripts[name]
        assert script.text.count(right) == 1
        script.text = script.text.replace(right, wrong)
        script.sha = hashlib.sha1(script.text.encode(), usedforsecurity=False).hexdigest()
        with pytest.raises(Exception) as error:  # noqa: PT011  whatever shows it
            run(mailbox, redis, Keys(key_prefix), examples=1000, shrink=False)
    assert not isinstance(error.value, NoScriptError)
