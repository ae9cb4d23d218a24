"""PostgreSQLAdapter among faults: killed backends, a server that goes and comes back, forks, greenlets."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg_pool import ConnectionPool

from inturn.embedded.postgres import EmbeddedPostgres
from inturn.errors import (
    ConfigurationError,
    SessionConflictError,
    StoreError,
    StoreUnavailableError,
)
from inturn.persistence import PersistenceAdapter, PostgreSQLAdapter, SessionQuery, Target
from inturn.persistence.sql import psycopg_connections
from inturn.session import Message, SessionState, TurnRecord, create_session
from inturn.testing.conformance.races import at_once
from tests.conformance.scripts import next_line, run_script, started_script
from tests.servers import own_postgres
from tests.waiting import wait_until

# The database may be somebody's: only backends of our own are killed.
NAME = f"victim-{secrets.token_hex(4)}"
VICTIMS = f"SELECT pid FROM pg_stat_activity WHERE application_name = '{NAME}'"


def message(session: SessionState) -> Message:
    return Message(session_id=session.id, role="user", content="hello")


def saved(adapter: PersistenceAdapter) -> SessionState:
    return adapter.commit(create_session(), expected_version=0).session


@pytest.fixture(scope="module")
def admin(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def adapter(schema_url: str) -> Iterator[PostgreSQLAdapter]:
    with PostgreSQLAdapter(f"{schema_url}&application_name={NAME}", pool_size=4) as adapter:
        yield adapter


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
        self, adapter: PostgreSQLAdapter, admin: psycopg.Connection[Any]
    ) -> None:
        session = saved(adapter)

        def changed() -> SessionState:
            return adapter.commit(session, [message(session)], expected_version=session.version).session

        for call in (
            adapter.ping,
            adapter.initialize,
            lambda: adapter.load(session.id),
            lambda: adapter.find_sessions(SessionQuery()),
            changed,
            lambda: adapter.delete_sessions([Target(session.id)]),
        ):
            assert kill_backends(admin) >= 1
            call()

    def test_a_pool_of_dead_connections_surfaces_no_error(
        self, adapter: PostgreSQLAdapter, admin: psycopg.Connection[Any]
    ) -> None:
        session = saved(adapter)
        at_once([adapter], lambda each, _: [each.load(session.id) for _ in range(20)], 8)
        assert kill_backends(admin) > 1
        for _ in range(8):
            assert adapter.load(session.id) is not None

    def test_the_callers_pool_is_rid_of_its_dead_too(
        self, schema_url: str, admin: psycopg.Connection[Any]
    ) -> None:
        url = f"{schema_url}&application_name={NAME}"
        with ConnectionPool(url, min_size=3, max_size=3, open=True) as pool:
            pool.wait()
            adapter = PostgreSQLAdapter(pool)
            adapter.initialize()
            assert kill_backends(admin) == 3
            for _ in range(4):
                session = saved(adapter)
            adapter.close()
            with pool.connection() as connection:
                found = connection.execute("SELECT version FROM agent_sessions WHERE id = %s", [session.id])
                assert found.fetchall() == [(1,)]

    @pytest.mark.parametrize("has_turn", [True, False])
    def test_a_commit_whose_connection_is_killed_under_it(
        self, adapter: PostgreSQLAdapter, admin: psycopg.Connection[Any], schema_url: str, has_turn: bool
    ) -> None:
        """With a turn it is repeated; without one nobody could tell whether it happened."""
        session = saved(adapter)
        turn = TurnRecord(session_id=session.id, turn_id="t") if has_turn else None

        def commit() -> object:
            return adapter.commit(session, [message(session)], expected_version=1, turn=turn)

        with ThreadPoolExecutor(1) as thread, row_locked(schema_url, session) as lock:
            running: Future[object] = thread.submit(commit)
            waiting = f"{VICTIMS} AND wait_event_type = 'Lock'"
            (pid,) = wait_until(lambda: admin.execute(waiting).fetchall(), what="the commit to wait")[0]
            admin.execute("SELECT pg_terminate_backend(%s)", [pid])
            lock.rollback()
            if has_turn:
                running.result(timeout=30)
            else:
                with pytest.raises(StoreUnavailableError):
                    running.result(timeout=30)
        found = adapter.load(session.id, turn_id="t")
        assert found is not None
        assert found.session.version == (2 if has_turn else 1)

    def test_a_lost_connection_of_the_callers_is_theirs_to_replace(
        self, adapter: PostgreSQLAdapter, schema_url: str, admin: psycopg.Connection[Any]
    ) -> None:
        with psycopg.connect(f"{schema_url}&application_name={NAME}") as connection:
            mine = PostgreSQLAdapter(connection)
            session = saved(mine)
            kill_backends(admin)
            for _ in range(2):
                with pytest.raises(StoreUnavailableError):
                    mine.load(session.id)
        assert adapter.load(session.id) is not None


def is_away(adapter: PersistenceAdapter) -> bool:
    try:
        adapter.ping()
    except StoreUnavailableError:
        return True
    return False


class TestServerAway:
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
        with own_postgres(tmp_path_factory.mktemp("postgres")) as server:
            yield server

    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch: pytest.MonkeyPatch, server: EmbeddedPostgres) -> Iterator[None]:
        monkeypatch.setattr(psycopg_connections, "POOL_SECONDS", 1.0)
        yield
        server.start()

    @pytest.mark.parametrize("crash", [False, True])
    def test_calls_fail_while_the_server_is_away_and_work_when_it_is_back(
        self, server: EmbeddedPostgres, crash: bool
    ) -> None:
        with PostgreSQLAdapter(server.url, pool_size=4) as adapter:
            session = saved(adapter)
            at_once([adapter], lambda each, _: each.load(session.id))
            if crash:
                server.kill()
                wait_until(lambda: is_away(adapter), what="the processes of the server to miss it")
            else:
                server.stop()
            turn = TurnRecord(session_id=session.id, turn_id="t")
            for call in (
                adapter.ping,
                lambda: adapter.load(session.id),
                lambda: adapter.commit(session, expected_version=1, turn=turn),
            ):
                with pytest.raises(StoreUnavailableError) as error:
                    call()
                assert "postgres:" not in str(error.value)
            server.start()
            # Writes first: nothing but the call itself may be needed to find the server again.
            committed = adapter.commit(session, [message(session)], expected_version=1, turn=turn)
            assert not committed.repeated
            at_once([adapter], lambda each, _: each.load(session.id))

    def test_an_adapter_may_be_made_before_its_server_runs(self, server: EmbeddedPostgres) -> None:
        server.stop()
        with pytest.raises(StoreUnavailableError), PostgreSQLAdapter(server.url):
            pass
        adapter = PostgreSQLAdapter(server.url)
        with pytest.raises(StoreUnavailableError):
            adapter.ping()
        server.start()
        adapter.ping()
        adapter.close()

    def test_a_wrong_password_is_not_shown(self, server: EmbeddedPostgres) -> None:
        password = server.url.split(":")[2].split("@")[0]
        adapter = PostgreSQLAdapter(server.url.replace(password, "hunter2"))
        with pytest.raises(StoreUnavailableError) as error:
            adapter.ping()
        adapter.close()
        assert "password authentication failed" in str(error.value)
        assert "hunter2" not in str(error.value)


class TestProcesses:
    def test_each_process_opens_its_own_connections_after_a_fork(
        self, adapter: PostgreSQLAdapter, schema_url: str
    ) -> None:
        session = saved(adapter)
        said = run_script(
            """
            import os, sys
            from inturn.persistence import PostgreSQLAdapter

            adapter = PostgreSQLAdapter(sys.argv[1], pool_size=1)
            backend = lambda: adapter._connections.run(lambda c: c.info.backend_pid, repeatable=True)
            versions = lambda: adapter.load(sys.argv[2]).session.version
            mine, before = backend(), versions()
            read, write = os.pipe()
            if os.fork() == 0:
                ok = backend() != mine and versions() == before
                adapter.close()
                os.write(write, b"y" if ok else b"n")
                sys.exit(0)  # with all finalizers, which must not end the parent's connection
            child = os.read(read, 1)
            os.wait()
            print(child.decode(), backend() == mine, versions())
            adapter.close()
            """,
            schema_url,
            session.id,
        )
        assert said.split() == ["y", "True", "1"]

    def test_a_connection_of_the_callers_does_not_cross_a_fork(self, schema_url: str) -> None:
        said = run_script(
            """
            import os, sys, psycopg
            from inturn.errors import StoreError
            from inturn.persistence import PostgreSQLAdapter

            with psycopg.connect(sys.argv[1]) as connection:
                adapter = PostgreSQLAdapter(connection)
                if os.fork() == 0:
                    try:
                        adapter.ping()
                    except StoreError as error:
                        print(error, flush=True)
                    os._exit(0)
                os.wait()
                adapter.ping()
            """,
            schema_url,
        )
        assert "fork" in said

    def test_processes_that_start_together_create_the_tables_once(
        self, schema_url: str, admin: psycopg.Connection[Any]
    ) -> None:
        script = """
            import sys
            from inturn.persistence import PostgreSQLAdapter

            adapter = PostgreSQLAdapter(sys.argv[1], tables={"sessions": "racing"})
            adapter.ping()
            print("ready", flush=True)
            sys.stdin.read()
            adapter.initialize()
            adapter.close()
        """
        with ExitStack() as stack:
            processes = [stack.enter_context(started_script(script, schema_url)) for _ in range(4)]
            assert [next_line(process) for process in processes] == ["ready"] * 4
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
            assert [process.wait(60) for process in processes] == [0] * 4
        with PostgreSQLAdapter(schema_url, tables={"sessions": "racing"}) as adapter:
            saved(adapter)

    def test_greenlets_wait_for_the_database_side_by_side(
        self, adapter: PostgreSQLAdapter, schema_url: str
    ) -> None:
        """Under gevent a call that waits for the server lets the others go on."""
        session = saved(adapter)
        with (
            row_locked(schema_url, session) as lock,
            started_script(
                """
                from gevent import monkey, spawn, joinall
                monkey.patch_all()
                from inturn.persistence import PostgreSQLAdapter
                from inturn.session import create_session

                adapter = PostgreSQLAdapter(sys.argv[1], pool_size=8)
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
                schema_url,
                session.id,
            ) as process,
        ):
            assert next_line(process) == "50 [False, False, False]"
            lock.rollback()
            said, _ = process.communicate(timeout=60)
            assert process.returncode == 0
        assert said == "['NoneType', 'SessionConflictError', 'SessionConflictError']\n"


class TestOtherHands:
    """What administrators and other programs do to a database."""

    def test_missing_tables_are_named_with_the_mend(self, schema_url: str) -> None:
        adapter = PostgreSQLAdapter(schema_url, tables={"sessions": "nowhere"})
        with pytest.raises(StoreError, match=r"initialize\(\)"):
            adapter.load("s")
        adapter.close()

    def test_a_role_that_may_not_create_can_use_what_is_there(
        self, adapter: PostgreSQLAdapter, schema: str, schema_url: str, admin: psycopg.Connection[Any]
    ) -> None:
        role = sql.Identifier(f"lowly_{secrets.token_hex(4)}")
        names = {"role": role, "schema": sql.Identifier(schema)}
        try:
            admin.execute(sql.SQL("CREATE ROLE {role}").format(**names))
        except psycopg.errors.InsufficientPrivilege:
            pytest.skip("this database's user may not create roles")
        try:
            for grant in (
                "GRANT {role} TO CURRENT_USER",
                "GRANT USAGE ON SCHEMA {schema} TO {role}",
                "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}",
            ):
                admin.execute(sql.SQL(grant).format(**names))
            with psycopg.connect(schema_url, autocommit=True) as connection:
                connection.execute(sql.SQL("SET ROLE {role}").format(**names))
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute("CREATE TABLE agent_anything ()")
                with PostgreSQLAdapter(connection) as lowly:
                    session = saved(lowly)
                    assert lowly.delete_sessions([Target(session.id)]) == [session.id]
        finally:
            admin.execute(sql.SQL("DROP OWNED BY {role}").format(**names))
            admin.execute(sql.SQL("DROP ROLE {role}").format(**names))

    def test_a_row_that_cannot_be_read_is_a_store_error_without_its_text(
        self, adapter: PostgreSQLAdapter, schema_url: str
    ) -> None:
        session = saved(adapter)
        with psycopg.connect(schema_url) as connection:
            connection.execute("UPDATE agent_sessions SET status = 'my secret' WHERE id = %s", [session.id])
        with pytest.raises(StoreError, match="status") as error:
            adapter.load(session.id)
        assert "my secret" not in str(error.value)

    def test_a_cancelled_statement_may_be_repeated(self, adapter: PostgreSQLAdapter, schema_url: str) -> None:
        with PostgreSQLAdapter(f"{schema_url} -cstatement_timeout%3D200".replace(" ", "%20")) as hasty:
            session = saved(hasty)
            with row_locked(schema_url, session), pytest.raises(StoreUnavailableError):
                hasty.commit(session, expected_version=1)
            hasty.commit(session, expected_version=1)

    def test_a_closed_adapter_says_so(self, schema_url: str) -> None:
        adapter = PostgreSQLAdapter(schema_url)
        adapter.close()
        with pytest.raises(StoreError, match="closed"):
            adapter.ping()


class TestTheCallersTransaction:
    @pytest.mark.parametrize("autocommit", [True, False])
    def test_calls_take_part_in_a_transaction_that_is_open(
        self, adapter: PostgreSQLAdapter, schema_url: str, autocommit: bool
    ) -> None:
        with psycopg.connect(schema_url, autocommit=autocommit) as connection:
            mine = PostgreSQLAdapter(connection)
            with connection.transaction(force_rollback=True):
                session = saved(mine)
                assert mine.load(session.id) is not None
                with pytest.raises(SessionConflictError):
                    mine.commit(session, expected_version=7)
                assert adapter.load(session.id) is None
            assert mine.load(session.id) is None
            kept = saved(mine)
            assert adapter.load(kept.id) is not None

    def test_a_refused_commit_leaves_the_transaction_usable(
        self, adapter: PostgreSQLAdapter, schema_url: str
    ) -> None:
        with psycopg.connect(schema_url, autocommit=True) as connection:
            mine = PostgreSQLAdapter(connection)
            with connection.transaction():
                session = create_session()
                first = message(session)
                session = mine.commit(session, [first], expected_version=0).session
                with pytest.raises(ValueError, match="message"):
                    mine.commit(session, [first], expected_version=1)
                assert connection.execute("SELECT 1").fetchone() == (1,)
        assert adapter.load(session.id) is not None


@pytest.mark.parametrize(
    "source", ["postgresql://me:hunter2@[::1/db", "postgresql://me:hunter2@host/db?nonsense=1"]
)
def test_a_url_that_is_none_is_refused_without_showing_it(source: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        PostgreSQLAdapter(source)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("make", [lambda: 7, lambda: None, dict])
def test_a_source_of_no_kind_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigurationError):
        PostgreSQLAdapter(make())


def test_a_pool_must_have_a_connection(schema_url: str) -> None:
    with pytest.raises(ConfigurationError, match="pool_size"):
        PostgreSQLAdapter(schema_url, pool_size=0)
