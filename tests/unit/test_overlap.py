"""Which policy a message has, and what the scripts are told of it."""

from __future__ import annotations

from typing import Any

import pytest

from inturn.errors import ConfigurationError, InvalidInputError
from inturn.settings import Settings, load_settings
from inturn.turns import Overlap
from inturn.turns.overlap import ENQUEUE, overlap_of
from inturn.turns.payloads import encode_payload, respond_payload


def plan(own: Settings, *, policy: Any = None, quiet: Any = None, **given: Any) -> Overlap:
    payload = respond_payload(own, "s", given.pop("message", "hello"), **given)
    return overlap_of(own, payload, encode_payload(own, payload), policy=policy, quiet=quiet)


def test_the_call_decides_before_the_channel_and_the_channel_before_all_others() -> None:
    own = load_settings(overlap="reject, sms=merge, slack=interrupt", quiet_seconds="1, sms=2.5")

    assert plan(own).policy == "reject"
    assert plan(own, channel="slack").policy == "interrupt"
    assert plan(own, channel="slack", policy="merge").quiet_ms == 1000
    sms = plan(own, channel="sms")
    assert (sms.policy, sms.quiet_ms) == ("merge", 2500)
    assert plan(own, channel="sms", policy="enqueue") == ENQUEUE
    assert plan(own, channel="sms", quiet=0).quiet_ms == 0
    assert plan(load_settings()) == ENQUEUE


def test_messages_of_one_user_at_one_place_are_of_one_group() -> None:
    own = load_settings(overlap="merge")
    given: dict[str, Any] = {
        "user_id": "ada",
        "channel": "slack",
        "address": {"channel": "C1", "thread": "1"},
    }
    group = plan(own, **given).group

    assert plan(own, **given, policy="interrupt", message="stop").group == group
    assert plan(own, **{**given, "address": {"thread": "1", "channel": "C1"}}).group == group
    for other in (
        {"user_id": "grace"},
        {"channel": "web"},
        {"address": {"channel": "C2"}},
        {"user_id": None},
    ):
        assert plan(own, **{**given, **other}).group != group


@pytest.mark.parametrize(
    ("given", "share"),
    [
        ({"message": "hi"}, 500),
        ({"message": "x" * 49}, 5000),
        ({"message": "x" * 100}, 10_000),
        ({"images": ["https://example.org/a.png"] * 4}, 4000),
    ],
)
def test_a_share_is_the_part_of_what_one_message_may_be(given: dict[str, Any], share: int) -> None:
    own = load_settings(overlap="merge", max_message_chars=100, max_payload_bytes=10_000)

    assert plan(own, **given).share == share
    assert 9000 < plan(own, **given, metadata={"note": "x" * 9000}).share <= 10_000


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"policy": "drop"}, "no such overlap: 'drop'; use enqueue, merge, interrupt, reject"),
        ({"policy": {"$ne": 1}}, "no such overlap"),
        ({"policy": "merge", "quiet": -1}, "quiet must be seconds from 0 to 60"),
        ({"policy": "merge", "quiet": 61}, "from 0 to 60, not 61"),
        ({"policy": "merge", "quiet": True}, "quiet must be"),
        ({"policy": "merge", "quiet": float("nan")}, "quiet must be"),
        ({"policy": "enqueue", "quiet": 2}, "quiet goes with overlap='merge', not with 'enqueue'"),
        ({"quiet": 2}, "quiet goes with overlap='merge'"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        plan(load_settings(), **given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"overlap": "sometimes"}, "INTURN_OVERLAP|overlap must be one of enqueue, merge.*'sometimes'"),
        ({"overlap": "enqueue, sms=drop"}, r"channel 'sms'.*'drop'"),
        ({"overlap": "merge, enqueue"}, "one thing for each channel"),
        ({"overlap": "sms=merge, sms=reject"}, "one thing for each channel"),
        ({"quiet_seconds": "soon"}, "quiet_seconds must be from 0 to 60, not 'soon'"),
        ({"quiet_seconds": "0, sms=90"}, r"channel 'sms'.*'90'"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        load_settings(**given)
