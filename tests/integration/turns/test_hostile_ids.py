"""Lua injection: to the mailbox's scripts an ID is a name and a payload is a text, whatever is in them."""

from __future__ import annotations

import pytest
from redis import Redis

from inturn.ids import create_turn_id
from inturn.turns import Mailbox
from inturn.turns.keys import Keys
from inturn.turns.lease import create_token

HOSTILE = [
    "'; redis.call('FLUSHALL') --",
    '"); redis.call("FLUSHALL"); --',
    "]] redis.call('FLUSHALL') --[[",
    "KEYS[1]",
    "*",
    "s*",
    "[a-z]",
    "{0}",
    "}{",
    "{other}:q:s",
    "s:q",
    "q:s",
    "d:s",
    "../s",
    "%s%n",
    "\\",
    "\u202es",
    "s ",
    "S",
]


def test_each_is_a_mailbox_of_its_own(mailbox: Mailbox, redis_client: Redis, key_prefix: str) -> None:
    names = ["s", *HOSTILE]
    for name in names:
        for key in ("1", name):
            turn_id = create_turn_id(name, key)
            assert mailbox.offer(name, turn_id, f"payload of {turn_id}").outcome == "new"
    redis_client.set(f"{key_prefix}:witness", "1", ex=60)

    for name in names:
        first, second = create_turn_id(name, "1"), create_turn_id(name, name)
        assert mailbox.queue(name) == [first, second]
        begun = mailbox.begin(name, first, create_token())
        assert begun.lease is not None
        assert begun.head is not None
        assert begun.head.payload == f"payload of {first}"
        assert mailbox.cancel(name, second) == "dropped"
        assert mailbox.finish(begun.lease, first, go_on=True).outcome == "empty"

    assert mailbox.waiting(names) == set()
    assert redis_client.get(f"{key_prefix}:witness") == b"1"


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_no_two_sessions_share_a_key(number: int) -> None:
    keys = Keys("inturn")
    own = {name for name in HOSTILE if name != HOSTILE[number]} | {"s"}
    index, depth, shut = 0, 5, 6  # these are the bucket's
    shared = (index, depth, shut)

    def of(name: str) -> set[str]:
        named = [key for place, key in enumerate(keys.of_session(name)) if place not in shared]
        return {*named, keys.of_owner(name), keys.of_stream(name, create_turn_id(name, name))[1]}

    assert of(HOSTILE[number]) & set().union(*map(of, own)) == set()
