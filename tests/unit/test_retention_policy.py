"""Retention rules: which one holds for which session, and what is refused."""

from __future__ import annotations

from datetime import timedelta

import pytest

from inturn.errors import ConfigurationError
from inturn.retention import channel_of, read_policy
from inturn.session.state import Delivery, create_session
from inturn.settings import load_settings

DEFAULTS = {"completed": timedelta(days=30), "abandoned": timedelta(days=7), "idle": timedelta(days=30)}


def test_without_rules_the_defaults_hold() -> None:
    policy = load_settings(completed_days=30, abandoned_days=7, idle_days=14).retention_policy

    assert policy.age("completed", "any", "web") == timedelta(days=30)
    assert policy.age("abandoned", None, "sms") == timedelta(days=7)
    assert policy.least("idle") == timedelta(days=14)


def test_a_rule_goes_before_the_default_and_one_that_says_more_before_one_that_says_less() -> None:
    policy = read_policy(
        "completed=90d, agent:support channel:sms completed=1h, agent:support completed=10d,"
        "channel:sms completed=14d, channel:web idle=never",
        DEFAULTS,  # type: ignore[arg-type]
    )

    assert policy.age("completed", "booking", "web") == timedelta(days=90)
    assert policy.age("completed", "support", "web") == timedelta(days=10)
    assert policy.age("completed", "booking", "sms") == timedelta(days=14)
    assert policy.age("completed", "support", "sms") == timedelta(hours=1)
    assert policy.age("idle", "support", "web") is None
    assert policy.age("idle", "support", "sms") == timedelta(days=30)
    assert policy.least("completed") == timedelta(hours=1)


def test_of_two_rules_that_say_as_much_the_later_one_holds() -> None:
    text = ["agent:support completed=90d", "channel:sms completed=14d"]
    first = read_policy(", ".join(text), {})
    second = read_policy(", ".join(reversed(text)), {})

    assert first.age("completed", "support", "sms") == timedelta(days=14)
    assert second.age("completed", "support", "sms") == timedelta(days=90)


def test_a_default_that_a_rule_replaces_has_nothing_looked_for() -> None:
    policy = read_policy("completed=90d, abandoned=never", DEFAULTS)  # type: ignore[arg-type]

    assert policy.least("completed") == timedelta(days=90)
    assert policy.least("abandoned") is None


def test_a_name_may_be_percent_encoded() -> None:
    policy = read_policy("agent:front%20desk%2C1 completed=1d", {})

    assert policy.age("completed", "front desk,1", "web") == timedelta(days=1)


@pytest.mark.parametrize(
    "text",
    [
        "completed",
        "completed=",
        "completed=30",
        "completed=0d",
        "completed=-1d",
        "active=3d",
        "support completed=3d",
        "agent: completed=3d",
        "agent:a agent:b completed=3d",
        "user:ann completed=3d",
        "completed=3d, completed=4d",
    ],
)
def test_what_is_no_rule_is_refused_with_the_setting_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match="retention"):
        load_settings(retention=text)


def test_the_channel_is_that_of_the_last_reply_or_of_the_id_or_the_web() -> None:
    channels = {"slack": "on", "sms": "not set up"}
    replied = create_session("any", outbox={"1": Delivery(channel="slack"), "2": Delivery(channel="sms")})

    assert channel_of(replied, channels) == "sms"
    assert channel_of(create_session("sms:AC1:+1:+2"), channels) == "sms"
    assert channel_of(create_session("tenant:5"), channels) == "web"
    assert channel_of(create_session("sms"), channels) == "web"
