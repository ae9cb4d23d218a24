"""Rotation: everything is sealed with the newest key, beside running turns, however often it stops."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from redis import Redis
from structlog.testing import capture_logs

from inturn.errors import ConfigurationError, SessionConflictError
from inturn.keyring import KeyRing
from inturn.persistence import (
    EncryptedAdapter,
    MemoryAdapter,
    MessageQuery,
    PersistenceAdapter,
    SessionQuery,
    open_adapter,
)
from inturn.persistence.rotation import Kind, Rotated, count_keys, rotate
from inturn.session import SessionState
from inturn.testing.conformance.base import everything, loaded, message, messages, new_session, turn
from tests.keys import keys_of
from tests.servers_mongodb import mongodb
from tests.servers_opensearch import opensearch

KEYS = {"new": b"2" * 32, "old": b"1" * 32}
OLD, BOTH, NEW = KeyRing({"old": KEYS["old"]}), KeyRing(KEYS), KeyRing({"new": KEYS["new"]})


@pytest.fixture(scope="module")
def mongodb_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mongodb(tmp_path_factory.mktemp("mongodb")) as url:
        yield url


@pytest.fixture(scope="module")
def opensearch_url() -> Iterator[str]:
    with opensearch() as url:
        yield url


@pytest.fixture(params=["memory", "sqlite", "postgresql", "sqlalchemy", "redis", "mongodb", "opensearch"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PersistenceAdapter]:
    """A store of each kind that can rewrite, with nothing in it."""
    kind = request.param
    options: dict[str, Any] = {}
    if kind == "memory":
        url = "memory://"
    elif kind == "postgresql":
        # Its tables have names of their own: the class has one schema for all tests.
        url = request.getfixturevalue("database_url")
        options = {"tables": {"sessions": f"s_{secrets.token_hex(6)}"}}
    elif kind == "mongodb":
        url = request.getfixturevalue("mongodb_url")
        options = {"database_name": f"inturn_test_{secrets.token_hex(4)}"}
    elif kind == "opensearch":
        url = request.getfixturevalue("opensearch_url")
        options = {"indices": {"sessions": f"inturn-test-{secrets.token_hex(4)}"}}
    elif kind == "redis":
        url = request.getfixturevalue("redis_url")
        options = {"key_prefix": f"inturn-test-{secrets.token_hex(4)}:"}
    else:
        url = f"{'sqlalchemy+' if kind == 'sqlalchemy' else ''}sqlite:///{tmp_path}/sessions.db"
    with open_adapter(url, **options) as store:
        yield store
    if kind == "redis":
        with Redis.from_url(url) as client:
            client.unlink(*keys_of(client, options["key_prefix"]))
    elif kind == "mongodb":
        with MongoClient[dict[str, Any]](url) as client:
            client.drop_database(options["database_name"])
    elif kind == "postgresql":
        drop(url, options["tables"]["sessions"])


def drop(url: str, name: str) -> None:
    import psycopg
    from psycopg import sql

    with psycopg.connect(url, autocommit=True) as connection:
        for table in (f"{name}_messages", f"{name}_turns", name):
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(table)))


def write(adapter: PersistenceAdapter, lines: int = 3) -> SessionState:
    session = new_session(data={"number": lines})
    record = turn(session.id, "first", lines=lines)
    return adapter.commit(session, messages(session.id, lines), expected_version=0, turn=record).session


def in_use(store: PersistenceAdapter) -> dict[str | None, dict[Kind, int]]:
    return {key_id: dict(counts) for key_id, counts in count_keys(store).counts.items()}


def test_everything_is_sealed_with_the_newest_key_and_nothing_else_changes(store: PersistenceAdapter) -> None:
    sessions = [write(EncryptedAdapter(store, OLD)), write(store, 0), write(EncryptedAdapter(store, NEW))]
    before = [everything(EncryptedAdapter(store, BOTH), session.id) for session in sessions]
    listed = EncryptedAdapter(store, BOTH).find_sessions(SessionQuery(order="oldest")).items
    assert in_use(store) == {
        "old": {"sessions": 1, "messages": 3, "turns": 1},
        None: {"sessions": 1, "turns": 1},
        "new": {"sessions": 1, "messages": 3, "turns": 1},
    }

    assert rotate(store, BOTH)[:3] == (3, 7, 0)
    assert in_use(store) == {"new": {"sessions": 3, "messages": 6, "turns": 3}}
    newest = EncryptedAdapter(store, NEW)
    assert [everything(newest, session.id) for session in sessions] == before
    assert newest.find_sessions(SessionQuery(order="oldest")).items == listed
    for session, lines in zip(sessions, (3, 0, 3), strict=True):
        found = loaded(newest, session.id, "first").turn
        assert found is not None
        assert found.result == {"lines": lines}
    assert rotate(store, BOTH)[:3] == (3, 0, 0)


def test_a_rotation_goes_on_where_it_stopped(store: PersistenceAdapter) -> None:
    adapter = EncryptedAdapter(store, OLD)
    for _ in range(44):
        write(adapter, 1)
    long = write(adapter, 450)
    runs: list[Rotated] = []
    cursor = None
    while not runs or cursor is not None:
        run = rotate(store, BOTH, cursor=cursor, seconds=0)
        runs.append(run)
        cursor = run.cursor
        assert run.finished == (cursor is None)
    assert [run.sessions for run in runs] == [20, 20, 5]
    assert in_use(store) == {"new": {"sessions": 45, "messages": 494, "turns": 45}}
    assert sum(run.rewritten for run in runs) == 45 + 494 + 45
    found = EncryptedAdapter(store, NEW).find_messages(MessageQuery(session_id=long.id, limit=1000)).items
    assert [item.content for item in found] == [str(number) for number in range(1, 451)]


def test_turns_that_run_meanwhile_meet_no_conflict_and_lose_nothing(store: PersistenceAdapter) -> None:
    sessions = [write(EncryptedAdapter(store, OLD)) for _ in range(3)]
    done = threading.Event()
    conflicts: list[SessionConflictError] = []

    def talk() -> None:
        adapter = EncryptedAdapter(store, BOTH)
        try:
            for number in range(15):
                for session in sessions:
                    found = loaded(adapter, session.id).session
                    found.data["last"] = number
                    line = message(session.id, f"turn {number}")
                    record = turn(session.id, f"turn {number}", number=number)
                    adapter.commit(found, [line], expected_version=found.version, turn=record)
        except SessionConflictError as error:
            conflicts.append(error)
        finally:
            done.set()

    talking = threading.Thread(target=talk)
    talking.start()
    while not done.is_set():
        rotate(store, BOTH)
    talking.join()
    assert conflicts == []
    rotate(store, BOTH)
    newest = EncryptedAdapter(store, NEW)
    for session in sessions:
        found = loaded(newest, session.id, "turn 14")
        said = [item.content for item in found.messages]
        assert said == ["1", "2", "3", *(f"turn {number}" for number in range(15))]
        assert found.session.data["last"] == 14
        assert found.turn is not None
    assert in_use(store).keys() == {"new"}


def test_what_cannot_be_opened_stays_and_is_named() -> None:
    store = MemoryAdapter()
    lost = write(EncryptedAdapter(store, KeyRing({"lost": b"3" * 32})))
    write(EncryptedAdapter(store, OLD))
    kept = everything(store, lost.id)
    with capture_logs() as logs:
        assert rotate(store, BOTH)[:3] == (2, 5, 1)
    assert [line["session_id"] for line in logs] == [lost.id]
    assert "'lost'" in logs[0]["error"]
    assert everything(store, lost.id) == kept
    assert in_use(store)["lost"] == {"sessions": 1, "messages": 3, "turns": 1}


def test_without_keys_or_in_a_store_that_cannot_rewrite_it_says_so() -> None:
    class Rigid(MemoryAdapter):
        supports_rewriting = False

    store = Rigid()
    write(EncryptedAdapter(store, OLD))
    with pytest.raises(ConfigurationError, match="Rigid cannot change in place"):
        rotate(store, BOTH)
    with pytest.raises(ConfigurationError, match="inturn keys new"):
        rotate(MemoryAdapter(), KeyRing())
    assert in_use(store) == {"old": {"sessions": 1, "messages": 3}}
