"""GuardedAdapter: a store as any other, but for turns that are later than a tombstone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from inturn.errors import SessionErasedError
from inturn.persistence import MemoryAdapter, PersistenceAdapter, Target
from inturn.persistence.guarded import GuardedAdapter
from inturn.persistence.tombstones import SETTLE_SECONDS, SLOW_SECONDS, TurnInHand, working_on
from inturn.session import create_session
from inturn.session.state import create_message, utcnow
from inturn.testing.conformance import AdapterConformance


class TestGuarded(AdapterConformance):
    @pytest.fixture
    def adapter(self) -> Iterator[PersistenceAdapter]:
        with GuardedAdapter(MemoryAdapter()) as adapter:
            yield adapter


@pytest.fixture
def store() -> Iterator[GuardedAdapter]:
    with GuardedAdapter(MemoryAdapter()) as adapter:
        yield adapter


def turn(turn_id: str = "s:1", user: str | None = "ann", ago: float = 0.0, took: float = 0.0) -> TurnInHand:
    users = frozenset() if user is None else frozenset([user])
    accepted_at = utcnow() - timedelta(seconds=ago)
    return TurnInHand((turn_id,), users, accepted_at, time.monotonic() - took)


def say(store: GuardedAdapter, in_hand: TurnInHand, version: int = 0) -> None:
    with working_on(in_hand):
        loaded = store.load("s")
        session = create_session("s", user_id="ann") if loaded is None else loaded.session
        store.commit(session, [create_message("s", "user", "hello")], expected_version=version)


@pytest.mark.parametrize("whose", ["session", "user"])
def test_a_turn_accepted_before_the_erasure_makes_no_session(store: GuardedAdapter, whose: str) -> None:
    late = turn(ago=10)
    if whose == "session":
        store.tombstones.put_session("s", [])
    else:
        store.tombstones.put_user("ann", ["s"])

    with pytest.raises(SessionErasedError):
        say(store, late)

    assert store.load("s") is None


def test_a_slow_turn_that_is_not_erased_knows_when_it_has_looked(store: GuardedAdapter) -> None:
    slow = turn(took=2 * SLOW_SECONDS)
    before = time.monotonic()

    say(store, slow)

    assert before <= slow.looked <= time.monotonic()


def test_one_accepted_afterwards_does(store: GuardedAdapter) -> None:
    store.tombstones.put_session("s", ["s:0"])
    store.tombstones.put_user("ann", [])

    say(store, turn("s:1"))

    assert store.load("s") is not None


def test_a_turn_that_is_repeated_afterwards_is_known(store: GuardedAdapter) -> None:
    store.tombstones.put_session("s", ["s:1"])
    store.tombstones.put_session("s", ["s:2"])

    for known in ("s:1", "s:2"):
        with pytest.raises(SessionErasedError):
            say(store, turn(known))


def test_a_slow_turn_does_not_write_to_the_session_that_has_its_id_now(store: GuardedAdapter) -> None:
    late = turn(ago=10, took=SLOW_SECONDS + 1)
    store.tombstones.put_session("s", [])
    say(store, turn("s:2"))

    with pytest.raises(SessionErasedError):
        say(store, late, version=1)

    found = store.load("s")
    assert found is not None
    assert found.session.version == 1


def test_what_was_made_while_its_user_was_erased_is_taken_back() -> None:
    class Paused(MemoryAdapter):
        def commit(self, session, messages=(), **more):  # type: ignore[no-untyped-def]
            if session.id == "s":
                # All of an erasure, between the look at the tombstones and the commit.
                guarded.tombstones.put_session("s", [])
                self.delete_sessions([Target("s")])
                time.sleep(SLOW_SECONDS + 0.1)
            return super().commit(session, messages, **more)

    with GuardedAdapter(Paused()) as guarded:
        with pytest.raises(SessionErasedError):
            say(guarded, turn(ago=10))
        assert guarded.load("s") is None
    assert SETTLE_SECONDS > SLOW_SECONDS


def test_what_belongs_to_no_turn_passes(store: GuardedAdapter) -> None:
    store.tombstones.put_session("s", [])

    store.commit(create_session("s"), expected_version=0)

    assert store.load("s") is not None


def test_nobody_is_named_by_a_tombstone(store: GuardedAdapter) -> None:
    store.tombstones.put_session("sms:+4912345", ["sms%3A%2B4912345:1"])
    store.tombstones.put_user("ann@example.com", ["sms:+4912345"])
    assert store.tombstones.unfinished("ann@example.com") == ["sms:+4912345"]

    store.tombstones.put_user("ann@example.com", [])

    assert not any(word in repr(vars(store.inner)) for word in ("4912345", "ann@"))
