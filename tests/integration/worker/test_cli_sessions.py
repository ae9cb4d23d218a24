"""`inturn sessions`, as people run it, on a real Redis and a store in a file."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from inturn.audit.reading import read_audit_log
from inturn.cli import app, exits
from inturn.client import Client
from inturn.contract import DeadLetter, RespondPayload, TurnFault
from inturn.keyring import KeyRing, create_key
from inturn.persistence import EncryptedAdapter, PersistenceAdapter
from inturn.session import create_session
from inturn.session.state import RouteRef, Status, StepRef, create_message
from inturn.settings import Settings
from inturn.turns import DeadLetters, Deliveries, Mailbox
from inturn.turns.connection import connect
from tests.integration.worker.conftest import StartWorker
from tests.integration.worker.test_cli import inturn
from tests.nodes import clean_environment

Run = Callable[..., Result]
SECRET = "my number is +49 151"


@pytest.fixture
def run(broker_url: str, store_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)

    def run(*args: str, say: str | None = None, **env: str) -> Result:
        env = {"REDIS_URL": broker_url, "DATABASE_URL": store_url, "COLUMNS": "160", **env}
        return CliRunner().invoke(app, ["sessions", *args], env=env, input=say)

    return run


@pytest.fixture
def letters(turn_settings: Settings) -> Iterator[DeadLetters]:
    with connect(turn_settings) as redis:
        yield DeadLetters(redis, turn_settings)


def write(
    store: PersistenceAdapter,
    session_id: str,
    *said: str,
    user_id: str | None = None,
    status: Status = "active",
    **data: Any,
) -> None:
    session = create_session(session_id, user_id=user_id, agent_name="the desk", data=data)
    session.set_status(status)
    messages = [
        create_message(session_id, "assistant" if place % 2 else "user", text)
        for place, text in enumerate(said)
    ]
    store.commit(session, messages, expected_version=0)


def bury(letters: DeadLetters, session_id: str) -> None:
    fault = TurnFault(type="ProviderError", message="refused [for good]")
    payload = RespondPayload(session_id=session_id, message=SECRET)
    letter = DeadLetter(session_id=session_id, turn_id=f"{session_id}:dead", error=fault)
    letters.put(letter, payload.model_dump_json())


def objects(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def listed(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [each["session_id"] for each in objects(result)]


@pytest.fixture
def some(store: PersistenceAdapter) -> None:
    """Three sessions of people, and a note of inturn's own."""
    write(store, "one", SECRET, user_id="ann")
    write(store, "two [red]", SECRET, "yes", status="completed")
    write(store, "three", user_id="ann", status="abandoned")
    write(store, "inturn:erased:user:1", status="completed")


class TestList:
    @pytest.mark.usefixtures("some")
    def test_it_lists_those_that_the_options_name(self, run: Run) -> None:
        for args, sessions in (
            ([], ["three", "two [red]", "one"]),
            (["--order", "oldest"], ["one", "two [red]", "three"]),
            (["--user", "ann"], ["three", "one"]),
            (["--status", "completed"], ["two [red]"]),
            (["--user", "ann", "--status", "active"], ["one"]),
            (["--agent", "another"], []),
            (["--older-than", "1h"], []),
            (["--newer-than", "1h", "--user", "ann"], ["three", "one"]),
        ):
            assert listed(run("list", *args, "--json")) == sessions, args

    @pytest.mark.usefixtures("some")
    def test_a_table_says_where_each_stands_and_nothing_that_was_said(self, run: Run) -> None:
        shown = run("list").stdout
        for words in ("one", "ann", "two [red]", "completed", "abandoned"):
            assert words in shown
        assert re.search(r"│ \d+ (s|min) +│", shown)
        assert SECRET not in shown + run("list", "--json").stdout
        assert "inturn:" not in shown

    def test_pages_lead_to_each_other_and_skip_nothing(self, run: Run, store: PersistenceAdapter) -> None:
        names = [f"s{number}" for number in range(7)]
        for name in names:
            write(store, name)
        found: list[str] = []
        more: list[str] = []
        while True:
            page = run("list", "--order", "oldest", "--limit", "3", *more, "--json")
            found += listed(page)
            if "--cursor" not in page.stderr:
                break
            more = ["--cursor", page.stderr.split("--cursor '")[1].split("'")[0]]
        assert found == names == listed(run("list", "--order", "oldest", "--all", "--json"))

    def test_one_that_cannot_be_read_is_listed_with_the_reason(
        self, run: Run, store: PersistenceAdapter
    ) -> None:
        write(store, "open", SECRET)
        write(EncryptedAdapter(store, KeyRing.read_text(create_key("lost"))), "sealed", SECRET)

        first, second = objects(run("list", "--json"))
        assert (first["session_id"], "lost" in first["unreadable"]) == ("sealed", True)
        assert (second["session_id"], second["unreadable"]) == ("open", None)
        assert "lost" in run("list").stdout
        assert run("show", "sealed").exit_code == exits.AWAY

    def test_what_cannot_be_is_refused_and_none_is_said_in_words(self, run: Run) -> None:
        assert run("list").stdout == "none\n"
        assert run("list", "--older-than", "long").exit_code == exits.WRONG
        assert run("list", "--status", "gone").exit_code == exits.WRONG


class TestShow:
    def test_it_shows_state_turns_lease_dead_letters_and_deliveries_and_nothing_that_was_said(
        self,
        run: Run,
        store: PersistenceAdapter,
        client: Client,
        mailbox: Mailbox,
        letters: DeadLetters,
        turn_settings: Settings,
    ) -> None:
        session = create_session("s", user_id="ann", data={"party_size": 4}, metadata={"shop": "north"})
        session.enter_route(RouteRef(id="book-a-table"))
        session.enter_step(StepRef(id="date"))
        store.commit(session, [create_message("s", "user", SECRET)], expected_version=0)
        client.respond("s", SECRET, turn_id="1", channel="slack", address={"channel": "C1"})
        client.save_session("s", turn_id="2", data={"note": SECRET})
        assert mailbox.begin("s", "s:1", "host:1:token").lease is not None
        bury(letters, "s")
        with connect(turn_settings) as redis:
            Deliveries(redis, turn_settings).offer("s", "s:0", "slack")

        (told,) = objects(run("show", "s", "--json"))
        assert (told["session"]["status"], told["session"]["data"]) == ("active", {"party_size": 4})
        assert [(turn["turn_id"], turn["state"], turn["kind"]) for turn in told["waiting"]] == [
            ("s:1", "running", "respond"),
            ("s:2", "waiting", "save_session"),
        ]
        assert (told["lease"]["owner"], told["lease"]["seconds"] > 0) == ("host:1:token", True)
        assert [letter["turn_id"] for letter in told["dead_letters"]] == ["s:dead"]
        assert [(view["turn_id"], view["state"]) for view in told["deliveries"]] == [("s:0", "waiting")]

        shown = run("show", "s").stdout
        for words in (
            *("ann", "book-a-table / date", "party_size = 4", 'shop = "north"', "driven by    host:1:token"),
            *("running      s:1, respond, by slack", "waiting      s:2, save_session"),
            *("ProviderError: refused [for good]", "s:0, slack: waiting"),
        ):
            assert words in shown
        assert SECRET not in shown + json.dumps(told)

    def test_a_session_whose_first_turn_waits_is_there(self, run: Run, client: Client) -> None:
        client.respond("new", SECRET)

        (told,) = objects(run("show", "new", "--json"))
        assert (told["session"], len(told["waiting"]), told["lease"]) == (None, 1, None)
        assert "not in the store yet" in run("show", "new").stdout

    def test_one_that_is_nowhere_is_exit_code_1_and_one_line(self, run: Run) -> None:
        for command in ("show", "messages", "export", "delete", "complete"):
            done = run(command, "nobody")
            assert (done.exit_code, len(done.stderr.splitlines()), done.stdout) == (exits.FAILED, 1, "")
            assert "inturn sessions list" in done.stderr


class TestMessages:
    def test_the_last_ones_come_in_their_order_and_pages_go_back(
        self, run: Run, store: PersistenceAdapter
    ) -> None:
        write(store, "s", *[f"line {number}" for number in range(1, 7)])

        def said(*args: str) -> list[str]:
            return [each["content"] for each in objects(run("messages", "s", *args, "--json"))]

        assert said("--last", "2") == ["line 5", "line 6"]
        assert said("--last", "2", "--before", "5") == ["line 3", "line 4"]
        assert said("--all") == said() == [f"line {number}" for number in range(1, 7)]

    def test_no_message_is_obeyed_by_a_terminal(self, run: Run, store: PersistenceAdapter) -> None:
        write(store, "s", "\x1b[2J[bold]two\nlines\tand a tab")

        shown = run("messages", "s").stdout
        assert "\\u001b[2J[bold]two\n       lines   and a tab\n" in shown


class TestDelete:
    def test_it_asks_and_can_be_tried(self, run: Run, store: PersistenceAdapter) -> None:
        write(store, "s", "one", "two")

        assert "1 session with 2 messages would go" in run("delete", "s", "--dry-run").stdout
        assert run("delete", "s", say="n\n").exit_code == exits.FAILED
        unanswered = run("delete", "s", say="")
        assert (unanswered.exit_code, "--yes" in unanswered.stderr) == (exits.FAILED, True)
        assert store.load("s") is not None
        assert run("delete", "s", say="y\n").exit_code == exits.DONE
        assert store.load("s") is None

    def test_what_redis_knows_of_it_goes_with_it(
        self, run: Run, store: PersistenceAdapter, letters: DeadLetters
    ) -> None:
        write(store, "s", "one")
        write(store, "other", "one")
        bury(letters, "s")
        bury(letters, "other")

        (told,) = objects(run("delete", "s", "--yes", "--json"))
        assert told == {"session_id": "s", "messages": 1, "dry_run": False}
        assert [letter.session_id for letter in letters.letters()] == ["other"]
        assert store.load("other") is not None

    def test_one_with_a_turn_on_its_way_stays_and_the_others_go(
        self, run: Run, store: PersistenceAdapter, client: Client
    ) -> None:
        write(store, "busy", "one")
        write(store, "idle", "one")
        handle = client.respond("busy", "two")

        done = run("delete", "busy", "idle", "--yes")
        assert (done.exit_code, done.stdout) == (exits.FAILED, "1 of 1 deleted\n")
        assert "inturn turns cancel --session" in done.stderr
        assert (store.load("idle"), store.load("busy") is not None) == (None, True)
        handle.cancel()
        assert run("delete", "busy", "--yes").exit_code == exits.DONE


class TestExport:
    def test_all_there_is_comes_in_objects_a_line(
        self, run: Run, store: PersistenceAdapter, client: Client, letters: DeadLetters
    ) -> None:
        write(store, "s", "one", "two")
        client.respond("s", "three", turn_id="3")
        bury(letters, "s")

        lines = objects(run("export", "s"))
        assert [line["type"] for line in lines] == [
            *("session", "message", "message", "turn", "dead_letter", "end")
        ]
        assert lines[3]["payload"]["message"] == "three"

    def test_a_file_is_private_and_only_there_once_it_is_whole(
        self, run: Run, store: PersistenceAdapter, tmp_path: Path
    ) -> None:
        write(store, "s", "naïve")
        path = tmp_path / "s.jsonl"
        path.write_text("what was there before")
        path.chmod(0o644)

        assert run("export", "s", "nobody", "--output", str(path)).exit_code == exits.FAILED
        assert path.read_text() == "what was there before"
        (report,) = objects(run("export", "s", "--output", str(path), "--json"))
        assert report["lines"] == {"session": 1, "message": 1, "end": 1}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "naïve" in path.read_text()
        nowhere = run("export", "s", "--output", str(tmp_path / "no" / "s.jsonl"))
        assert (nowhere.exit_code, "no/s.jsonl" in nowhere.stderr) == (exits.WRONG, True)
        assert [each.name for each in tmp_path.glob("*.part")] == []


class TestStatus:
    @pytest.mark.process
    def test_a_status_is_set_by_a_worker_in_order_with_the_turns(
        self, run: Run, store: PersistenceAdapter, start_worker: StartWorker
    ) -> None:
        start_worker()
        write(store, "one", "hello")
        write(store, "two", "hello")

        done = run("complete", "one", "nobody", "two", "--json")
        assert done.exit_code == exits.FAILED
        assert [(each["session_id"], each["status"]) for each in objects(done)] == [
            ("one", "completed"),
            ("two", "completed"),
        ]
        assert run("abandon", "two").stdout == "two: abandoned\n"
        assert [(each["session_id"], each["status"]) for each in objects(run("list", "--json"))] == [
            ("two", "abandoned"),
            ("one", "completed"),
        ]
        assert store.load("nobody") is None

    def test_without_a_worker_it_waits_in_the_mailbox(
        self, run: Run, store: PersistenceAdapter, mailbox: Mailbox
    ) -> None:
        write(store, "s", "hello")

        assert run("complete", "s", "--timeout", "0").stdout == "s: asked for\n"
        assert run("abandon", "s", "--timeout", "0.1").exit_code == exits.TIMED_OUT
        assert len(mailbox.queue("s")) == 2


@pytest.mark.process
def test_the_audit_log_names_who_looked_and_what_they_did_past_the_store(
    tmp_path: Path,
    store: PersistenceAdapter,
    store_url: str,
    broker_url: str,
    client: Client,
    letters: DeadLetters,
) -> None:
    write(store, "s", "hello")
    client.respond("s", SECRET, turn_id="1")
    bury(letters, "s")
    env = {"REDIS_URL": broker_url, "DATABASE_URL": store_url, "INTURN_AUDIT_LOG": str(tmp_path / "audit")}

    assert inturn("sessions", "messages", "s", cwd=tmp_path, **env).returncode == 0
    for command in (
        "sessions export s",
        "sessions complete s --timeout 0",
        "turns list",
        "turns dead",
        "turns show s:dead --text",
        "turns cancel s:1",
        "turns drop s:dead",
        "deliveries retry s 0",
        "deliveries list",
    ):
        assert inturn(*command.split(), cwd=tmp_path, **env).returncode == 0, command
    records = list(read_audit_log(tmp_path / "audit", session_id="s"))
    assert {record["actor"].partition(":")[0] for record in records} == {"cli"}
    done = [(record["action"], record["call"]) for record in records if record["call"].startswith("cli_")]
    assert done == [
        ("change", "cli_completed"),
        ("read", "cli_turns"),
        ("read", "cli_dead_letters"),
        ("read", "cli_dead_letter"),
        ("change", "cli_cancel"),
        ("change", "cli_drop"),
        ("change", "cli_redeliver"),
        ("read", "cli_deliveries"),
    ]
    assert {record["action"] for record in records} == {"read", "export", "change"}
    assert all(SECRET not in file.read_text() for file in (tmp_path / "audit").iterdir())
