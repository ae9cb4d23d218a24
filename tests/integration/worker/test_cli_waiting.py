"""`inturn turns list`, `cancel` and `show` of turns that wait, as people run it; no worker runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from inturn.cli import app, exits
from inturn.client import Client
from inturn.turns import Mailbox
from tests.nodes import clean_environment

Run = Callable[..., Result]
SECRET = "my number is +49 151"


@pytest.fixture
def run(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)

    def run(*args: str, say: str | None = None, **env: str) -> Result:
        env = {"REDIS_URL": broker_url, "COLUMNS": "160", **env}
        return CliRunner().invoke(app, ["turns", *args], env=env, input=say)

    return run


@pytest.fixture
def some(client: Client, mailbox: Mailbox) -> None:
    """Three of one session, the first of which runs, and one of another."""
    for turn in ("1", "2", "3"):
        client.respond("a", SECRET, turn_id=turn, user_id="ann")
    client.save_session("b", turn_id="1", data={"note": SECRET})
    assert mailbox.begin("a", "a:1", "host:1:token").lease is not None


def listed(result: Result) -> list[tuple[str, str, int]]:
    assert result.exit_code == 0, result.output
    turns: list[dict[str, Any]] = [json.loads(line) for line in result.stdout.splitlines()]
    return [(turn["turn_id"], turn["state"], turn["ahead"]) for turn in turns]


@pytest.mark.usefixtures("some")
def test_it_lists_what_waits_or_runs_in_order_and_nothing_that_was_said(run: Run) -> None:
    of_a = [("a:1", "running", 0), ("a:2", "waiting", 1), ("a:3", "waiting", 2)]
    assert listed(run("list", "--session", "a", "--json")) == of_a
    assert sorted(listed(run("list", "--json"))) == [*of_a, ("b:1", "waiting", 0)]
    table = run("list").stdout
    for words in ("a:1", "running", "behind 2", "save_session", "next"):
        assert words in table
    assert SECRET not in table + run("list", "--json").stdout
    cut = run("list", "--limit", "2", "--json")
    assert (len(listed(cut)), "4 in all" in cut.stderr) == (2, True)


def test_nothing_to_list_is_said_in_words(run: Run) -> None:
    assert run("list").stdout == "no turn waits or runs\n"


def test_turns_that_only_the_inbox_has_are_counted(run: Run, store_url: str) -> None:
    shown = run("list", DATABASE_URL=store_url, INTURN_INBOX="database")

    assert (shown.exit_code, "inbox has 0 turns" in shown.stderr) == (0, True)


@pytest.mark.usefixtures("some")
def test_one_is_dropped_and_one_that_runs_is_asked_to_stop(
    run: Run, mailbox: Mailbox, client: Client
) -> None:
    assert run("cancel", "a:2").stdout == "a:2: dropped before it ran\n"
    assert mailbox.queue("a") == ["a:1", "a:3"]
    assert client.status("a", "a:2") == "cancelled"
    assert run("cancel", "1", "--session", "b").exit_code == exits.DONE
    assert "asked to stop" in run("cancel", "a:1").stdout
    gone = run("cancel", "a:9")
    assert (gone.exit_code, "has ended, or never was" in gone.stderr) == (exits.FAILED, True)


@pytest.mark.usefixtures("some")
def test_all_of_a_session_are_cancelled_after_a_question(run: Run, mailbox: Mailbox) -> None:
    assert run("cancel").exit_code == exits.WRONG
    assert run("cancel", "--session", "a", say="n\n").exit_code == exits.FAILED
    assert len(mailbox.queue("a")) == 3
    told = json.loads(run("cancel", "--session", "a", "--yes", "--json").stdout)
    assert told == {"session_id": "a", "turns": {"a:3": "dropped", "a:2": "dropped", "a:1": "signalled"}}
    assert mailbox.queue("a") == ["a:1"]
    assert mailbox.queue("b") == ["b:1"]
    assert run("cancel", "--session", "nobody").exit_code == exits.FAILED


@pytest.mark.usefixtures("some")
def test_where_a_turn_stands_is_shown(run: Run) -> None:
    for turn, state in (("a:1", "running"), ("a:2", "waiting")):
        told = json.loads(run("show", turn, "--json").stdout)
        assert told == {"state": state, "session_id": "a", "turn_id": turn}
        assert f"state          {state}" in run("show", turn[2:], "--session", "a").stdout


def test_a_turn_that_nobody_knows_is_exit_code_1(run: Run) -> None:
    for turn in ("a:9", "0b57b9a2"):
        shown = run("show", turn)
        assert (shown.exit_code, len(shown.stderr.splitlines())) == (exits.FAILED, 1)
