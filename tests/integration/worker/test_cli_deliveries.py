"""`inturn deliveries`, as people run it; what it lists is in a real Redis, and no worker runs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from inturn.cli import app
from inturn.contract import decode_note
from inturn.session.state import Delivery
from inturn.settings import Settings
from inturn.turns import Deliveries
from inturn.turns.connection import connect
from tests.nodes import clean_environment

Run = Callable[..., Result]


@pytest.fixture
def deliveries(turn_settings: Settings) -> Iterator[Deliveries]:
    with connect(turn_settings) as redis:
        yield Deliveries(redis, turn_settings)


@pytest.fixture
def run(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)

    def run(*args: str) -> Result:
        env = {"REDIS_URL": broker_url, "COLUMNS": "160"}
        return CliRunner().invoke(app, ["deliveries", *args], env=env)

    return run


@pytest.fixture
def some(deliveries: Deliveries) -> None:
    """Two that wait, and one of each kind that has ended."""
    deliveries.offer("a", "a:1", "slack")
    deliveries.offer("b", "b:1", "sms")
    for number, (state, doubtful, error) in enumerate(
        [("failed", False, "opted [out]"), ("unknown", False, None), ("sent", True, None)], 2
    ):
        ended = Delivery.model_validate(
            {"channel": "slack", "state": state, "doubtful": doubtful, "error": error}
        )
        deliveries.outcomes.note("a", f"a:{number}", ended)


def listed(result: Result) -> list[tuple[str, str]]:
    assert result.exit_code == 0, result.output
    views: list[dict[str, Any]] = [json.loads(line) for line in result.stdout.splitlines()]
    return [(view["turn_id"], view["state"]) for view in views]


@pytest.mark.usefixtures("some")
def test_it_lists_what_waits_and_what_did_not_simply_arrive(run: Run) -> None:
    assert sorted(listed(run("list", "--json"))) == [
        ("a:1", "waiting"),
        ("a:2", "failed"),
        ("a:3", "unknown"),
        ("a:4", "sent"),
        ("b:1", "waiting"),
    ]
    table = run("list").stdout
    for words in ("a:1", "waiting", "sms", "opted [out]", "sent, doubtful"):
        assert words in table
    assert re.search(r"│ \d+ (s|min) +│", table)


@pytest.mark.usefixtures("some")
@pytest.mark.parametrize(
    ("args", "turns"),
    [
        (["--session", "b"], ["b:1"]),
        (["--session", "nobody"], []),
        (["--state", "waiting", "--session", "a"], ["a:1"]),
        (["--state", "failed"], ["a:2"]),
        (["--state", "unknown"], ["a:3"]),
        (["--state", "doubtful"], ["a:4"]),
        (["--state", "sending"], []),
    ],
)
def test_it_lists_those_of_a_session_or_in_a_state(args: list[str], turns: list[str], run: Run) -> None:
    assert [turn_id for turn_id, _ in listed(run("list", *args, "--json"))] == turns


def test_nothing_to_list_is_said_in_words(run: Run) -> None:
    assert run("list").stdout == "no deliveries wait, and none needs looking at\n"
    assert run("list", "--state", "failed").stdout == "none\n"
    assert run("list", "--state", "lost").exit_code == 2


@pytest.mark.usefixtures("some")
@pytest.mark.parametrize("turn", ["a:3", "3"])
def test_a_retry_goes_behind_what_waits(turn: str, run: Run, deliveries: Deliveries) -> None:
    asked = run("retry", "a", turn)

    assert (asked.exit_code, "remembers no" in asked.stderr) == (0, False)
    first, again = (decode_note(item.payload) for item in deliveries.mailbox.items("a"))
    assert (first.turn_id, first.again) == ("a:1", False)
    assert (again.turn_id, again.again) == ("a:3", True)


def test_a_retry_of_what_redis_does_not_remember_says_so(run: Run, deliveries: Deliveries) -> None:
    asked = run("retry", "s", "e1")

    assert asked.exit_code == 0
    assert "Redis remembers no such delivery" in asked.stderr
    [item] = deliveries.mailbox.items("s")
    assert decode_note(item.payload).turn_id == "s:e1"
