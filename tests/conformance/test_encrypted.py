"""EncryptedAdapter keeps the contract of the store within, which never sees what was said."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from inturn.errors import EncryptionKeyError
from inturn.keyring import KeyRing, create_key
from inturn.persistence import (
    EncryptedAdapter,
    MemoryAdapter,
    MessageQuery,
    PersistenceAdapter,
    SessionQuery,
    SQLiteAdapter,
    Target,
    open_adapter,
)
from inturn.persistence.opening import open_store
from inturn.session import SessionState
from inturn.session.state import (
    Delivery,
    RouteRef,
    Summary,
    TurnRecord,
    create_message,
    create_session,
)
from inturn.settings import Settings, load_settings
from inturn.testing.conformance import AdapterConformance
from inturn.testing.conformance.base import Reopen, loaded, message, new_session, recommit, saved, turn

OLD, NEW = KeyRing({"old": b"1" * 32}), KeyRing({"new": b"2" * 32, "old": b"1" * 32})
ANOTHER = KeyRing({"old": b"3" * 32})
KEY = create_key("test")
MARKER = "Zwetschgenkuchen"


class TestEncryptedMemory(AdapterConformance):
    @pytest.fixture
    def adapter(self) -> PersistenceAdapter:
        return EncryptedAdapter(MemoryAdapter(), OLD)


@pytest.mark.variant
class TestEncryptedSQLite(AdapterConformance):
    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Reopen:
        return functools.partial(open_store, encrypted_at(f"sqlite:///{tmp_path}/sessions.db"))

    @pytest.fixture
    def adapter(self, reopen: Reopen) -> Iterator[PersistenceAdapter]:
        with reopen() as adapter:
            yield adapter


@pytest.mark.variant
class TestEncryptedPostgreSQL(AdapterConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, schema_url: str) -> Iterator[PersistenceAdapter]:
        with open_store(encrypted_at(schema_url)) as adapter:
            yield adapter

    @pytest.fixture
    def reopen(self, schema_url: str) -> Reopen:
        return functools.partial(open_store, encrypted_at(schema_url))


def encrypted_at(url: str) -> Settings:
    return load_settings(database_url=url, encryption_keys=KEY, database_pool=4)


def write_everywhere(adapter: PersistenceAdapter, session_id: str = "marked") -> SessionState:
    """Commit a session with the marker in every field that may hold what somebody said."""
    said: dict[str, Any] = {MARKER: MARKER}
    session = create_session(
        session_id,
        user_id="user-1",
        agent_name="Baker",
        data=said,
        data_by_route={"order": said},
        pending=said,
        journal={"turn-1": said},
        metadata=said,
        summary=Summary(text=MARKER, through=1),
        outbox={"turn-1": Delivery(channel="sms", address=said, error=MARKER)},
        current_route=RouteRef(id="order"),
        history=[{"role": "user", "content": MARKER}],
    )
    lines = [
        create_message(
            session_id,
            "user",
            f"one {MARKER}, please",
            name=MARKER,
            event=said,
            turn_id="turn-1",
            user_id="user-1",
        ),
        create_message(session_id, "assistant", MARKER, tool_calls=[said], turn_id="turn-1"),
    ]
    record = TurnRecord(session_id=session_id, turn_id="turn-1", result={"message": MARKER})
    return adapter.commit(session, lines, expected_version=0, turn=record).session


def test_nothing_that_was_said_is_in_the_file_of_sqlite(tmp_path: Path) -> None:
    settings = encrypted_at(f"sqlite:///{tmp_path}/sessions.db")
    with open_store(settings) as adapter:
        session = write_everywhere(adapter)
        recommit(adapter, session, message(session.id, MARKER))
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"user-1" in written
    assert MARKER.encode() not in written
    with open_store(settings) as adapter:
        assert loaded(adapter, session.id).messages[0].content == f"one {MARKER}, please"


def test_nothing_that_was_said_is_in_any_row_of_postgresql(schema_url: str, schema: str) -> None:
    with open_store(encrypted_at(schema_url)) as adapter:
        write_everywhere(adapter)
    rows = []
    with psycopg.connect(schema_url) as connection:
        for table in ("agent_sessions", "agent_messages", "agent_turns"):
            query = sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(schema, table))
            rows += [row for (row,) in connection.execute(query)]
    assert len(rows) == 4
    assert all("marked" in row and MARKER not in row for row in rows)


def test_what_was_sealed_comes_back_as_it_was() -> None:
    plain, sealed = MemoryAdapter(), EncryptedAdapter(MemoryAdapter(), OLD)
    own = {"created_at", "updated_at", "changed_at", "last_message_at"}
    found = []
    for adapter in (plain, sealed):
        write_everywhere(adapter)
        there = loaded(adapter, "marked", "turn-1")
        assert there.turn is not None
        state = there.session.model_dump(exclude=own)
        state["outbox"]["turn-1"].pop("changed_at")
        state["current_route"].pop("entered_at")
        messages = [item.model_dump(exclude={"id", "created_at"}) for item in there.messages]
        found.append((state, messages, there.turn.result))
    assert found[0] == found[1]


def test_what_is_found_and_ordered_by_stays_readable() -> None:
    inner = MemoryAdapter()
    adapter = EncryptedAdapter(inner, OLD)
    write_everywhere(adapter)
    (row,) = inner.get_snapshot()["sessions"]
    readable = (row["user_id"], row["agent_name"], row["status"], row["current_route"], row["message_count"])
    assert readable == ("user-1", "Baker", "active", "order", 2)
    assert [item.id for item in adapter.find_sessions(SessionQuery(user_id="user-1")).items] == ["marked"]
    (found,) = adapter.find_messages(MessageQuery(user_id="user-1")).items
    assert found.content == f"one {MARKER}, please"


def test_what_was_written_before_there_were_keys_is_read_and_sealed_by_its_next_write() -> None:
    inner = MemoryAdapter()
    session = saved(inner, 1, data={"cake": MARKER})
    adapter = EncryptedAdapter(inner, OLD)
    found = loaded(adapter, session.id)
    assert (found.session, found.messages[0].content) == (session, "1")
    recommit(adapter, found.session, message(session.id, MARKER))
    assert MARKER not in str(inner.get_snapshot()["sessions"])
    assert [item.content for item in loaded(adapter, session.id).messages] == ["1", MARKER]


def test_one_key_seals_and_all_of_them_open() -> None:
    inner = MemoryAdapter()
    session = write_everywhere(EncryptedAdapter(inner, OLD))
    adapter = EncryptedAdapter(inner, NEW)
    recommit(adapter, loaded(adapter, session.id).session, message(session.id, MARKER))
    assert "v1:new:" in str(inner.get_snapshot()["sessions"])
    kinds = [str(row["event"]).split(":")[2] for row in inner.get_snapshot()["messages"]]
    assert kinds == ["old", "old", "new"]
    assert len(loaded(adapter, session.id, "turn-1").messages) == 3


@pytest.mark.parametrize("keys", [KeyRing(), ANOTHER, KeyRing({"new": b"2" * 32})], ids=str)
def test_what_cannot_be_opened_is_refused_and_stays(keys: KeyRing) -> None:
    inner = MemoryAdapter()
    write_everywhere(EncryptedAdapter(inner, OLD))
    before = inner.get_snapshot()
    adapter = EncryptedAdapter(inner, keys)
    late = TurnRecord(session_id="marked", turn_id="turn-1", result={})
    for call in (
        lambda: adapter.load("marked"),
        lambda: adapter.find_sessions(SessionQuery()),
        lambda: adapter.find_messages(MessageQuery(session_id="marked")),
        lambda: adapter.commit(create_session("marked"), expected_version=0, turn=late),
    ):
        with pytest.raises(EncryptionKeyError, match=r"'marked' was sealed with .*'old'") as refusal:
            call()
        assert refusal.value.key_id == "old"
        assert MARKER not in str(refusal.value)
    assert inner.get_snapshot() == before
    assert adapter.delete_sessions([Target("marked")]) == ["marked"]


def test_a_sealed_value_opens_in_its_own_place_only() -> None:
    inner = MemoryAdapter()
    adapter = EncryptedAdapter(inner, OLD)
    for session_id in ("marked", "other"):
        write_everywhere(adapter, session_id)
    first, second = (
        inner.load(session_id, last_messages=2, turn_id="turn-1") for session_id in ("marked", "other")
    )
    assert first is not None
    assert second is not None
    recommit(inner, first.session.model_copy(update={"data": second.session.data}))
    with pytest.raises(EncryptionKeyError):
        adapter.load("marked")
    recommit(inner, first.session.model_copy(update={"version": 2}))
    assert adapter.load("marked") is not None
    asked, answered = first.messages
    for forged in (
        answered.model_copy(update={"event": asked.event}),
        asked.model_copy(update={"role": "system"}),
        asked.model_copy(update={"event": second.messages[0].event}),
        asked.model_copy(update={"event": first.session.data}),
    ):
        broken = EncryptedAdapter(forging(inner, forged), OLD)
        with pytest.raises(EncryptionKeyError):
            broken.find_messages(MessageQuery(session_id="marked"))


def forging(inner: MemoryAdapter, forged: Any) -> MemoryAdapter:
    """A copy of a store in which somebody has changed a message."""
    from inturn.persistence import rows

    copy = MemoryAdapter()
    copy._sessions, copy._turns = inner._sessions, inner._turns
    copy._messages = {
        session_id: [rows.message_row(forged) if row["id"] == forged.id else row for row in some]
        for session_id, some in inner._messages.items()
    }
    return copy


def test_two_values_of_one_text_have_nothing_in_common() -> None:
    sealed = {OLD.seal(b"the same", "s", "session") for _ in range(100)}
    assert len(sealed) == 100


def test_what_callers_may_expect_is_what_the_store_can_do(tmp_path: Path) -> None:
    class Searching(SQLiteAdapter):
        supports_search = True

    url = f"sqlite:///{tmp_path}/sessions.db"
    with EncryptedAdapter(Searching(url), OLD) as store:
        assert (store.durable, store.supports_search) == (True, False)
    with EncryptedAdapter(Searching(url), KeyRing()) as store:
        assert store.supports_search
    assert not EncryptedAdapter(MemoryAdapter(), OLD).durable


def test_without_keys_everything_passes_as_it_is(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/sessions.db"
    with open_store(load_settings(database_url=url)) as store:
        session = new_session(data={"cake": MARKER})
        record = turn(session.id, answer=MARKER)
        store.commit(session, [message(session.id, MARKER)], expected_version=0, turn=record)
        again = store.commit(session, expected_version=0, turn=record)
        assert (again.repeated, again.turn) == (True, record)
    with open_adapter(url) as plain:
        found = loaded(plain, session.id, record.turn_id)
        assert (found.session.data, found.messages[0].content) == ({"cake": MARKER}, MARKER)
