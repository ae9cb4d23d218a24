"""How many turns wait in all: the counters tell the truth, and a limit refuses what is new."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from redis import Redis

from inturn.client import Client
from inturn.errors import OverloadedError
from inturn.settings import Settings
from inturn.turns import Deliveries, Lease, Mailbox, Overlap, Sweeper
from inturn.turns.connection import connect
from inturn.turns.keys import Keys
from inturn.turns.lease import create_token
from tests.integration.turns.conftest import MakeMailbox
from tests.waiting import wait_until

SESSIONS = [f"s{number}" for number in range(12)]
OVERLAPS = [
    Overlap("enqueue", "", 0, 0),
    Overlap("merge", "ada", 3000, 0),
    Overlap("interrupt", "ada", 500, 0),
    Overlap("reject", "", 0, 0),
]


class Mixture:
    """Any calls on a few sessions, in any order, repeated or not, by owners that live or die."""

    def __init__(self, mailbox: Mailbox, redis: Redis, keys: Keys, seed: int) -> None:
        self._mailbox = mailbox
        self._redis = redis
        self._keys = keys
        self._random = random.Random(seed)
        self._held: dict[str, tuple[Lease, str]] = {}

    def step(self) -> None:
        session = self._random.choice(SESSIONS)
        call = self._random.choice([self.offer, self.offer, self.offer, self.work, self.work, self.cancel])
        for _ in range(self._random.choice([1, 1, 2])):
            call(session)
        if self._random.random() < 0.1:
            self.die(session)

    def offer(self, session: str) -> None:
        turn = f"t{self._random.randrange(40)}"
        self._mailbox.offer(session, turn, turn, self._random.choice(OVERLAPS))

    def work(self, session: str) -> None:
        """Take the lease, or end the turn in hand: for good, for now, with a lost answer."""
        if session not in self._held:
            begun = self._mailbox.begin(session, "t", create_token())
            if begun.lease is not None and begun.head is not None:
                self._held[session] = begun.lease, begun.head.turn_id
            return
        lease, turn = self._held.pop(session)
        if self._random.random() < 0.2:
            self._mailbox.release(lease, delay=0.001)
            return
        go_on = self._random.random() < 0.5
        finished = self._mailbox.finish(lease, turn, go_on=go_on)
        if self._random.random() < 0.5:
            assert self._mailbox.finish(lease, turn, go_on=go_on) == finished
        if finished.head is not None:
            self._held[session] = lease, finished.head.turn_id

    def cancel(self, session: str) -> None:
        self._mailbox.cancel(session, f"t{self._random.randrange(40)}")

    def die(self, session: str) -> None:
        """The owner hears nothing of it, and ends its turn when it is too late."""
        self._redis.hset(self._keys.of_session(session)[3], "until", 1)

    def drain(self) -> None:
        for session in SESSIONS:
            self.die(session)
            while self._mailbox.queue(session):
                if (begun := self._begun(session)) is None:
                    time.sleep(0.001)  # it was released a moment ago
                else:
                    self._mailbox.finish(*begun, go_on=False)

    def _begun(self, session: str) -> tuple[Lease, str] | None:
        begun = self._mailbox.begin(session, "t", create_token())
        return None if begun.lease is None or begun.head is None else (begun.lease, begun.head.turn_id)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_the_counters_are_what_waits(
    make_mailbox: MakeMailbox, redis_client: Redis, key_prefix: str, seed: int
) -> None:
    mailbox, keys = make_mailbox(max_waiting=6), Keys(key_prefix)
    mixture = Mixture(mailbox, redis_client, keys, seed)
    deepest = 0
    for _ in range(250):
        mixture.step()
        waiting = sum(len(mailbox.queue(session)) for session in SESSIONS)
        assert mailbox.depth() == waiting
        deepest = max(deepest, waiting)
    assert deepest > 20

    mixture.drain()

    assert mailbox.depth() == 0
    assert not redis_client.exists(*keys.depths)


@pytest.mark.parametrize("wrong", ["5", "-5", None])
def test_a_counter_that_is_wrong_is_right_once_nothing_waits(
    mailbox: Mailbox, redis_client: Redis, key_prefix: str, wrong: str | None
) -> None:
    """So it is after an update from a release that did not count, and after a loss of single keys."""
    depth = Keys(key_prefix).of_session("s")[5]
    mailbox.offer("s", "t1", "x")
    if wrong is None:
        redis_client.delete(depth)
    else:
        redis_client.set(depth, wrong)

    mailbox.cancel("s", "t1")
    mailbox.offer("s", "t2", "x")

    assert mailbox.depth() == 1
    mailbox.cancel("s", "t2")


@pytest.fixture
def limited(make_mailbox: MakeMailbox) -> Mailbox:
    """It may have three turns in all, and looks at their number with each offer."""
    return make_mailbox(max_waiting_total=3, sweep_seconds=1e-9, grace_seconds=60)


@pytest.mark.leaves_keys("*")
def test_turns_beyond_the_limit_are_refused_in_every_session(limited: Mailbox) -> None:
    taken = [limited.offer(session, "t1", "x").outcome for session in SESSIONS[:5]]

    assert taken == ["new"] * 3 + ["shut"] * 2
    assert limited.offer(SESSIONS[4], "t1", "x").ahead == 3, "it tells how many wait"
    assert limited.begin(SESSIONS[5], "t1", create_token(), payload="x").outcome == "shut"
    assert limited.depth() == 3


@pytest.mark.leaves_keys("*")
def test_a_turn_that_was_taken_before_is_known_and_runs(limited: Mailbox) -> None:
    for session in SESSIONS[:4]:
        limited.offer(session, "t1", "x")

    assert limited.offer(SESSIONS[0], "t1", "x").outcome == "known"
    begun = limited.begin(SESSIONS[0], "t1", create_token(), payload="x")
    assert begun.outcome == "ok"
    assert begun.lease is not None
    assert limited.finish(begun.lease, "t1", go_on=True).outcome == "empty"


@pytest.mark.leaves_keys("*")
def test_new_turns_are_taken_again_once_fewer_wait(limited: Mailbox) -> None:
    for session in SESSIONS[:4]:
        limited.offer(session, "t1", "x")
    limited.cancel(SESSIONS[0], "t1")

    wait_until(lambda: limited.offer(SESSIONS[3], "t1", "x").outcome == "new")


@pytest.mark.leaves_keys("*")
def test_a_sweep_refuses_for_producers_that_do_not_look_and_its_mark_does_not_stay(
    make_mailbox: MakeMailbox, redis_client: Redis, key_prefix: str
) -> None:
    blind = make_mailbox()
    for session in SESSIONS[:4]:
        blind.offer(session, "t1", "x")
    sweeper = Sweeper(make_mailbox(max_waiting_total=4, sweep_seconds=20), lambda _: None, 20)

    sweeper.sweep()

    assert blind.offer("another", "t1", "x").outcome == "shut"
    assert 0 < redis_client.pttl(Keys(key_prefix).shuts[0]) <= 60_000


@pytest.mark.leaves_keys("*")
def test_a_client_raises_a_typed_error(turn_settings: Callable[..., Settings]) -> None:
    with Client(turn_settings(max_waiting_total=1, sweep_seconds=1e-9)) as client:
        client.respond("s", "one", turn_id="1")
        with pytest.raises(OverloadedError, match="INTURN_MAX_WAITING_TOTAL") as refused:
            client.respond("t", "two", turn_id="2")
        assert not client.respond("s", "one", turn_id="1").accepted

    assert refused.value.retryable
    assert refused.value.waiting == 1


def test_replies_on_their_way_out_are_not_refused(turn_settings: Callable[..., Settings]) -> None:
    settings = turn_settings(max_waiting_total=1, sweep_seconds=1e-9)
    with connect(settings) as redis:
        out = Deliveries(redis, settings).mailbox
        outcomes = [out.offer("s", turn, "x").outcome for turn in ("t1", "t2", "t3")]
        for turn in ("t1", "t2", "t3"):
            out.cancel("s", turn)

    assert outcomes == ["new"] * 3
