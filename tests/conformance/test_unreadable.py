"""One session that cannot be read: who goes through all of them goes on, names it, and destroys nothing."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import create_engine, text

from inturn.errors import InvalidInputError, StoreError
from inturn.keyring import KeyRing
from inturn.people import messages_of, sessions_of
from inturn.persistence import EncryptedAdapter, MessageQuery, PersistenceAdapter, SessionQuery, open_adapter
from inturn.persistence.archiving import ArchivingAdapter
from inturn.persistence.exporting import SessionExport, read_export
from inturn.persistence.memory import MemoryAdapter
from inturn.persistence.rotation import count_keys, rotate
from inturn.session.state import UnreadableSession, create_message, create_session
from tests.keys import keys_of

LOST, KEPT, NEW = ({name: name.encode() * 8} for name in ("lost", "kept", "new."))
IDS = ["s0", "s1", "s2"]

Damage = Callable[[str], None]


@pytest.fixture(params=["memory", "sqlite", "sqlalchemy", "postgresql", "redis"])
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[PersistenceAdapter, Damage]]:
    """A store of each kind, and what spoils the state of a session in it."""
    kind = request.param
    if kind == "redis":
        url, prefix = request.getfixturevalue("redis_url"), f"inturn-test-{secrets.token_hex(4)}:"
        with open_adapter(url, key_prefix=prefix) as store, Redis.from_url(url) as redis:
            yield store, lambda session_id: spoil_redis(redis, prefix, session_id)
            redis.unlink(*keys_of(redis, prefix))
        return
    if kind == "memory":
        with MemoryAdapter() as memory:
            yield memory, lambda session_id: memory._sessions[session_id].update(state='{"metadata": 5}')
        return
    url = f"sqlite:///{tmp_path}/sessions.db"
    if kind == "postgresql":
        url = request.getfixturevalue("database_url")
        table = f"s_{secrets.token_hex(6)}"
        options: dict[str, Any] = {"tables": {"sessions": table}}
    else:
        options, table = {}, "agent_sessions"
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))

    def spoil(session_id: str) -> None:
        with engine.begin() as connection:
            statement = text(f"UPDATE {table} SET state = '{{\"metadata\": 5}}' WHERE id = :id")
            connection.execute(statement, {"id": session_id})

    with open_adapter(f"sqlalchemy+{url}" if kind == "sqlalchemy" else url, **options) as store:
        yield store, spoil
    if kind == "postgresql":
        with engine.begin() as connection:
            for name in (f"{table}_messages", f"{table}_turns", table):
                connection.execute(text(f"DROP TABLE {name}"))
    engine.dispose()


def spoil_redis(redis: Redis, prefix: str, session_id: str) -> None:
    for key in keys_of(redis, prefix):
        if redis.type(key) == b"hash":
            for field, value in list(redis.hgetall(key).items()):
                if f'"{session_id}"'.encode() in value and b'"state"' in value:
                    row = json.loads(value)
                    row["state"] = '{"metadata": 5}'
                    redis.hset(key, field, json.dumps(row))


def fill(store: PersistenceAdapter) -> None:
    for session_id in IDS:
        line = create_message(session_id, "user", "hello", user_id="ann")
        store.commit(create_session(session_id, user_id="ann", data={"a": 1}), [line], expected_version=0)


def test_a_list_raises_unless_it_is_told_to_go_on(damaged: tuple[PersistenceAdapter, Damage]) -> None:
    store, spoil = damaged
    fill(store)
    spoil("s1")

    with pytest.raises(StoreError, match="s1"):
        store.find_sessions(SessionQuery(user_id="ann"))
    for limit in (1, 10):
        found, cursor = [], None
        while True:
            query = SessionQuery(user_id="ann", order="oldest", limit=limit, cursor=cursor, unreadable=True)
            page = store.find_sessions(query)
            found += page.items
            if (cursor := page.cursor) is None:
                break
        assert [session.id for session in found] == IDS
        assert [isinstance(session, UnreadableSession) for session in found] == [False, True, False]
        assert (found[1].user_id, found[1].version, found[1].message_count) == ("ann", 1, 1)


def test_what_could_not_be_read_is_not_written_over(damaged: tuple[PersistenceAdapter, Damage]) -> None:
    store, spoil = damaged
    fill(store)
    spoil("s1")
    (unreadable,) = (
        session
        for session in store.find_sessions(SessionQuery(user_id="ann", unreadable=True)).items
        if session.id == "s1"
    )

    with pytest.raises(InvalidInputError, match="could not be read"):
        store.commit(unreadable, expected_version=unreadable.version)
    if store.supports_rewriting:
        with pytest.raises(InvalidInputError, match="could not be read"):
            store.rewrite(unreadable)
    with pytest.raises(StoreError):
        store.load("s1")


def test_a_rotation_goes_on_and_names_it(damaged: tuple[PersistenceAdapter, Damage]) -> None:
    store, spoil = damaged
    fill(store)
    spoil("s1")
    told: list[str] = []

    done = rotate(store, KeyRing(NEW), tell=lambda session_id, _error: told.append(session_id))

    assert (done.sessions, done.unreadable, done.finished, told) == (3, 1, True, ["s1"])
    use = count_keys(store)
    assert use.unreadable == ["s1"]
    assert use.counts["new."]["sessions"] == 2
    assert sum(isinstance(each, UnreadableSession) for each in sessions_of(store, "ann")) == 1


@pytest.fixture
def half_open() -> EncryptedAdapter:
    """A store of three sessions, whose second was sealed with a key that is lost."""
    inner = MemoryAdapter()
    for session_id in IDS:
        keys = KeyRing(LOST if session_id == "s1" else KEPT)
        line = create_message(session_id, "user", "hello", user_id="ann")
        EncryptedAdapter(inner, keys).commit(
            create_session(session_id, user_id="ann", data={"a": 1}), [line], expected_version=0
        )
    return EncryptedAdapter(inner, KeyRing(KEPT))


def test_a_lost_key_costs_a_list_its_own_sessions_and_no_other(half_open: EncryptedAdapter) -> None:
    found = list(sessions_of(half_open, "ann"))

    assert [session.data for session in found] == [{"a": 1}, {}, {"a": 1}]
    assert isinstance(found[1], UnreadableSession)
    assert "'lost'" in found[1].reason
    with pytest.raises(StoreError):
        half_open.find_sessions(SessionQuery(user_id="ann"))
    with pytest.raises(InvalidInputError, match="could not be read"):
        half_open.commit(found[1], expected_version=1)


def test_an_export_leaves_out_what_it_cannot_read_and_says_so(
    half_open: EncryptedAdapter, tmp_path: Path
) -> None:
    # The session's row was sealed anew since, its message was not.
    stored = half_open.inner.load("s1")
    assert stored is not None
    plain = stored.session.model_copy(update={"data": {"a": 1}})
    half_open.commit(plain, expected_version=1)
    selected = half_open.find_sessions(SessionQuery(order="oldest")).items

    written = SessionExport(str(tmp_path)).write(half_open, selected)

    assert list(written.unreadable) == ["s1"]
    assert [each.session.id for each in read_export(written.path)] == ["s0", "s2"]
    with pytest.raises(StoreError):
        list(messages_of(half_open, MessageQuery(session_id="s1")))


def test_an_archive_catches_up_with_the_others() -> None:
    hot, archive = MemoryAdapter(), MemoryAdapter()
    fill(hot)
    hot._sessions["s1"].update(state='{"metadata": 5}')
    store = ArchivingAdapter(hot, archive)
    store.initialize()

    done = store.catch_up()

    assert (done.checked, done.copied, done.failed, done.finished) == (3, 2, 1, True)
    assert archive.load("s2") is not None
