"""`inturn turns`, as people run it; what it lists is in a real Redis, and no worker runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis
from typer.testing import CliRunner, Result

from inturn.cli import app
from inturn.contract import DeadLetter, RespondPayload, TurnFault
from inturn.settings import Settings
from inturn.turns import DeadLetters, Mailbox
from inturn.turns.connection import connect
from inturn.turns.keys import Keys
from tests.nodes import ROOT, clean_environment
from tests.waiting import wait_until

Run = Callable[..., Result]
SECRET = "my number is +49 151"


@pytest.fixture
def letters(turn_settings: Settings) -> Iterator[DeadLetters]:
    with connect(turn_settings) as redis:
        yield DeadLetters(redis, turn_settings)


@pytest.fixture
def run(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)

    def run(*args: str, say: str | None = None, **env: str) -> Result:
        env = {"REDIS_URL": broker_url, "COLUMNS": "160", **env}
        return CliRunner().invoke(app, ["turns", *args], env=env, input=say)

    return run


def bury(letters: DeadLetters, session_id: str, turn_id: str, error: str = "ProviderError") -> None:
    payload = RespondPayload(session_id=session_id, message=SECRET)
    letter = DeadLetter(
        session_id=session_id,
        turn_id=turn_id,
        kind="respond",
        channel="slack",
        error=TurnFault(type=error, message="refused [for good]", attempts=3),
    )
    letters.put(letter, payload.model_dump_json())


@pytest.fixture
def some(letters: DeadLetters, broker_url: str) -> None:
    """Three that have failed, one of them two hours ago."""
    bury(letters, "a", "a:1")
    bury(letters, "b", "b:1", "ValueError")
    bury(letters, "b", "2e5a", "ValueError")
    with Redis.from_url(broker_url) as redis:
        redis.zincrby(Keys("inturn").of_dead("a")[0], -2 * 3_600_000, "a a:1")


def listed(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    dead: list[dict[str, Any]] = [json.loads(line) for line in result.stdout.splitlines()]
    return [each["turn_id"] for each in dead]


@pytest.mark.usefixtures("some")
def test_it_lists_what_failed_and_nothing_that_was_said(run: Run) -> None:
    assert listed(run("dead", "--json")) == ["a:1", "b:1", "2e5a"]
    table = run("dead").stdout
    for words in ("a:1", "respond", "slack", "2 h", "ProviderError: refused [for good]"):
        assert words in table
    assert SECRET not in table + run("dead", "--json").stdout


@pytest.mark.usefixtures("some")
@pytest.mark.parametrize(
    ("args", "turns"),
    [
        (["--session", "b"], ["b:1", "2e5a"]),
        (["--session", "nobody"], []),
        (["--error", "ProviderError"], ["a:1"]),
        (["--older-than", "1h"], ["a:1"]),
        (["--newer-than", "60min", "--session", "b"], ["b:1", "2e5a"]),
        (["--newer-than", "3h", "--older-than", "90 s"], ["a:1"]),
    ],
)
def test_it_lists_those_that_the_options_name(args: list[str], turns: list[str], run: Run) -> None:
    assert listed(run("dead", *args, "--json")) == turns


def test_nothing_to_list_is_said_in_words(run: Run) -> None:
    assert run("dead").stdout == "no turn has failed\n"
    assert run("dead", "--error", "ValueError").stdout == "none\n"
    assert run("dead", "--older-than", "long").exit_code == 2


@pytest.mark.usefixtures("some")
def test_one_is_shown_and_what_was_said_only_where_it_is_asked_for(run: Run) -> None:
    shown = run("show", "a:1")
    for words in ("ProviderError", "refused [for good]", "tries          3", "slack"):
        assert words in shown.stdout
    assert SECRET not in shown.stdout + run("show", "a:1", "--json").stdout
    assert SECRET in run("show", "a:1", "--text").stdout
    assert SECRET in json.loads(run("show", "2e5a", "--text", "--json").stdout)["payload"]
    unknown = run("show", "a:2")
    assert (unknown.exit_code, "inturn turns dead" in unknown.stderr) == (1, True)


def test_what_nobody_reads_obeys_nobody_in_a_terminal(run: Run, letters: DeadLetters) -> None:
    fault = TurnFault(type="InvalidInputError", message="no payload")
    letters.put(DeadLetter(session_id="s", turn_id="s:1", error=fault), "\x1b[2J [bold]nonsense")

    assert "\\u001b[2J [bold]nonsense" in run("show", "s:1", "--text").stdout
    assert "unreadable" in run("dead").stdout


@pytest.mark.usefixtures("some")
@pytest.mark.parametrize(("turn", "new"), [("a:1", "a:1~2"), ("2e5a", "b:2e5a~2")])
def test_one_is_run_again(turn: str, new: str, run: Run, mailbox: Mailbox) -> None:
    asked = run("retry", turn)

    assert (asked.exit_code, new in asked.stdout) == (0, True)
    assert mailbox.queue(new[0]) == [new]
    assert turn not in listed(run("dead", "--json"))
    assert run("retry", turn).exit_code == 1


@pytest.mark.usefixtures("some")
def test_many_are_run_again(run: Run, mailbox: Mailbox) -> None:
    assert "2 of 2 run again" in run("retry", "--error", "ValueError").stdout
    assert mailbox.queue("b") == ["b:1~2", "b:2e5a~2"]
    told = json.loads(run("retry", "--all", "--json").stdout)
    assert told == {"offered": [{"session_id": "a", "turn_id": "a:1", "as": "a:1~2"}], "kept": []}
    assert listed(run("dead", "--json")) == []


@pytest.mark.usefixtures("some")
def test_what_finds_no_place_stays_and_is_told(run: Run) -> None:
    asked = run("retry", "--session", "b", INTURN_MAX_WAITING="1")

    assert asked.exit_code == 1
    assert "1 of 2 run again" in asked.stdout
    assert "INTURN_MAX_WAITING" in asked.stderr
    assert listed(run("dead", "--session", "b", "--json")) == ["2e5a"]


@pytest.mark.parametrize("command", ["retry", "drop"])
@pytest.mark.usefixtures("some")
def test_nothing_is_done_that_was_not_named(command: str, run: Run) -> None:
    assert run(command).exit_code == 2
    assert run(command, "a:1", "--error", "ValueError").exit_code == 2
    assert run(command, "a:1", "--all").exit_code == 2
    assert run(command, "c:1").exit_code == 1
    assert len(listed(run("dead", "--json"))) == 3


@pytest.mark.usefixtures("some")
def test_many_are_dropped_after_a_question(run: Run) -> None:
    assert run("drop", "--session", "b", say="n\n").exit_code == 1
    assert len(listed(run("dead", "--json"))) == 3
    assert run("drop", "--session", "b", say="y\n").exit_code == 0
    assert listed(run("dead", "--json")) == ["a:1"]
    bury_none = run("drop", "--all", "--yes", "--json")
    assert json.loads(bury_none.stdout) == {"dropped": 1}
    assert run("drop", "a:1").exit_code == 1


def test_a_retry_that_is_stopped_goes_on_where_it_was(
    run: Run, letters: DeadLetters, mailbox: Mailbox, broker_url: str
) -> None:
    total = 2000
    for number in range(total):
        bury(letters, f"s{number}", f"s{number}:1")
    command = [sys.executable, "-c", "from inturn.cli import main; main()", "turns", "retry", "--all"]
    env = {**clean_environment(), "REDIS_URL": broker_url}
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until(lambda: mailbox.depth() > 5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)

    assert process.returncode == 130, out + err
    assert "the same command goes on" in err
    left = len(list(letters.letters()))
    assert 0 < left < total
    assert run("retry", "--all").exit_code == 0
    assert list(letters.letters()) == []
    assert mailbox.depth() == total
