"""Retention: what is old goes, what is in use stays."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from inturn.client import Client
from inturn.contract import WAKE_SESSIONS, DeadLetter, TurnFault
from inturn.errors import StoreUnavailableError, TurnFailedError
from inturn.persistence import PersistenceAdapter, SessionQuery
from inturn.persistence.exporting import read_export
from inturn.retention import RetentionReport, RetentionRun
from inturn.session import create_session
from inturn.session.state import Delivery, Status, utcnow
from inturn.settings import Settings
from inturn.turns import DeadLetters, Deliveries, Mailbox
from inturn.turns.connection import connect
from inturn.turns.retention_runs import RetentionRuns
from tests.agents import read_journal
from tests.integration.worker.conftest import StartWorker
from tests.nodes import clean_environment
from tests.waiting import wait_until

pytestmark = pytest.mark.process

MAIN = "from inturn.cli import main; main()"
# Ages are seconds here: what counts is older or younger, not how much.
SOON = {
    "INTURN_COMPLETED_DAYS": str(2 / 86_400),
    "INTURN_ABANDONED_DAYS": str(3600 / 86_400),
    "INTURN_IDLE_DAYS": str(2 / 86_400),
}


def old_session(store: PersistenceAdapter, session_id: str, status: Status) -> None:
    session = create_session(session_id)
    session.set_status(status)
    store.commit(session, expected_version=0)


def ids(store: PersistenceAdapter) -> dict[str, str]:
    return {session.id: session.status for session in store.find_sessions(SessionQuery()).items}


def age(store: PersistenceAdapter) -> None:
    """Wait until all that is stored is older than two seconds."""
    newest = store.find_sessions(SessionQuery(limit=1)).items[0].updated_at
    wait_until(lambda: utcnow() - newest > timedelta(seconds=2.2))


@pytest.mark.parametrize("store_kind", ["sqlite", "postgresql"])
def test_old_sessions_go_by_their_status_and_idle_ones_are_abandoned(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter
) -> None:
    start_worker(**SOON)
    for number in range(5):
        old_session(store, f"completed-{number}", "completed")
    old_session(store, "abandoned", "abandoned")
    old_session(store, "idle", "active")
    age(store)
    old_session(store, "new", "completed")

    planned = client.cleanup_sessions(dry_run=True).get(timeout=30)
    assert len(ids(store)) == 8, "a dry run changes nothing"
    report = client.cleanup_sessions().get(timeout=30)

    counts = {
        "abandoned": 1,
        "deleted": {"completed": 5, "abandoned": 0},
        "messages": 0,
        "exported": 0,
        "skipped": 0,
        "finished": True,
    }
    assert {name: report[name] for name in counts} == counts
    assert {name: planned[name] for name in counts} == counts
    assert (report["dry_run"], planned["dry_run"]) == (False, True)
    assert ids(store) == {"abandoned": "abandoned", "idle": "abandoned", "new": "completed"}


def test_a_session_that_cannot_be_read_stays_and_the_others_go(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, store_url: str
) -> None:
    start_worker(**SOON)
    for number in range(3):
        old_session(store, f"completed-{number}", "completed")
    age(store)
    with sqlite3.connect(store_url.removeprefix("sqlite:///")) as rows:
        rows.execute("UPDATE agent_sessions SET state = '{' WHERE id = 'completed-1'")

    report = client.cleanup_sessions().get(timeout=30)

    assert (report["deleted"]["completed"], report["unreadable"], report["finished"]) == (2, 1, True)
    assert report["unreadable_sessions"] == ["completed-1"]
    found = store.find_sessions(SessionQuery(unreadable=True)).items
    assert [session.id for session in found] == ["completed-1"]


def test_a_session_with_a_turn_stays(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, journal: Path
) -> None:
    start_worker(**SOON)
    for session_id in ("busy", "quiet"):
        old_session(store, session_id, "completed")
    age(store)
    running = client.respond("busy", "sleep 3")
    wait_until(lambda: read_journal(journal))

    report = client.cleanup_sessions().get(timeout=30)

    assert (report["deleted"]["completed"], report["skipped"]) == (1, 1)
    assert running.get(timeout=30).message == "you said: sleep 3"
    assert list(ids(store)) == ["busy"]


def test_a_session_with_a_reply_that_waits_to_go_out_stays(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, turn_settings: Settings
) -> None:
    start_worker(**SOON)
    for session_id in ("waiting", "quiet"):
        old_session(store, session_id, "completed")
    age(store)
    with connect(turn_settings) as redis:
        deliveries = Deliveries(redis, turn_settings)
        # In somebody's hand, so that the worker of this test leaves it alone.
        deliveries.offer("waiting", "waiting:1", "slack")
        deliveries.mailbox.begin("waiting", "", "somebody")

        report = client.cleanup_sessions().get(timeout=30)

    assert (report["deleted"]["completed"], report["skipped"]) == (1, 1)
    assert list(ids(store)) == ["waiting"]


def test_a_session_whose_user_has_said_stop_stays(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter
) -> None:
    start_worker(**SOON, TWILIO_ACCOUNT_SID="AC1", TWILIO_AUTH_TOKEN="a-token")
    for session_id, metadata in (("stopped", {"sms_opt_out": True}), ("quiet", {"sms_opt_out": False})):
        session = create_session(session_id, metadata=metadata)
        session.set_status("completed")
        store.commit(session, expected_version=0)
    age(store)

    report = client.cleanup_sessions().get(timeout=30)

    assert (report["deleted"]["completed"], report["skipped"]) == (1, 1)
    assert list(ids(store)) == ["stopped"]


def test_waking_by_hand_finds_what_the_broker_lost(
    start_worker: StartWorker, client: Client, mailbox: Mailbox, broker_url: str
) -> None:
    # Its own sweeper is far away: only the task can have woken the session.
    start_worker(INTURN_SWEEP_SECONDS="1000", INTURN_GRACE_SECONDS="1000")
    begun = mailbox.begin("s", "s:1", "dead", payload='{"kind":"respond","session_id":"s","message":"hi"}')
    assert begun.lease is not None
    mailbox.release(begun.lease, delay=0.01)

    with Celery(broker=broker_url, backend=broker_url) as bare:

        def woken() -> Any:
            return bare.send_task(WAKE_SESSIONS, queue="maintenance").get(timeout=30)

        assert wait_until(woken) == 1
    assert client.handle("s", "1").get(timeout=30).message == "you said: hi"


def test_sessions_of_an_agent_and_of_a_channel_have_ages_of_their_own(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter
) -> None:
    start_worker(
        **SOON, INTURN_RETENTION="agent:support completed=1h, channel:sms completed=never, abandoned=1s"
    )
    for session_id, agent, status in (
        ("booking", "booking", "completed"),
        ("support", "support", "completed"),
        ("sms:AC1:+1:+2", "booking", "completed"),
        ("given-up", "booking", "abandoned"),
        ("inturn:erased:user:1", "inturn", "completed"),
    ):
        session = create_session(session_id, agent_name=agent)
        session.set_status(status)  # type: ignore[arg-type]
        store.commit(session, expected_version=0)
    age(store)

    report = client.cleanup_sessions().get(timeout=30)

    assert (report["deleted"], report["skipped"]) == ({"completed": 1, "abandoned": 1}, 0)
    assert sorted(ids(store)) == ["inturn:erased:user:1", "sms:AC1:+1:+2", "support"], (
        "ours is no conversation"
    )


def test_sessions_that_stay_hide_none_behind_them(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter
) -> None:
    start_worker(**SOON, INTURN_RETENTION="agent:support completed=1h")
    for number in range(450):
        session = create_session(f"{number:03}", agent_name="booking" if number == 449 else "support")
        session.set_status("completed")
        store.commit(session, expected_version=0)
    age(store)

    report = client.cleanup_sessions().get(timeout=60)

    assert report["deleted"]["completed"] == 1
    assert store.load("449") is None
    assert store.load("448") is not None


def test_what_redis_knows_of_a_session_goes_with_it(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, turn_settings: Settings
) -> None:
    start_worker(**SOON, INTURN_MAX_ATTEMPTS="1")
    for session_id in ("old", "new"):
        handle = client.respond(session_id, f"marker {session_id}", stream=True)
        assert "marker" in handle.get(timeout=30).message
        failing = client.respond(session_id, f"refused marker {session_id}")
        with pytest.raises(TurnFailedError):
            failing.get(timeout=30)
    with connect(turn_settings) as redis:
        outcomes = Deliveries(redis, turn_settings).outcomes
        for session_id in ("old", "new"):
            outcomes.note(session_id, f"{session_id}:1", Delivery(channel="slack", state="unknown"))
        client.save_session("old", status="completed").get(timeout=30)
        age(store)

        report = client.cleanup_sessions().get(timeout=30)

        assert report["deleted"]["completed"] == 1
        kept = everything(redis)
        assert [view.session_id for view in outcomes.read()] == ["new"]
    assert not [key for key, text in kept.items() if "marker old" in text]
    assert not [key for key in kept if "old" in key and ":d:old" not in key], (
        "but for the IDs of what is done"
    )
    assert len([key for key, text in kept.items() if "marker new" in text]) >= 3, "others keep theirs"
    assert [letter.session_id for letter in client.dead.find()] == ["new"]


def test_sessions_are_exported_before_they_are_deleted(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, tmp_path: Path
) -> None:
    start_worker(**SOON, INTURN_RETENTION_EXPORT=str(tmp_path / "exports"))
    client.respond("s", "hello").get(timeout=30)
    client.save_session("s", status="completed", data={"name": "Zoë"}).get(timeout=30)
    age(store)

    report = client.cleanup_sessions().get(timeout=30)

    assert (report["deleted"]["completed"], report["exported"], report["messages"]) == (1, 1, 2)
    assert not ids(store)
    (path,) = (tmp_path / "exports").iterdir()
    (exported,) = read_export(path)
    assert exported.session.data == {"name": "Zoë"}
    assert [message.content for message in exported.messages] == ["hello", "you said: hello"]


def test_where_no_export_can_be_written_nothing_is_deleted(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    start_worker(**SOON, INTURN_RETENTION_EXPORT=str(tmp_path / "file"))
    old_session(store, "s", "completed")
    age(store)

    with pytest.raises(StoreUnavailableError, match="INTURN_RETENTION_EXPORT"):
        client.cleanup_sessions().get(timeout=30)
    assert list(ids(store)) == ["s"]


def test_a_run_goes_on_where_another_process_died(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, turn_settings: Settings
) -> None:
    start_worker(**SOON)
    for number in range(3):
        old_session(store, f"s{number}", "completed")
    age(store)
    first = store.find_sessions(SessionQuery(order="oldest", limit=1))
    with connect(turn_settings) as redis:
        letters = DeadLetters(redis, turn_settings)
        letters.put(dead_letter("gone"), "what was said")
        runs = RetentionRuns(redis, turn_settings)
        with runs.alone() as save:
            assert save is not None
            report = RetentionReport(abandoned=7)
            save(RetentionRun(report=report, cursor=first.cursor, doomed={"gone": ["gone:1"]}))

            busy = client.cleanup_sessions().get(timeout=30)
            assert (busy["abandoned"], busy["finished"], len(ids(store))) == (7, False, 3)
        ended = client.cleanup_sessions().get(timeout=30)

        assert ended["deleted"] == {"completed": 3, "abandoned": 0}, (
            "one that was gone, and two behind the first"
        )
        assert (ended["abandoned"], ended["finished"]) == (7, True)
        assert list(ids(store)) == ["s0"], "the page before was done"
        assert list(letters.letters()) == []
        assert runs.unfinished() is None
        assert [each.model_dump(mode="json") for each in runs.reports()] == [ended]


def test_a_run_that_takes_longer_goes_on_in_further_tasks(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, turn_settings: Settings
) -> None:
    start_worker(app="tests.integration.worker.hasty", **SOON)
    for number in range(450):
        old_session(store, f"{number:03}", "completed")
    age(store)

    first = client.cleanup_sessions().get(timeout=30)

    assert not first["finished"]
    with connect(turn_settings) as redis:
        runs = RetentionRuns(redis, turn_settings)
        (report,) = wait_until(runs.reports, timeout=90)
    assert (report.deleted["completed"], report.skipped) == (450, 0)
    assert report.started_at.isoformat() == first["started_at"].replace("Z", "+00:00")
    assert not ids(store)


def test_the_command_runs_retention_and_shows_what_was_done(
    start_worker: StartWorker, store: PersistenceAdapter, worker_env: dict[str, str]
) -> None:
    start_worker(**SOON)
    old_session(store, "s", "completed")
    age(store)

    def run(*arguments: str) -> Any:
        command = [sys.executable, "-c", MAIN, "retention", *arguments, "--json"]
        done = subprocess.run(
            command, env={**clean_environment(), **worker_env}, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout else None

    assert run("list") is None
    assert run("run", "--dry-run")["deleted"] == {"completed": 1, "abandoned": 0}
    assert list(ids(store)) == ["s"]
    report = run("run")
    assert (report["deleted"], report["finished"]) == ({"completed": 1, "abandoned": 0}, True)
    assert run("list") == report, "a dry run is not kept"


def dead_letter(session_id: str) -> DeadLetter:
    return DeadLetter(
        session_id=session_id,
        turn_id=f"{session_id}:1",
        kind="respond",
        error=TurnFault(type="ProviderError", message=""),
        failed_at=utcnow(),
    )


def everything(redis: Any) -> dict[str, str]:
    """All that Redis holds, as text."""
    read = {
        "string": redis.get,
        "hash": redis.hgetall,
        "list": lambda key: redis.lrange(key, 0, -1),
        "set": redis.smembers,
        "zset": lambda key: redis.zrange(key, 0, -1),
        "stream": redis.xrange,
    }
    # A key that went while we looked has the type "none".
    return {key: str(read.get(redis.type(key), str)(key)) for key in redis.scan_iter()}
