"""SQLAlchemyAdapter among faults: killed backends, forks, greenlets, other hands, and others' faults."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from traceback import format_exception
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, NullPool, StaticPool, create_engine, event, inspect, text

from inturn.errors import (
    ConfigurationError,
    MissingDriverError,
    SessionConflictError,
    StoreError,
    StoreUnavailableError,
)
from inturn.persistence import MessageQuery, SessionQuery, SQLAlchemyAdapter, Target
from inturn.persistence.sql import psycopg_connections
from inturn.session import Message, SessionState, TurnRecord, create_session
from inturn.session.state import RouteRef, StepRef
from tests.conformance.scripts import next_line, run_script, started_script
from tests.waiting import wait_until

# The database may be somebody's: only backends of our own are killed.
NAME = f"victim-{secrets.token_hex(4)}"
VICTIMS = f"SELECT pid FROM pg_stat_activity WHERE application_name = '{NAME}'"


@pytest.fixture(scope="module")
def admin(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def url(schema_url: str) -> str:
    """The URL of a schema of PostgreSQL, as SQLAlchemy wants it."""
    return f"postgresql+psycopg://{schema_url.partition('://')[2]}&application_name={NAME}"


@pytest.fixture
def adapter(url: str) -> Iterator[SQLAlchemyAdapter]:
    with SQLAlchemyAdapter(url, pool_size=4) as adapter:
        yield adapter


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine of SQLite, with a file that exists."""
    engine = create_engine(f"sqlite:///{tmp_path}/sessions.db")
    yield engine
    engine.dispose()


def message(session: SessionState, content: str = "hello") -> Message:
    return Message(session_id=session.id, role="user", content=content)


def saved(adapter: SQLAlchemyAdapter, **fields: Any) -> SessionState:
    return adapter.commit(create_session(**fields), expected_version=0).session


def loaded(adapter: SQLAlchemyAdapter, session: SessionState) -> SessionState:
    found = adapter.load(session.id)
    assert found is not None
    return found.session


def kill_backends(admin: psycopg.Connection[Any]) -> int:
    """End every server process of `adapter`, and return their number once they are gone."""
    killed = {pid for (pid,) in admin.execute(VICTIMS)}
    for pid in killed:
        admin.execute("SELECT pg_terminate_backend(%s)", [pid])
    wait_until(lambda: killed.isdisjoint(pid for (pid,) in admin.execute(VICTIMS)), what="them to end")
    return len(killed)


@contextmanager
def row_locked(url: str, session: SessionState) -> Iterator[psycopg.Connection[Any]]:
    """Keep every commit of a session waiting."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT 1 FROM agent_sessions WHERE id = %s FOR UPDATE", [session.id])
        yield connection


class TestKilledConnections:
    def test_every_call_works_after_its_connections_were_killed(
        self, adapter: SQLAlchemyAdapter, admin: psycopg.Connection[Any]
    ) -> None:
        session = saved(adapter)
        for call in (
            adapter.ping,
            adapter.initialize,
            lambda: adapter.load(session.id),
            lambda: adapter.find_sessions(SessionQuery()),
            lambda: adapter.commit(session, [message(session)], expected_version=1),
            lambda: adapter.delete_sessions([Target(session.id)]),
        ):
            assert kill_backends(admin) >= 1
            call()

    @pytest.mark.parametrize("has_turn", [True, False])
    def test_a_commit_whose_connection_is_killed_under_it(
        self, adapter: SQLAlchemyAdapter, admin: psycopg.Connection[Any], schema_url: str, has_turn: bool
    ) -> None:
        """With a turn it is repeated; without one nobody could tell whether it happened."""
        session = saved(adapter)
        turn = TurnRecord(session_id=session.id, turn_id="t") if has_turn else None
        with ThreadPoolExecutor(1) as thread, row_locked(schema_url, session) as lock:
            running = thread.submit(
                adapter.commit, session, [message(session)], expected_version=1, turn=turn
            )
            waiting = f"{VICTIMS} AND wait_event_type = 'Lock'"
            (pid,) = wait_until(lambda: admin.execute(waiting).fetchall(), what="the commit to wait")[0]
            admin.execute("SELECT pg_terminate_backend(%s)", [pid])
            lock.rollback()
            if has_turn:
                running.result(timeout=30)
            else:
                with pytest.raises(StoreUnavailableError):
                    running.result(timeout=30)
        assert loaded(adapter, session).version == (2 if has_turn else 1)

    def test_calls_fail_while_there_is_no_server(self) -> None:
        adapter = SQLAlchemyAdapter("postgresql+psycopg://me:hunter2@127.0.0.1:1/db")
        with pytest.raises(StoreUnavailableError) as error:
            adapter.ping()
        adapter.close()
        assert "hunter2" not in "".join(format_exception(error.value))

    def test_a_pool_without_a_free_connection_is_unavailable(
        self, url: str, schema_url: str, monkeypatch: pytest.MonkeyPatch, admin: psycopg.Connection[Any]
    ) -> None:
        monkeypatch.setattr(psycopg_connections, "POOL_SECONDS", 0.2)
        with SQLAlchemyAdapter(url, pool_size=1) as adapter, ThreadPoolExecutor(1) as thread:
            session = saved(adapter)
            with row_locked(schema_url, session) as lock:
                running = thread.submit(adapter.commit, session, expected_version=1)
                waiting = f"{VICTIMS} AND wait_event_type = 'Lock'"
                wait_until(lambda: admin.execute(waiting).fetchall(), what="the commit to wait")
                with pytest.raises(StoreUnavailableError, match="pool_size"):
                    adapter.ping()
                lock.rollback()
            running.result(timeout=30)


class TestProcesses:
    @pytest.mark.parametrize("source", ["sys.argv[1]", "create_engine(sys.argv[1])"])
    def test_each_process_opens_its_own_connections_after_a_fork(
        self, adapter: SQLAlchemyAdapter, url: str, source: str
    ) -> None:
        session = saved(adapter)
        said = run_script(
            f"""
            import os, sys
            from sqlalchemy import create_engine, text
            from inturn.persistence import SQLAlchemyAdapter

            adapter = SQLAlchemyAdapter({source}, pool_size=1)
            pid = text("SELECT pg_backend_pid()")
            backend = lambda: adapter._engines.read(lambda connection: connection.scalar(pid))
            version = lambda: adapter.load(sys.argv[2]).session.version
            mine, before = backend(), version()
            read, write = os.pipe()
            if os.fork() == 0:
                ok = backend() != mine and version() == before
                adapter.close()
                os.write(write, b"y" if ok else b"n")
                sys.exit(0)  # with all finalizers, which must not end the parent's connection
            child = os.read(read, 1)
            os.wait()
            print(child.decode(), backend() == mine, version())
            adapter.close()
            """,
            url,
            session.id,
        )
        assert said.split() == ["y", "True", "1"]

    def test_a_child_inherits_no_open_connection_of_sqlite(self, engine: Engine, tmp_path: Path) -> None:
        """SQLite's locks are the process's, so a connection that a child inherits corrupts the file."""
        with SQLAlchemyAdapter(engine) as adapter:
            session = saved(adapter)
        said = run_script(
            """
            import os, sys
            from inturn.persistence import SQLAlchemyAdapter

            def opened():
                links = []
                for fd in os.listdir("/proc/self/fd"):
                    try:
                        links.append(os.readlink(f"/proc/self/fd/{fd}"))
                    except OSError:
                        pass
                return sum("sessions.db" in link for link in links)

            adapter = SQLAlchemyAdapter(sys.argv[1])
            adapter.load(sys.argv[2])
            print(opened() > 0, flush=True)
            if os.fork() == 0:
                print(opened(), adapter.load(sys.argv[2]).session.version, flush=True)
                adapter.close()
                os._exit(0)
            os.wait()
            adapter.close()
            """,
            f"sqlite:///{tmp_path}/sessions.db",
            session.id,
        )
        assert said == "True\n0 1\n"

    def test_greenlets_wait_for_the_database_side_by_side(
        self, adapter: SQLAlchemyAdapter, url: str, schema_url: str
    ) -> None:
        """Under gevent a call that waits for the server lets the others go on."""
        session = saved(adapter)
        with (
            row_locked(schema_url, session) as lock,
            started_script(
                """
                from gevent import monkey, spawn, joinall
                monkey.patch_all()
                from inturn.persistence import SQLAlchemyAdapter
                from inturn.session import create_session

                adapter = SQLAlchemyAdapter(sys.argv[1], pool_size=8)
                locked = adapter.load(sys.argv[2]).session
                waiting = [spawn(adapter.commit, locked, expected_version=1) for _ in range(3)]
                others = [spawn(adapter.commit, create_session(), expected_version=0) for _ in range(50)]
                joinall(others, raise_error=True)
                print(len(others), [each.ready() for each in waiting], flush=True)
                sys.stdin.read()
                joinall(waiting)
                print(sorted(type(each.exception).__name__ for each in waiting))
                adapter.close()
                """,
                url,
                session.id,
            ) as process,
        ):
            assert next_line(process) == "50 [False, False, False]"
            lock.rollback()
            said, _ = process.communicate(timeout=60)
            assert process.returncode == 0
        assert said == "['NoneType', 'SessionConflictError', 'SessionConflictError']\n"


class TestSources:
    @pytest.mark.parametrize(
        "source",
        [
            "hunter2",
            "",
            "sqlalchemy+",
            "nosuch://me:hunter2@host/db",
            "postgresql+nosuch://me:hunter2@host/db",
            "postgresql+psycopg://me:hunter2@host:port/db",
            "sqlite+aiosqlite:///hunter2.db",
            "postgresql+psycopg_async://me:hunter2@host/db",
            None,
            7,
        ],
    )
    def test_what_makes_no_engine_is_refused_without_showing_it(self, source: Any) -> None:
        with pytest.raises(ConfigurationError) as error:
            SQLAlchemyAdapter(source)
        assert "hunter2" not in "".join(format_exception(error.value))

    def test_a_driver_that_is_missing_is_named_with_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "pymysql", None)
        with pytest.raises(MissingDriverError, match=r"pip install 'inturn\[mysql\]'"):
            SQLAlchemyAdapter("mysql+pymysql://me:hunter2@host/db")

    def test_a_closed_adapter_says_so(self, tmp_path: Path) -> None:
        adapter = SQLAlchemyAdapter(f"sqlite:///{tmp_path}/sessions.db")
        adapter.initialize()
        adapter.close()
        with pytest.raises(StoreError, match="closed"):
            adapter.ping()

    def test_the_callers_engine_stays_open(self, engine: Engine) -> None:
        with SQLAlchemyAdapter(engine) as adapter:
            session = saved(adapter)
        with engine.connect() as connection:
            assert connection.scalars(text("SELECT id FROM agent_sessions")).all() == [session.id]

    @pytest.mark.parametrize(
        "options",
        [
            {"tables": {"sessions": "a b"}},
            {"tables": {"sessions": "same", "messages": "same"}},
            {"tables": {"session": "a"}},
            {"field_mappings": {"session": {}}},
            {"field_mappings": {"sessions": {"userId": "user_id"}}},
            {"field_mappings": {"sessions": {"user_id": "status"}}},
            {"field_mappings": {"messages": {"content": 'x"; DROP TABLE y; --'}}},
            {"field_mappings": {"turns": {"result": None}}},
            {"pool_size": 0},
        ],
        ids=repr,
    )
    def test_options_that_cannot_work_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError):
            SQLAlchemyAdapter("sqlite://", **options)


class TestOtherHands:
    def test_missing_tables_are_named_with_the_mend(self, url: str, engine: Engine) -> None:
        for source in (url, engine):
            adapter = SQLAlchemyAdapter(source, tables={"sessions": "nowhere"})
            with pytest.raises(StoreError, match=r"initialize\(\)"):
                adapter.load("s")
            adapter.close()

    def test_a_row_that_cannot_be_read_is_a_store_error_without_its_text(
        self, adapter: SQLAlchemyAdapter, url: str
    ) -> None:
        session = saved(adapter)
        other = create_engine(url, poolclass=NullPool)
        with other.begin() as connection:
            connection.execute(text("UPDATE agent_sessions SET status = 'my words'"))
        with pytest.raises(StoreError, match="status") as error:
            adapter.load(session.id)
        assert "my words" not in str(error.value)

    def test_no_error_holds_a_statement_or_its_values(self, engine: Engine) -> None:
        """SQLAlchemy's own errors do, and errors end in logs."""
        with SQLAlchemyAdapter(engine) as adapter:
            session = saved(adapter)
            with engine.begin() as connection:
                connection.execute(
                    text(
                        "CREATE TRIGGER no BEFORE INSERT ON agent_messages "
                        "BEGIN SELECT RAISE(FAIL, 'not today'); END"
                    )
                )
            said = message(session, "my words")
            with pytest.raises(StoreError) as error:
                adapter.commit(session, [said], expected_version=1)
            assert "my words" not in "".join(format_exception(error.value))
            assert "INSERT" not in str(error.value)
            assert loaded(adapter, session) == session

    def test_a_writer_of_sqlite_that_waits_too_long_is_unavailable(self, tmp_path: Path) -> None:
        path = tmp_path / "sessions.db"
        with (
            SQLAlchemyAdapter(f"sqlite:///{path}?timeout=0.1") as adapter,
            closing(sqlite3.connect(path, isolation_level=None)) as other,
        ):
            session = saved(adapter)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailableError):
                adapter.commit(session, expected_version=1)
            other.execute("ROLLBACK")
            adapter.commit(session, expected_version=1)


class TestCost:
    """What is sent to the database, as SQLAlchemy itself sees it, and how much is done there."""

    @pytest.fixture
    def sent(self, engine: Engine) -> list[tuple[str, Any]]:
        statements: list[tuple[str, Any]] = []

        @event.listens_for(engine, "before_cursor_execute")
        def note(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
            statements.append((statement, parameters))

        return statements

    def test_a_turn_sends_as_much_in_a_long_session_as_in_a_short_one(
        self, engine: Engine, sent: list[tuple[str, Any]]
    ) -> None:
        """Three times the whole history in each turn is what the original wrote."""
        amounts = []
        with SQLAlchemyAdapter(engine) as adapter:
            for length in (10, 10_000):
                session = create_session(data={"city": "Lagos"})
                some = [message(session) for _ in range(length)]
                session = adapter.commit(session, some, expected_version=0).session
                sent.clear()
                found = adapter.load(session.id, last_messages=10, turn_id="t")
                assert found is not None
                assert len(found.messages) == 10
                loads = len(sent)
                turn = TurnRecord(session_id=session.id, turn_id="t")
                adapter.commit(session, [message(session)] * 1, expected_version=1, turn=turn)
                amounts.append((loads, len(sent), sum(len(repr(each)) for each in sent)))
        short, long = amounts
        assert short[:2] == long[:2] == (1, 5)
        assert long[2] <= 1.1 * short[2]
        words = [statement.split()[0] for statement, _ in sent]
        assert words == ["SELECT", "BEGIN", "UPDATE", "INSERT", "INSERT"]

    def test_the_work_of_sqlite_is_flat_in_the_length_of_the_session(self) -> None:
        """Steps of its virtual machine, which it counts itself."""
        engine = create_engine("sqlite://", poolclass=StaticPool)
        adapter = SQLAlchemyAdapter(engine)
        adapter.initialize()
        with engine.connect() as connection:
            driver: Any = connection.connection.driver_connection

        def steps_of(call: Callable[[], object]) -> int:
            taken = 0

            def step() -> int:
                nonlocal taken
                taken += 1
                return 0

            driver.set_progress_handler(step, 1)
            call()
            driver.set_progress_handler(None, 1)
            return taken

        for short, long in zip(*(_calls(adapter, length) for length in (20, 10_000)), strict=True):
            assert 0 < steps_of(long) <= 1.1 * steps_of(short)
        engine.dispose()

    def test_the_work_of_postgresql_is_flat_in_the_length_of_the_session(
        self, url: str, admin: psycopg.Connection[Any], schema: str
    ) -> None:
        """Pages touched, as PostgreSQL itself counts them."""
        engine = create_engine(url, poolclass=StaticPool, connect_args={"prepare_threshold": None})
        adapter = SQLAlchemyAdapter(engine)
        adapter.initialize()
        pairs = list(zip(*(_calls(adapter, length) for length in (20, 20_000)), strict=True))
        admin.execute(f"VACUUM ANALYZE {schema}.agent_sessions, {schema}.agent_messages")
        statements: list[tuple[str, Any]] = []

        @event.listens_for(engine, "before_cursor_execute")
        def note(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
            statements.append((statement, parameters))

        def pages_of(call: Callable[[], object]) -> int:
            statements.clear()
            call()
            ((statement, parameters),) = list(statements)
            with engine.connect() as connection:
                explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
                (plan,) = connection.exec_driver_sql(explain, parameters).scalar_one()
            return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])

        for short, long in pairs[:3]:
            assert pages_of(long) <= 1.1 * pages_of(short) + 3
        engine.dispose()


def _calls(adapter: SQLAlchemyAdapter, length: int) -> list[Callable[[], object]]:
    """The calls of a turn on a session of that length."""
    session = create_session()
    turn = TurnRecord(session_id=session.id, turn_id="t")
    some = [message(session, "hello " * 20) for _ in range(length)]
    session = adapter.commit(session, some, expected_version=0, turn=turn).session
    newest = MessageQuery(session_id=session.id, limit=10, order="newest")
    return [
        lambda: adapter.load(session.id, last_messages=10, turn_id="t"),
        lambda: adapter.find_messages(newest),
        lambda: adapter.find_messages(replace(newest, order="oldest", after=5)),
        lambda: adapter.commit(session, [message(session)], expected_version=1),
    ]


class TestFaultsOfTheOriginal:
    """What was found wrong in the adapter for Prisma that this one stands for, and in its kin."""

    @pytest.fixture
    def store(self, engine: Engine) -> SQLAlchemyAdapter:
        adapter = SQLAlchemyAdapter(engine)
        adapter.initialize()
        return adapter

    def test_reading_and_then_updating_lost_one_of_two_writers(self, store: SQLAlchemyAdapter) -> None:
        """Both were told that all was well. Here the version is part of the update."""
        session = saved(store)
        first, second = loaded(store, session), loaded(store, session)
        store.commit(first.model_copy(update={"data": {"by": 1}}), expected_version=1)
        with pytest.raises(SessionConflictError):
            store.commit(second.model_copy(update={"data": {"by": 2}}), expected_version=1)
        assert loaded(store, session).data == {"by": 1}

    def test_an_error_about_the_version_turned_locking_off(
        self, store: SQLAlchemyAdapter, engine: Engine
    ) -> None:
        """For the rest of the process. Here tables without a version are refused, each time."""
        session = saved(store)
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE agent_sessions RENAME COLUMN version TO revision"))
        for _ in range(2):
            with pytest.raises(StoreError, match="version"):
                store.commit(session, expected_version=1)
            with pytest.raises(StoreError, match="inturn db upgrade"):
                store.initialize()

    def test_finding_and_then_creating_gave_the_second_a_raw_unique_error(
        self, store: SQLAlchemyAdapter
    ) -> None:
        session = saved(store)
        with pytest.raises(SessionConflictError):
            store.commit(create_session(session.id), expected_version=0)

    def test_names_in_another_case_made_every_load_empty(self, engine: Engine) -> None:
        """One turn then cut a session of 50 messages to its own two. Here names are mapped both ways."""
        mappings = {"sessions": {"user_id": "userId", "collected_data": "collectedData"}}
        tables = {"sessions": "mapped"}
        with SQLAlchemyAdapter(engine, tables=tables, field_mappings=mappings) as adapter:
            session = saved(adapter, user_id="ann", data={"city": "Lagos"})
            assert loaded(adapter, session) == session
            assert adapter.find_sessions(SessionQuery(user_id="ann")).items == [session]
            session.data["city"] = "Accra"
            adapter.commit(session, expected_version=1)
        with engine.connect() as connection:
            found = connection.execute(text('SELECT "userId", "collectedData" FROM mapped')).one()
        assert tuple(found) == ("ann", '{"city":"Accra"}')

    def test_initialize_made_the_usual_tables_whatever_names_were_given(self, engine: Engine) -> None:
        """Or only logged a warning."""
        names = {"sessions": "chat", "messages": "lines", "turns": "turns"}
        with SQLAlchemyAdapter(engine, tables=names):
            pass
        assert set(inspect(engine).get_table_names()) == set(names.values())

    def test_what_was_cleared_came_back_and_what_was_created_lost_its_route(
        self, store: SQLAlchemyAdapter
    ) -> None:
        """Nothing was written for what was not there any more; a new row had neither route nor step."""
        session = saved(store, current_route=RouteRef(id="r"), current_step=StepRef(id="s"), data={"a": 1})
        assert loaded(store, session) == session
        session.current_route = session.current_step = None
        session.data.clear()
        store.commit(session, expected_version=1)
        back = loaded(store, session)
        assert (back.current_route, back.current_step, back.data) == (None, None, {})

    def test_indexes_were_missing(self, store: SQLAlchemyAdapter, engine: Engine) -> None:
        """By user and status, by age, and by a message's time."""
        found = {
            table: {tuple(index["column_names"]) for index in inspect(engine).get_indexes(table)}
            for table in ("agent_sessions", "agent_messages")
        }
        assert found == {
            "agent_sessions": {("user_id", "status"), ("updated_at", "id")},
            "agent_messages": {("session_id", "sequence"), ("created_at",), ("user_id", "created_at", "id")},
        }

    def test_a_row_that_was_not_there_raised(self, store: SQLAlchemyAdapter) -> None:
        assert store.load("nobody") is None
        assert store.delete_sessions([Target("nobody"), Target("nobody", 3)]) == []
