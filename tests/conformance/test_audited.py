"""AuditedAdapter keeps the contract of what it stands around, and records who did what."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inturn.audit import acting_as, exporting
from inturn.audit.log import AuditLog
from inturn.audit.reading import read_audit_log, verify_audit_log
from inturn.errors import (
    AuditUnavailableError,
    InvalidInputError,
    SessionConflictError,
    StoreUnavailableError,
)
from inturn.persistence import (
    AuditedAdapter,
    MemoryAdapter,
    MessageQuery,
    PersistenceAdapter,
    SessionQuery,
)
from inturn.persistence.adapter import Target
from inturn.persistence.opening import open_store
from inturn.session.state import create_session
from inturn.settings import load_settings
from inturn.testing.conformance import AdapterConformance
from inturn.testing.conformance.base import Reopen, message, saved, turn


class TestAuditedSQLite(AdapterConformance):
    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Reopen:
        settings = load_settings(
            database_url=f"sqlite:///{tmp_path}/sessions.db", audit_log=tmp_path / "audit"
        )
        return functools.partial(open_store, settings)

    @pytest.fixture
    def adapter(self, reopen: Reopen, tmp_path: Path) -> Iterator[PersistenceAdapter]:
        with reopen() as adapter:
            yield adapter
        assert verify_audit_log(tmp_path / "audit").broken == []


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def store(directory: Path) -> Iterator[AuditedAdapter]:
    with AuditedAdapter(MemoryAdapter(), AuditLog(directory)) as adapter:
        yield adapter


def told(directory: Path, **which: Any) -> list[dict[str, Any]]:
    """The records, without what only a chain is about."""
    chained = ("at", "n", "prev", "hash", "sealed")
    return [
        {name: value for name, value in record.items() if name not in chained}
        for record in read_audit_log(directory, **which)
    ]


def test_a_read_is_recorded_with_its_actor(store: AuditedAdapter, directory: Path) -> None:
    session = saved(store.inner, 2, user_id="ann")

    with acting_as("key:backend"):
        store.load(session.id, last_messages=5, turn_id="t1")

    assert told(directory) == [
        {
            "action": "read",
            "actor": "key:backend",
            "call": "load",
            "messages": 2,
            "sessions": [session.id],
            "turn": "t1",
            "user": "ann",
        }
    ]


def test_a_change_is_recorded_with_the_version_it_follows(store: AuditedAdapter, directory: Path) -> None:
    session = create_session("s1", user_id="ann")

    with acting_as("worker:one"):
        store.commit(session, [message("s1")], expected_version=0, turn=turn("s1", "t1"))

    assert told(directory) == [
        {
            "action": "change",
            "actor": "worker:one",
            "call": "commit",
            "messages": 1,
            "sessions": ["s1"],
            "turn": "t1",
            "user": "ann",
            "version": 0,
        }
    ]


def test_a_change_that_came_to_nothing_is_told_to_have(store: AuditedAdapter, directory: Path) -> None:
    session = create_session("s1")
    store.commit(session, expected_version=0, turn=turn("s1", "t1"))

    store.commit(session, expected_version=0, turn=turn("s1", "t1"))
    with pytest.raises(SessionConflictError):
        store.commit(session, expected_version=7)

    assert [record.get("outcome") for record in told(directory)] == [
        None,
        None,
        "repeated",
        None,
        "SessionConflictError",
    ]


def test_lists_are_recorded_with_what_they_showed(store: AuditedAdapter, directory: Path) -> None:
    first, second = (saved(store.inner, 1, user_id="ann") for _ in range(2))

    store.find_sessions(SessionQuery(user_id="ann"))
    store.find_messages(MessageQuery(user_id="ann"))
    store.find_messages(MessageQuery(session_id=first.id))

    sessions, messages, of_one = told(directory)
    assert set(sessions["sessions"]) == {first.id, second.id}
    assert (sessions["user"], messages["user"]) == ("ann", "ann")
    assert of_one["sessions"] == [first.id]


def test_an_erasure_is_recorded_before_and_after(store: AuditedAdapter, directory: Path) -> None:
    session = saved(store.inner)

    store.delete_sessions([Target(session.id), Target("never was")])

    asked, done = told(directory)
    assert (asked["action"], asked["sessions"]) == ("erase", [session.id, "never was"])
    assert (done["sessions"], done["outcome"]) == ([session.id], "1 gone")


def test_what_is_read_to_leave_the_store_is_recorded_as_exported(
    store: AuditedAdapter, directory: Path
) -> None:
    with exporting():
        store.find_messages(MessageQuery(user_id="ann"))
    store.find_messages(MessageQuery(user_id="ann"))

    assert [record["action"] for record in told(directory)] == ["export", "read"]


def test_nothing_that_was_said_or_collected_is_in_the_log(store: AuditedAdapter, directory: Path) -> None:
    marker = "zebra-crossing"
    session = create_session("s1", user_id="ann", data={"note": marker})
    store.commit(session, [message("s1", marker)], expected_version=0, turn=turn("s1", "t1", reply=marker))
    store.load("s1", last_messages=5, turn_id="t1")
    store.find_messages(MessageQuery(session_id="s1"))
    store.find_sessions(SessionQuery(user_id="ann"))

    assert all(marker not in path.read_text() for path in directory.iterdir())


def test_hostile_ids_are_refused_before_they_are_recorded(store: AuditedAdapter, directory: Path) -> None:
    session = create_session("s1").model_copy(update={"id": {"$ne": None}})

    with pytest.raises(InvalidInputError):
        store.commit(session, expected_version=0)
    with pytest.raises(InvalidInputError):
        store.delete_sessions([Target("a\nb")])

    assert told(directory) == []


class TestAnUnwritableLog:
    @pytest.fixture
    def store(self, directory: Path) -> AuditedAdapter:
        # A file where the directory should be: so it is for root, too, who may write anywhere.
        directory.write_text("")
        return AuditedAdapter(MemoryAdapter(), AuditLog(directory))

    def test_nothing_is_written_without_a_record(self, store: AuditedAdapter) -> None:
        with pytest.raises(AuditUnavailableError, match="INTURN_AUDIT_LOG"):
            store.commit(create_session("s1"), expected_version=0)

        assert store.inner.load("s1") is None

    def test_nothing_is_handed_out_without_a_record(self, store: AuditedAdapter) -> None:
        session = saved(store.inner, 1)

        with pytest.raises(AuditUnavailableError):
            store.load(session.id)
        with pytest.raises(AuditUnavailableError):
            store.find_messages(MessageQuery(session_id=session.id))

    def test_nothing_is_erased_without_a_record(self, store: AuditedAdapter) -> None:
        session = saved(store.inner)

        with pytest.raises(AuditUnavailableError):
            store.delete_sessions([Target(session.id)])

        assert store.inner.load(session.id) is not None

    def test_it_is_found_out_at_the_start(self, store: AuditedAdapter) -> None:
        with pytest.raises(StoreUnavailableError):
            store.initialize()

    def test_all_goes_on_once_it_can_be_written(self, store: AuditedAdapter, directory: Path) -> None:
        with pytest.raises(AuditUnavailableError):
            store.load("s1")
        directory.unlink()

        assert store.load("s1") is None
        assert len(told(directory)) == 1


def test_without_the_setting_there_is_no_audit_log(tmp_path: Path) -> None:
    settings = load_settings(database_url=f"sqlite:///{tmp_path}/sessions.db")

    with open_store(settings) as store:
        assert not isinstance(store, AuditedAdapter)


def test_the_log_of_the_settings_is_sealed_with_their_key(tmp_path: Path, directory: Path) -> None:
    key = "a key of sixteen characters or more"
    settings = load_settings(
        database_url=f"sqlite:///{tmp_path}/sessions.db", audit_log=directory, audit_key=key
    )
    with open_store(settings) as store:
        store.load("s1")

    assert verify_audit_log(directory, key=key).broken == []
    assert key not in "".join(path.read_text() for path in directory.iterdir())
    (line,) = [json.loads(line) for line in next(directory.iterdir()).read_text().splitlines()][1:]
    assert line["sealed"] is True
