"""The faults of the seed's original in keeping sessions: none of them is ours. Each docstring names one.

In memory, SQLite and PostgreSQL; those of other backends are told with their adapters.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import BaseModel

from inturn import Agent, PersistenceManager, Route, SessionManager, Step
from inturn.agent import ModelRequest, ScriptedProvider
from inturn.errors import InvalidInputError, ProviderError, SessionConflictError, StoreUnavailableError
from inturn.persistence import (
    Committed,
    MemoryAdapter,
    PersistenceAdapter,
    PostgreSQLAdapter,
    SessionQuery,
    SQLiteAdapter,
)
from inturn.session import HistoryItem, Message, RouteRef, SessionState, StepRef, create_session
from inturn.session.state import utcnow
from tests.stores import TroubledStore

SAID = "x" * 200


class Order(BaseModel):
    item: str
    count: int | None = None


ROUTE = Route("Order", steps=[Step("What?", collect=["item"]), Step("How many?", collect=["count"])])


def agent(store: PersistenceAdapter | PersistenceManager, replies: Any = None, **options: Any) -> Agent:
    replies = replies or (lambda request: "Well?")
    return Agent(
        "Shop",
        provider=ScriptedProvider(replies),
        schema=Order,
        routes=[ROUTE],
        **{"persistence": store, "session_id": "s", **options},
    )


@pytest.fixture
def tables(database_url: str) -> Iterator[dict[str, str]]:
    """Names of tables in PostgreSQL that nobody else has."""
    prefix = f"faults_{secrets.token_hex(4)}"
    names = {each: f"{prefix}_{each}" for each in ("sessions", "messages", "turns")}
    yield names
    with psycopg.connect(database_url, autocommit=True) as connection:
        for name in ("turns", "messages", "sessions"):
            connection.execute(f"DROP TABLE IF EXISTS {names[name]}")


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PersistenceAdapter]:
    made: PersistenceAdapter
    if request.param == "memory":
        made = MemoryAdapter()
    elif request.param == "sqlite":
        made = SQLiteAdapter(f"sqlite:///{tmp_path}/sessions.db")
    else:
        url, names = request.getfixturevalue("database_url"), request.getfixturevalue("tables")
        made = PostgreSQLAdapter(url, tables=names, pool_size=8)
    with made:
        yield made


@pytest.fixture
def persistence(store: PersistenceAdapter) -> PersistenceManager:
    return PersistenceManager(store)


def stored(store: PersistenceAdapter, session_id: str = "s") -> SessionState:
    found = store.load(session_id)
    assert found is not None
    return found.session


def contents(store: PersistenceAdapter, session_id: str = "s") -> list[str]:
    found = PersistenceManager(store).find_messages_by_session_id(session_id, limit=None)
    return [message.content for message in found]


def with_history(store: PersistenceAdapter, count: int, session_id: str = "s") -> SessionState:
    session = create_session(session_id)
    some = [Message(session_id=session_id, role="user", content=f"{n} {SAID}") for n in range(count)]
    return store.commit(session, some, expected_version=0).session


class TestPromisedAndNeverThere:
    def test_the_seeds_finders_exist_and_filter(self, persistence: PersistenceManager) -> None:
        """The original's `findActiveSessionByUserId`, and the filters of `findSessionsByUserId`, were in its
        documentation only."""
        for status in ("active", "completed", "active"):
            session = persistence.create_session(user_id="ann")
            persistence.update_session_status(session.id, status)
        newest = persistence.find_sessions_by_user_id("ann")[0]

        assert persistence.find_active_session_by_user_id("ann") == newest
        assert len(persistence.find_sessions_by_user_id("ann", status="completed")) == 1
        assert len(persistence.find_sessions_by_user_id("ann", limit=2)) == 2
        assert persistence.find_sessions_by_user_id("ann", older_than=utcnow() - timedelta(days=1)) == []

    def test_a_partial_update_replaces_no_other_data(self, persistence: PersistenceManager) -> None:
        """The original's partial `updateCollectedData` replaced the whole blob: all other data was gone."""
        persistence.create_session(id="s", initial_data={"name": "Ada"})
        persistence.save_message(session_id="s", role="user", content="hello")
        persistence.update_collected_data("s", {"preferences": {"seat": "aisle"}})
        session = persistence.load_session_state("s")

        assert session is not None
        assert session.data == {"name": "Ada", "preferences": {"seat": "aisle"}}
        assert [line.content for line in session.history] == ["hello"]

    def test_respond_takes_a_message(self, store: PersistenceAdapter) -> None:
        """In the original `respond("text")` never existed."""
        assert agent(store).respond("hello").message == "Well?"

    def test_history_has_times(self, store: PersistenceAdapter) -> None:
        """In the original no message carried a time."""
        before = utcnow()
        bot = agent(store)
        bot.respond("hello")

        assert all(
            line.timestamp is not None and before <= line.timestamp <= utcnow()
            for line in bot.session.get_history()
        )


class TestRaces:
    def test_of_two_writers_one_is_told_that_it_lost(self, store: PersistenceAdapter) -> None:
        """In the original both of two writers were told OK, and one update was lost; its first version had no
        versions at all."""
        session = with_history(store, 0)
        barrier = threading.Barrier(2)

        def write(number: int) -> bool:
            barrier.wait(timeout=30)
            try:
                mine = session.model_copy(update={"data": {"writer": number}})
                store.commit(mine, expected_version=session.version)
            except SessionConflictError:
                return False
            return True

        for _ in range(10):
            with ThreadPoolExecutor(2) as threads:
                outcomes = list(threads.map(write, range(2)))
            assert outcomes.count(True) == 1
            session = stored(store)
            assert session.data == {"writer": outcomes.index(True)}

    def test_a_first_answer_is_given_in_the_session_that_was_named(self, store: PersistenceAdapter) -> None:
        """The original loaded the session without waiting for it, and answered in a random new one."""
        with_history(store, 3)
        seen: list[int] = []

        def answer(request: ModelRequest) -> str:
            seen.append(len(request.messages))
            return "Well?"

        response = agent(store, answer).respond("hello")

        assert response.session_id == "s"
        assert seen == [4]
        assert stored(store).message_count == 5

    def test_two_that_create_one_session_share_it(self, store: PersistenceAdapter) -> None:
        """The original looked for the session and then created it: the second process got the driver's own
        error."""
        barrier = threading.Barrier(6)

        def create(number: int) -> str:
            manager = SessionManager(store, session_id="s")
            barrier.wait(timeout=30)
            manager.get_or_create()
            manager.add_message("user", str(number))
            return manager.get_or_create().id

        with ThreadPoolExecutor(6) as threads:
            assert set(threads.map(create, range(6))) == {"s"}
        assert sorted(contents(store)) == ["0", "1", "2", "3", "4", "5"]
        with pytest.raises(SessionConflictError):
            PersistenceManager(store).create_session(id="s")

    def test_after_a_conflict_the_session_is_read_again(self, store: PersistenceAdapter) -> None:
        """After a conflict the original returned the stale copy for ever, so the documented retry always
        failed."""
        manager = SessionManager(store, session_id="s")
        manager.get_or_create().data["mine"] = 1
        PersistenceManager(store).update_collected_data("s", {"theirs": 1})
        with pytest.raises(SessionConflictError):
            manager.save()
        manager.get_or_create().data["mine"] = 2
        manager.save()

        assert stored(store).data == {"theirs": 1, "mine": 2}

    def test_two_messages_at_once_are_both_answered(self, store: PersistenceAdapter) -> None:
        """In the original one of two chats on one agent failed, and its message remained."""
        bot = agent(store)
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(bot.respond, ["one", "two"]))

        assert sorted(contents(store)[::2]) == ["one", "two"]
        assert contents(store)[1::2] == ["Well?", "Well?"]

    def test_a_shared_agent_keeps_conversations_apart(self, store: PersistenceAdapter) -> None:
        """In the original the data of one user landed in the session of another who shared the agent."""

        def answer(request: ModelRequest) -> dict[str, Any]:
            return {"item": request.messages[-1].content, "message": "How many?"}

        bot = agent(store, answer)
        names = [f"user-{number}" for number in range(8)]
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda name: bot.bind(name).respond(name), names))

        assert [stored(store, name).data for name in names] == [{"item": name} for name in names]
        assert [contents(store, name)[0] for name in names] == names

    @pytest.mark.parametrize(
        "meanwhile",
        [
            lambda persistence: persistence.complete_session("s"),
            lambda persistence: persistence.update_collected_data("s", {"count": 2}),
            lambda persistence: persistence.update_session_status("s", "abandoned"),
        ],
    )
    def test_a_change_of_status_or_data_costs_no_running_turn(
        self, store: PersistenceAdapter, meanwhile: Callable[[PersistenceManager], SessionState]
    ) -> None:
        """In the original completing a session, or saving data from a hook, made the running turn conflict,
        and all later ones."""
        with_history(store, 1)
        changed: list[SessionState] = []

        def answer(request: ModelRequest) -> dict[str, Any]:
            if not changed:
                changed.append(meanwhile(PersistenceManager(store)))
            return {"item": "tea", "message": "How many?"}

        bot = agent(store, answer)
        bot.respond("tea")
        bot.respond("more tea")
        after = stored(store)

        assert after.status == changed[0].status
        assert after.data == {**changed[0].data, "item": "tea"}
        assert len(contents(store)) == 5

    def test_saving_during_a_turn_costs_no_turn(self, store: PersistenceAdapter) -> None:
        """In the original saving inside a tool made the turn conflict with itself."""

        def answer(request: ModelRequest) -> str:
            bot.session.set_data({"item": "tea"})
            bot.session.save()
            return "Well?"

        bot = agent(store, answer)
        bot.respond("hello")

        assert stored(store).data == {"item": "tea"}
        assert contents(store) == ["hello", "Well?"]


class TestLostData:
    def test_a_store_that_is_away_costs_no_history(self) -> None:
        """The original took a load error for a new session: one lost connection replaced fifty messages by
        nothing."""
        store = TroubledStore()
        with_history(store, 50)
        store.failing = {"load"}
        for use in (
            lambda: agent(store).respond("hello"),
            lambda: SessionManager(store, session_id="s").get_or_create(),
            lambda: SessionManager(store, session_id="s").add_message("user", "hello"),
        ):
            with pytest.raises(StoreUnavailableError):
                use()
        store.failing = set()

        assert len(contents(store)) == 50

    def test_every_column_is_read_back_and_a_turn_cuts_nothing_off(self, store: PersistenceAdapter) -> None:
        """The original's PostgreSQL rows came back in snake case: every load was empty, and one turn cut
        fifty messages to its own two."""
        session = create_session("s", user_id="ann", agent_name="Shop", data={"item": "tea"})
        some = [Message(session_id="s", role="user", content=str(n)) for n in range(50)]
        store.commit(session, some, expected_version=0)
        loaded = PersistenceManager(store).load_session_state("s")
        assert loaded is not None
        assert (loaded.user_id, loaded.agent_name, loaded.data) == ("ann", "Shop", {"item": "tea"})
        assert len(loaded.history) == 50
        agent(store).respond("hello")

        assert len(contents(store)) == 52

    def test_creating_keeps_route_and_step(self, store: PersistenceAdapter) -> None:
        """The original's SQLite and PostgreSQL created sessions without their route and step."""
        session = create_session("s", current_route=RouteRef(id="r"), current_step=StepRef(id="a"))
        store.session_repository.create(session)
        after = stored(store)

        assert (after.current_route, after.current_step) == (session.current_route, session.current_step)

    def test_what_was_cleared_stays_cleared(self, persistence: PersistenceManager) -> None:
        """The original skipped what was undefined, or merged: a finished route, cleared data and consumed
        directives came back."""
        session = create_session(
            "s",
            data={"item": "tea", "count": 2},
            current_route=RouteRef(id="r"),
            current_step=StepRef(id="a"),
            pending={"target": "r"},
        )
        persistence.save_session_state("s", session)
        session.leave_route(completed=True)
        session.data = {"count": 2}
        session.pending = None
        persistence.save_session_state("s", session)
        after = persistence.load_session_state("s")

        assert after is not None
        assert (after.current_route, after.current_step, after.pending) == (None, None, None)
        assert after.data == {"count": 2}

    def test_what_is_pending_is_kept(self, persistence: PersistenceManager) -> None:
        """The original never stored a pending transition."""
        persistence.save_session_state("s", create_session("s", pending={"target": "r"}))
        after = persistence.load_session_state("s")

        assert after is not None
        assert after.pending == {"target": "r"}

    def test_a_turn_is_there_with_its_reply_or_not_at_all(self) -> None:
        """In the original a crash between its saves kept the data and lost the reply, and a retry said the
        user's message twice."""
        store = TroubledStore()
        bot = agent(store, [{"item": "tea", "message": "How many?"}] * 2)
        store.failing = {"commit"}
        with pytest.raises(StoreUnavailableError):
            bot.respond("tea", turn_id="t")
        assert store.load("s") is None
        store.failing = set()
        bot.respond("tea", turn_id="t")

        assert contents(store) == ["tea", "How many?"]

    def test_a_turn_whose_answer_was_lost_is_not_taken_twice(self) -> None:
        """A retry in the original duplicated the user's message."""
        store = TroubledStore()
        bot = agent(store, ["Well?"])
        store.lost_answers = 1
        with pytest.raises(StoreUnavailableError):
            bot.respond("hello", turn_id="t")

        assert bot.respond("hello", turn_id="t").message == "Well?"
        assert contents(store) == ["hello", "Well?"]

    def test_a_turn_that_fails_leaves_no_message(self, store: PersistenceAdapter) -> None:
        """In the original a failed turn left the user's message in the history."""
        with_history(store, 1)
        before = stored(store)

        def answer(request: ModelRequest) -> str:
            raise ProviderError

        with pytest.raises(ProviderError):
            agent(store, answer).respond("hello")

        assert stored(store) == before

    def test_a_reset_that_fails_loses_nothing(self) -> None:
        """The original deleted the old session before it saved the history: a crash left an empty one."""
        store = TroubledStore()
        with_history(store, 3)
        manager = SessionManager(store, session_id="s")
        manager.get_or_create()
        store.failing = {"commit"}
        with pytest.raises(StoreUnavailableError):
            manager.reset(preserve_history=True)
        store.failing = set()

        assert len(contents(store)) == 3

    def test_after_a_reset_the_new_session_goes_on(self, store: PersistenceAdapter) -> None:
        """After a reset the original's next message went back to the old ID, with an empty history."""
        with_history(store, 1)
        manager = SessionManager(store, session_id="s")
        new = manager.reset(preserve_history=True)
        manager.add_message("user", "next")

        assert contents(store, new.id) == [f"0 {SAID}", "next"]
        assert store.load("s") is None

    def test_setting_and_clearing_the_history_are_saved(self, store: PersistenceAdapter) -> None:
        """In the original both changed the memory only."""
        manager = SessionManager(store, session_id="s")
        manager.set_history([HistoryItem(role="user", content="one")])
        assert SessionManager(store, session_id="s").get_history()[0].content == "one"
        manager.clear_history()

        assert SessionManager(store, session_id="s").get_history() == []

    def test_when_a_route_was_entered_survives_a_reload(self, persistence: PersistenceManager) -> None:
        """In the original `enteredAt` became the time of the reload, and PostgreSQL's columns had no zone."""
        long_ago = datetime(2020, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
        session = create_session("s", created_at=long_ago)
        session.enter_route(RouteRef(id="r", entered_at=long_ago))
        session.enter_step(StepRef(id="a", entered_at=long_ago))
        persistence.save_session_state("s", session)
        after = persistence.load_session_state("s")

        assert after is not None
        assert after.current_route is not None
        assert after.current_step is not None
        times = (after.current_route.entered_at, after.current_step.entered_at, after.created_at)
        assert times == (long_ago,) * 3

    def test_without_auto_save_nothing_is_written(self, store: PersistenceAdapter) -> None:
        """In the original create, addMessage and setData wrote in spite of `autoSave: false`."""
        manager = SessionManager(PersistenceManager(store, auto_save=False), session_id="s")
        manager.get_or_create()
        manager.add_message("user", "hello")
        manager.set_data({"a": 1})
        assert store.load("s") is None
        manager.save()

        assert contents(store) == ["hello"]

    def test_deleting_forgets_without_persistence(self) -> None:
        """In the original `delete` did nothing without persistence, not even in memory."""
        manager = SessionManager()
        manager.add_message("user", "hello")
        manager.delete()

        assert manager.get_history() == []


class TestMissing:
    def test_turns_fill_the_table_of_messages_and_are_counted(self, store: PersistenceAdapter) -> None:
        """In the original no turn ever filled `agent_messages`, and `messageCount` stayed 0."""
        bot = agent(store)
        bot.respond("one")
        bot.respond("two")

        assert contents(store) == ["one", "Well?", "two", "Well?"]
        assert stored(store).message_count == 4

    def test_a_message_and_its_count_are_one_step(self) -> None:
        """The original inserted a message and then counted it, with no transaction around the two."""
        store = TroubledStore()
        persistence = PersistenceManager(store)
        persistence.create_session(id="s")
        store.meanwhile = [lambda: persistence.save_message(session_id="s", role="user", content="theirs")]
        persistence.save_message(session_id="s", role="user", content="mine")
        store.failing = {"commit"}
        with pytest.raises(StoreUnavailableError):
            persistence.save_message(session_id="s", role="user", content="lost")

        assert contents(store) == ["theirs", "mine"]
        assert stored(store).message_count == 2

    def test_messages_go_with_their_session_in_one_step(self) -> None:
        """The original deleted messages first, and then the session, with no transaction around the two."""
        store = TroubledStore()
        with_history(store, 3)
        store.failing = {"delete_sessions"}
        with pytest.raises(StoreUnavailableError):
            PersistenceManager(store).delete_session("s")
        assert (len(contents(store)), stored(store).message_count) == (3, 3)
        store.failing = set()
        PersistenceManager(store).delete_session("s")

        assert (contents(store), store.load("s")) == ([], None)

    def test_the_newest_messages_are_found(self, store: PersistenceAdapter) -> None:
        """The original returned the oldest thousand."""
        session = with_history(store, 1000)
        some = [Message(session_id="s", role="user", content=f"new {n}") for n in range(5)]
        store.commit(session, some, expected_version=1)
        persistence = PersistenceManager(store)
        found = persistence.find_messages_by_session_id("s")

        assert len(found) == 1000
        assert [message.content for message in found[-5:]] == [f"new {n}" for n in range(5)]
        assert persistence.load_session_history("s", limit=1)[0].content == "new 4"
        assert len(contents(store)) == 1005

    def test_limits_come_after_order_and_conditions(self, persistence: PersistenceManager) -> None:
        """The original took a slice before it sorted and before it filtered."""
        for status in ("completed", "active", "completed", "active", "completed"):
            session = persistence.create_session(user_id="ann")
            persistence.update_session_status(session.id, status)
        newest = persistence.find_sessions_by_user_id("ann")

        assert persistence.find_sessions_by_user_id("ann", limit=2, status="active") == [newest[1], newest[3]]

    def test_the_pages_of_a_list_are_the_whole_list(self, store: PersistenceAdapter) -> None:
        """The original had limits and no pages."""
        made = {store.commit(create_session(user_id="ann"), expected_version=0).session.id for _ in range(5)}
        query, found = SessionQuery(user_id="ann", limit=2), []
        while True:
            page = store.find_sessions(query)
            found += [session.id for session in page.items]
            if page.cursor is None:
                break
            query = SessionQuery(user_id="ann", limit=2, cursor=page.cursor)

        assert len(found) == 5
        assert set(found) == made

    def test_a_manager_of_one_user_sees_no_other(self, store: PersistenceAdapter) -> None:
        """The original never looked at the owner."""
        PersistenceManager(store).create_session(id="s", user_id="bob")
        mine = PersistenceManager(store, user_id="ann")

        assert mine.find_session_by_id("s") is None
        assert not mine.delete_session("s")
        assert mine.find_sessions_by_user_id("bob") == []

    @pytest.mark.parametrize("bad", [{"$ne": None}, {"$gt": ""}, ["s"], 7])
    def test_an_operator_in_place_of_an_id_is_refused(self, store: PersistenceAdapter, bad: Any) -> None:
        """What the original's tests refuse, every lookup of ours does."""
        persistence = PersistenceManager(store)
        for find in (
            persistence.find_session_by_id,
            persistence.find_active_session_by_user_id,
            persistence.find_sessions_by_user_id,
            persistence.find_messages_by_session_id,
            persistence.delete_session,
            SessionManager(store).get_or_create,
        ):
            with pytest.raises(InvalidInputError):
                find(bad)

    @pytest.mark.parametrize("store", ["sqlite", "postgresql"], indirect=True)
    def test_what_is_searched_by_has_an_index(
        self, store: SQLiteAdapter | PostgreSQLAdapter, indexes: Callable[[], set[tuple[str, ...]]]
    ) -> None:
        """The original had no index on user and status, on the last change, or on a message's time."""
        assert {("user_id", "status"), ("updated_at", "id"), ("session_id", "sequence")} <= indexes()
        assert any("created_at" in columns for columns in indexes())

    @pytest.fixture
    def indexes(
        self, request: pytest.FixtureRequest, tmp_path: Path, store: PersistenceAdapter
    ) -> Callable[[], set[tuple[str, ...]]]:
        """The columns of each index there is."""

        def of_sqlite() -> set[tuple[str, ...]]:
            with closing(sqlite3.connect(tmp_path / "sessions.db")) as connection:
                names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'").fetchall()
                return {
                    tuple(row[2] for row in connection.execute(f'PRAGMA index_info("{name}")'))
                    for (name,) in names
                }

        def of_postgresql() -> set[tuple[str, ...]]:
            url, names = request.getfixturevalue("database_url"), request.getfixturevalue("tables")
            with psycopg.connect(url) as connection:
                found = connection.execute(
                    "SELECT indexdef FROM pg_indexes WHERE tablename = ANY(%s)", [list(names.values())]
                ).fetchall()
            inside = (definition.partition("(")[2].partition(")")[0] for (definition,) in found)
            return {tuple(columns.split(", ")) for columns in inside}

        return of_sqlite if isinstance(store, SQLiteAdapter) else of_postgresql

    def test_initialize_creates_the_tables_that_were_named(self, tmp_path: Path) -> None:
        """The original's initialize created the default tables whatever names it was given."""
        with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
            SQLiteAdapter(connection, tables={"sessions": "chats", "messages": "lines"}).initialize()
            found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()

        assert {"chats", "lines"} <= {name for (name,) in found}
        assert not {name for (name,) in found} & {"agent_sessions", "agent_messages"}

    def test_initialize_creates_the_tables_that_were_named_in_postgresql(
        self, database_url: str, tables: dict[str, str]
    ) -> None:
        """The same in PostgreSQL."""
        with PostgreSQLAdapter(database_url, tables=tables), psycopg.connect(database_url) as connection:
            found = connection.execute(
                "SELECT tablename FROM pg_tables WHERE tablename = ANY(%s)", [list(tables.values())]
            ).fetchall()

        assert {name for (name,) in found} == set(tables.values())


class Counting(MemoryAdapter):
    """Notes what each turn asks of the store."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int]] = []

    def load(self, session_id: str, **options: Any) -> Any:
        found = super().load(session_id, **options)
        self.calls.append(("load", 0 if found is None else len(found.messages)))
        return found

    def commit(self, session: SessionState, messages: Any = (), **options: Any) -> Committed:
        self.calls.append(("commit", len(messages)))
        return super().commit(session, messages, **options)


class TestCost:
    """The original rewrote the whole history three times a turn, and read it three to six times."""

    @pytest.mark.parametrize("length", [10, 1000])
    def test_a_turn_is_one_load_of_its_window_and_one_commit_of_two_rows(self, length: int) -> None:
        """Three saves and three reads of the whole history per turn."""
        store = Counting()
        with_history(store, length)
        store.calls.clear()
        agent(store, history_window=20).respond("hello")

        assert store.calls == [("load", min(length, 20)), ("commit", 2)]

    def test_rows_of_the_history_are_never_written_again(self) -> None:
        """The history was a blob that each turn replaced."""
        store = MemoryAdapter()
        with_history(store, 100)
        before = list(store._messages["s"])
        agent(store).respond("hello")

        assert all(old is new for old, new in zip(before, store._messages["s"], strict=False))
        assert len(store._messages["s"]) == 102

    def test_the_bytes_that_sqlite_is_given_do_not_grow_with_the_history(self, tmp_path: Path) -> None:
        """8 KB a turn after 10 messages, 679 KB after 1,000."""
        with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as connection:
            store = SQLiteAdapter(connection)
            store.initialize()

            @contextmanager
            def written() -> Iterator[list[int]]:
                statements: list[str] = []  # with their values in them
                total = [0]
                connection.set_trace_callback(statements.append)
                yield total
                connection.set_trace_callback(None)
                total[0] = sum(len(each) for each in statements if not each.startswith("SELECT"))

            few, many = (self._turn_of(store, length, written) for length in (10, 1000))

        assert 0 < many <= 1.1 * few

    def test_the_log_that_postgresql_writes_does_not_grow_with_the_history(
        self, database_url: str, tables: dict[str, str]
    ) -> None:
        """8 KB a turn after 10 messages, 679 KB after 1,000."""
        with (
            PostgreSQLAdapter(database_url, tables=tables, pool_size=1) as store,
            psycopg.connect(database_url, autocommit=True) as connection,
        ):

            def position() -> int:
                row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
                assert row is not None
                return int(row[0])

            @contextmanager
            def written() -> Iterator[list[int]]:
                before, total = position(), [0]
                yield total
                total[0] = position() - before

            few, many = (self._turn_of(store, length, written) for length in (10, 1000))

        # A page's first change after a checkpoint logs the page whole, whatever the session's length.
        assert 0 < many <= 1.1 * few + 8192

    def _turn_of(
        self,
        store: PersistenceAdapter,
        length: int,
        written: Callable[[], AbstractContextManager[list[int]]],
    ) -> int:
        """The least that one of several turns has written."""
        with_history(store, length, f"of {length}")
        bot = agent(store, session_id=f"of {length}")
        totals = []
        for _ in range(5):
            with written() as total:
                bot.respond("hello")
            totals.append(total[0])
        return min(totals)
