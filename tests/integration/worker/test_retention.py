"""Retention: what is old goes, what is in use stays."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from inturn.client import Client
from inturn.contract import WAKE_SESSIONS
from inturn.persistence import PersistenceAdapter, SessionQuery
from inturn.session import create_session
from inturn.session.state import Status, utcnow
from inturn.settings import Settings
from inturn.turns import Deliveries, Mailbox
from inturn.turns.connection import connect
from tests.agents import read_journal
from tests.integration.worker.conftest import StartWorker
from tests.waiting import wait_until

pytestmark = pytest.mark.process

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

    assert report == {
        "abandoned": 1,
        "deleted": {"completed": 5, "abandoned": 0},
        "skipped": 0,
        "dry_run": False,
        "finished": True,
    }
    assert planned == {**report, "dry_run": True}
    assert ids(store) == {"abandoned": "abandoned", "idle": "abandoned", "new": "completed"}


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
