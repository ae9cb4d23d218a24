"""Deliveries in Redis: where they wait, and what is remembered of those that did not simply arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from inturn.contract import DeliveryView
from inturn.session.state import Delivery
from inturn.settings import Settings
from inturn.turns import Deliveries, Mailbox
from inturn.turns.connection import connect
from inturn.turns.lease import create_token
from inturn.turns.outcomes import KEEP_SECONDS, MOST_OUTCOMES


@pytest.fixture
def settings(turn_settings: Callable[..., Settings]) -> Settings:
    return turn_settings()


@pytest.fixture
def deliveries(settings: Settings) -> Iterator[Deliveries]:
    with connect(settings) as redis:
        yield Deliveries(redis, settings)


def ended(state: str, **more: object) -> Delivery:
    return Delivery.model_validate(
        {"channel": "pigeon", "address": {"to": "+49 151"}, "state": state, **more}
    )


def seen(views: Iterator[DeliveryView]) -> list[tuple[str, str, str]]:
    return [(view.session_id, view.turn_id, view.state) for view in views]


@pytest.mark.leaves_keys("*")
def test_a_delivery_waits_in_a_mailbox_of_its_own(deliveries: Deliveries, mailbox: Mailbox) -> None:
    mailbox.offer("s", "s:1", "a turn")
    offered = deliveries.offer("s", "s:1", "pigeon")

    assert (offered.outcome, offered.publish) == ("new", True)
    assert deliveries.offer("s", "s:1", "pigeon").outcome == "known"
    assert not deliveries.offer("s", "s:2", "pigeon").publish
    assert mailbox.queue("s") == ["s:1"]
    assert deliveries.mailbox.queue("s") == ["s:1", "s:2"]
    begun = mailbox.begin("s", "", create_token())
    assert begun.lease is not None
    also = deliveries.mailbox.begin("s", "", create_token())
    assert also.lease is not None, "the turns' lease is not that of the deliveries"


@pytest.mark.leaves_keys("*")
def test_those_that_wait_are_seen_in_order_and_the_one_in_hand_as_such(deliveries: Deliveries) -> None:
    for session_id in ("a", "b"):
        for number in range(2):
            deliveries.offer(session_id, f"{session_id}:{number}", "pigeon")
    deliveries.mailbox.begin("b", "", create_token())

    views = list(deliveries.overview())

    assert sorted(seen(iter(views))) == [
        ("a", "a:0", "waiting"),
        ("a", "a:1", "waiting"),
        ("b", "b:0", "sending"),
        ("b", "b:1", "waiting"),
    ]
    assert seen(deliveries.overview("b")) == [("b", "b:0", "sending"), ("b", "b:1", "waiting")]
    assert {view.channel for view in views} == {"pigeon"}
    assert {view.turn_id: view.attempts for view in views} == {"a:0": 0, "a:1": 0, "b:0": 1, "b:1": 0}


@pytest.mark.leaves_keys("*")
def test_many_sessions_are_all_seen(deliveries: Deliveries) -> None:
    names = {f"session-{number}" for number in range(500)}
    for name in names:
        deliveries.offer(name, f"{name}:1", "pigeon")

    assert {view.session_id for view in deliveries.overview()} == names


@pytest.mark.leaves_keys("*")
def test_a_note_of_a_newer_release_or_of_nobody_hides_no_other(deliveries: Deliveries) -> None:
    deliveries.mailbox.offer("s", "s:1", '{"v": 99, "turn_id": "s:1"}')
    deliveries.mailbox.offer("s", "s:2", "nonsense")
    deliveries.offer("s", "s:3", "pigeon")

    assert seen(deliveries.overview()) == [("s", "s:3", "waiting")]


def test_what_did_not_simply_arrive_is_remembered_once_and_newest_first(deliveries: Deliveries) -> None:
    deliveries.outcomes.note("s", "s:1", ended("failed", error="refused with 400"))
    deliveries.outcomes.note("s", "s:2", ended("unknown"))
    deliveries.outcomes.note("s", "s:2", ended("unknown"))
    deliveries.outcomes.note("t", "t:1", ended("sent", doubtful=True))

    assert seen(deliveries.overview()) == [
        ("t", "t:1", "sent"),
        ("s", "s:2", "unknown"),
        ("s", "s:1", "failed"),
    ]
    assert seen(deliveries.overview("s")) == [("s", "s:2", "unknown"), ("s", "s:1", "failed")]
    views = {view.turn_id: view for view in deliveries.overview()}
    assert (views["s:1"].error, views["s:2"].error) == ("refused with 400", None)
    assert views["t:1"].doubtful


def test_one_that_has_arrived_in_the_end_is_not_told_any_more(deliveries: Deliveries) -> None:
    deliveries.outcomes.note("s", "s:1", ended("failed"))
    deliveries.outcomes.note("s", "s:1", ended("sent", asked="s:1~1"))

    assert seen(deliveries.overview()) == []


@pytest.mark.leaves_keys("*:t:*", "*:q:*", "*:active", "*:depth")
def test_one_that_was_asked_for_again_waits_and_is_not_told_twice(deliveries: Deliveries) -> None:
    deliveries.outcomes.note("s", "s:1", ended("failed"))
    for _ in range(2):
        assert deliveries.offer_again("s", "s:1").outcome == "new"

    assert seen(deliveries.overview()) == [("s", "s:1", "waiting"), ("s", "s:1", "waiting")]


def test_no_address_is_kept_there_and_all_of_it_expires(
    deliveries: Deliveries, redis_client: Redis, key_prefix: str
) -> None:
    for number in range(MOST_OUTCOMES + 20):
        deliveries.outcomes.note("s", f"s:{number}", ended("failed"))

    found = list(deliveries.overview())
    assert [view.turn_id for view in found[:1]] == [f"s:{MOST_OUTCOMES + 19}"]
    assert len(found) == MOST_OUTCOMES
    [key] = redis_client.scan_iter(f"{key_prefix}-out:*")
    assert 0 < redis_client.ttl(key) <= KEEP_SECONDS
    assert b"+49 151" not in (redis_client.dump(key) or b"")
