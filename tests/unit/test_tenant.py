"""On whose account a turn is taken."""

from __future__ import annotations

from typing import Any

import pytest

from inturn.contract import RespondPayload
from worker.tenant import tenant_of


def of(session_id: str, channel: str | None = None, **metadata: Any) -> str | None:
    return tenant_of(
        RespondPayload(session_id=session_id, message="hello", channel=channel, metadata=metadata)
    )


def test_what_the_producer_names_comes_first() -> None:
    assert of("s", tenant="acme") == "acme"
    assert of("slack:T1:C1:1.2", "slack", tenant="acme") == "acme"


@pytest.mark.parametrize("session_id", ["slack:T1:C1:1.2", "slack:T1:D1", "slack:T1:C1:U1"])
def test_else_a_message_from_slack_is_its_teams(session_id: str) -> None:
    assert of(session_id, "slack") == "slack:T1"


def test_else_it_is_nobodys() -> None:
    assert of("sms:+15005550006:+15551230000", "sms") is None
    assert of("s") is None
    assert of("slack:T1:C1") is None, "the session's ID was chosen by somebody who is not Slack"
    assert of("mine", "slack") is None


@pytest.mark.parametrize("tenant", ["", None, 7, ["acme"], {"a": 1}])
def test_what_is_no_name_is_nobodys(tenant: Any) -> None:
    assert of("s", tenant=tenant) is None


def test_a_long_name_is_cut() -> None:
    assert of("s", tenant="x" * 1000) == "x" * 255
