"""SQLiteAdapter among other processes, threads and hands, and what a call costs it."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inturn.errors import ConfigurationError, InvalidInputError, StoreError, StoreUnavailableError
from inturn.persistence import MessageQuery, SessionQuery, SQLiteAdapter
from inturn.persistence.sql import sqlite_connections
from inturn.session import Message, SessionState, TurnRecord, create_session
from tests.conformance.scripts import next_line, run_script, started_script


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
def adapter(path: Path) -> Iterator[SQLiteAdapter]:
    with SQLiteAdapter(f"sqlite:///{path}") as adapter:
        yield adapter


def saved(adapter: SQLiteAdapter, **fields: Any) -> SessionState:
    return adapter.commit(create_session(**fields), expected_version=0).session


def message(session: SessionState) -> Message:
    return Message(session_id=session.id, role="user", content="hello")


class TestProcesses:
    def test_writers_of_several_processes_lose_nothing(self, adapter: SQLiteAdapter, path: Path) -> None:
        session = saved(adapter, data={"count": 0})
        script = """
            import sys
            from inturn.errors import SessionConflictError
            from inturn.persistence import SQLiteAdapter
            from inturn.session import Message

            with SQLiteAdapter(sys.argv[1]) as adapter:
                print("ready", flush=True)
                sys.stdin.read()
                done = 0
                while done < 30:
                    session = adapter.load(sys.argv[2]).session
                    session.data["count"] += 1
                    said = Message(session_id=session.id, role="user", content="hi")
                    try:
                        adapter.commit(session, [said], expected_version=session.version)
                        done += 1
                    except SessionConflictError:
                        pass
        """
        with ExitStack() as stack:
            processes = [
                stack.enter_context(started_script(script, f"sqlite:///{path}", session.id)) for _ in range(3)
            ]
            assert [next_line(process) for process in processes] == ["ready"] * 3
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
            assert [process.wait(100) for process in processes] == [0] * 3
        found = adapter.load(session.id)
        assert found is not None
        assert (found.session.data, found.session.message_count) == ({"count": 90}, 90)

    def test_processes_that_start_together_create_the_file_once(self, path: Path) -> None:
        script = """
            import sys
            from inturn.persistence import SQLiteAdapter

            print("ready", flush=True)
            sys.stdin.read()
            with SQLiteAdapter(sys.argv[1]) as adapter:
                adapter.load("s")
        """
        with ExitStack() as stack:
            processes = [stack.enter_context(started_script(script, f"sqlite:///{path}")) for _ in range(4)]
            assert [next_line(process) for process in processes] == ["ready"] * 4
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
            assert [process.wait(60) for process in processes] == [0] * 4

    def test_a_process_killed_inside_a_commit_leaves_nothing_of_it(
        self, adapter: SQLiteAdapter, path: Path
    ) -> None:
        session = saved(adapter)
        script = """
            import sys
            from inturn.persistence import SQLiteAdapter
            from inturn.persistence.sql.sqlite_connections import transaction

            adapter = SQLiteAdapter(sys.argv[1])
            with transaction(adapter._connections, write=True) as cursor:
                cursor.execute("UPDATE agent_sessions SET version = 99")
                print("half way", flush=True)
                sys.stdin.read()
        """
        with started_script(script, f"sqlite:///{path}") as process:
            assert next_line(process) == "half way"
            process.send_signal(signal.SIGKILL)
            process.wait()
        found = adapter.load(session.id)
        assert found is not None
        assert found.session == session
        adapter.commit(session, [message(session)], expected_version=1)

    def test_a_writer_that_waits_too_long_gives_up_and_readers_go_on(
        self, adapter: SQLiteAdapter, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = saved(adapter)
        adapter.close()
        monkeypatch.setattr(sqlite_connections, "BUSY_SECONDS", 0.2)
        with (
            SQLiteAdapter(f"sqlite:///{path}") as hasty,
            closing(sqlite3.connect(path, isolation_level=None)) as other,
        ):
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(StoreUnavailableError):
                hasty.commit(session, [message(session)], expected_version=1)
            assert hasty.load(session.id) is not None
            assert hasty.find_sessions(SessionQuery()).items == [session]
            other.execute("ROLLBACK")
            hasty.commit(session, [message(session)], expected_version=1)

    def test_each_process_opens_its_own_connections_after_a_fork(
        self, adapter: SQLiteAdapter, path: Path
    ) -> None:
        session = saved(adapter)
        said = run_script(
            """
            import os, sys
            from inturn.persistence import SQLiteAdapter

            adapter = SQLiteAdapter(sys.argv[1])
            state = adapter.load(sys.argv[2]).session
            if os.fork() == 0:
                state = adapter.commit(state, expected_version=1).session
                adapter.close()
                os._exit(0)
            os.wait()
            found = adapter.load(sys.argv[2]).session
            print(found.version, adapter.commit(found, expected_version=2).session.version)
            adapter.close()
            """,
            f"sqlite:///{path}",
            session.id,
        )
        assert said == "2 3\n"

    @pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
    def test_a_child_inherits_no_open_connection(self, adapter: SQLiteAdapter, path: Path) -> None:
        """SQLite's locks are the process's, so a connection that a child inherits corrupts the file."""
        session = saved(adapter)
        said = run_script(
            """
            import os, sys
            from inturn.persistence import SQLiteAdapter

            def opened():
                links = []
                for fd in os.listdir("/proc/self/fd"):
                    try:
                        links.append(os.readlink(f"/proc/self/fd/{fd}"))
                    except OSError:
                        pass
                return sum("sessions.db" in link for link in links)

            adapter = SQLiteAdapter(sys.argv[1])
            adapter.load(sys.argv[2])
            print(opened() > 0, flush=True)
            if os.fork() == 0:
                print(opened(), flush=True)
                os._exit(0)
            os.wait()
            adapter.close()
            """,
            f"sqlite:///{path}",
            session.id,
        )
        assert said == "True\n0\n"

    @pytest.mark.parametrize("source", ["sqlite3.connect(sys.argv[1])", "'sqlite:///:memory:'"])
    def test_a_single_connection_does_not_cross_a_fork(self, path: Path, source: str) -> None:
        said = run_script(
            f"""
            import os, sqlite3, sys
            from inturn.errors import StoreError
            from inturn.persistence import SQLiteAdapter

            adapter = SQLiteAdapter({source})
            if os.fork() == 0:
                try:
                    adapter.ping()
                except StoreError as error:
                    print(error, flush=True)
                os._exit(0)
            os.wait()
            adapter.ping()
            """,
            str(path),
        )
        assert "fork" in said


class TestTheCallersConnection:
    @pytest.fixture
    def connection(self, path: Path) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(path)) as connection:
            yield connection

    def test_it_is_not_closed_and_not_changed(self, connection: sqlite3.Connection) -> None:
        with SQLiteAdapter(connection) as adapter:
            session = saved(adapter)
        assert connection.execute("SELECT id FROM agent_sessions").fetchall() == [(session.id,)]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert not connection.in_transaction

    def test_calls_take_part_in_a_transaction_that_is_open(
        self, connection: sqlite3.Connection, path: Path
    ) -> None:
        with SQLiteAdapter(connection) as adapter, SQLiteAdapter(f"sqlite:///{path}") as other:
            connection.execute("BEGIN")
            first = create_session()
            said = message(first)
            adapter.commit(first, [said], expected_version=0)
            second = create_session()
            taken = said.model_copy(update={"session_id": second.id})
            with pytest.raises(InvalidInputError):
                adapter.commit(second, [taken], expected_version=0)
            assert adapter.load(first.id) is not None
            assert adapter.load(second.id) is None
            assert other.load(first.id) is None
            connection.rollback()
            assert adapter.load(first.id) is None

    def test_one_of_another_thread_is_a_store_error(self, connection: sqlite3.Connection) -> None:
        adapter = SQLiteAdapter(connection)
        with ThreadPoolExecutor(1) as thread, pytest.raises(StoreError, match="thread"):
            thread.submit(adapter.ping).result()

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 has no such mode")
    def test_one_that_never_commits_is_refused(self, path: Path) -> None:
        with (
            closing(sqlite3.connect(path, autocommit=False)) as connection,  # type: ignore[call-overload, unused-ignore]
            pytest.raises(ConfigurationError, match="autocommit"),
        ):
            SQLiteAdapter(connection)


class TestFiles:
    def test_a_relative_path_is_fixed_when_the_adapter_is_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "elsewhere").mkdir()
        with SQLiteAdapter("sqlite:///here.db") as adapter:
            monkeypatch.chdir(tmp_path / "elsewhere")
            saved(adapter)
        assert (tmp_path / "here.db").exists()
        assert not any((tmp_path / "elsewhere").iterdir())

    def test_a_directory_that_is_missing_is_named(self, tmp_path: Path) -> None:
        adapter = SQLiteAdapter(f"sqlite:///{tmp_path}/missing/sessions.db")
        with pytest.raises(StoreError, match=r"missing/sessions\.db"):
            adapter.initialize()

    def test_a_file_of_another_kind_is_a_store_error(self, path: Path) -> None:
        path.write_text("This is a letter, and no database. " * 100)
        with pytest.raises(StoreError, match="not a database"), SQLiteAdapter(f"sqlite:///{path}"):
            pass

    def test_missing_tables_are_named_with_the_mend(self, path: Path) -> None:
        adapter = SQLiteAdapter(f"sqlite:///{path}")
        with pytest.raises(StoreError, match=r"agent_sessions.*initialize\(\)"):
            adapter.load("s")
        adapter.close()

    def test_a_closed_adapter_says_so_and_holds_no_file(self, path: Path) -> None:
        adapter = SQLiteAdapter(f"sqlite:///{path}")
        adapter.initialize()
        adapter.close()
        with pytest.raises(StoreError, match="closed"):
            adapter.ping()
        with pytest.raises(StoreError, match="closed"):
            adapter.initialize()
        # The last connection to close takes the write-ahead log away.
        assert os.listdir(path.parent) == ["sessions.db"]

    def test_a_row_that_cannot_be_read_is_a_store_error_without_its_text(
        self, adapter: SQLiteAdapter, path: Path
    ) -> None:
        session = saved(adapter)
        for column in ("status", "collected_data"):
            with closing(sqlite3.connect(path)) as other:
                other.execute(f"UPDATE agent_sessions SET {column} = 'my secret'")
                other.commit()
            with pytest.raises(StoreError) as error:
                adapter.load(session.id)
            assert "my secret" not in str(error.value)

    @pytest.mark.parametrize(
        "source", ["sqlite://", "sqlite:///", "sqlite:///a.db?mode=ro", "a.db", "sqlite:/a.db", None, 7]
    )
    def test_a_source_of_no_kind_is_refused(self, source: Any) -> None:
        with pytest.raises(ConfigurationError):
            SQLiteAdapter(source)

    @pytest.mark.parametrize("name", ["main.sessions", 'x" (a); --', ""])
    def test_names_that_cannot_work_are_refused(self, name: str) -> None:
        with pytest.raises(ConfigurationError):
            SQLiteAdapter("sqlite:///:memory:", tables={"sessions": name})

    def test_the_indexes_have_their_usual_names(self, adapter: SQLiteAdapter, path: Path) -> None:
        with closing(sqlite3.connect(path)) as other:
            indexes = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
            assert {name for (name,) in other.execute(indexes)} == {
                "idx_sessions_user_status",
                "idx_sessions_updated",
                "idx_messages_session",
                "idx_messages_created",
                "idx_messages_user",
            }


class TestCost:
    """Steps of SQLite's virtual machine, which it counts itself."""

    @pytest.fixture
    def steps(self) -> Iterator[tuple[SQLiteAdapter, Callable[[Callable[[], object]], int]]]:
        with closing(sqlite3.connect(":memory:")) as connection, SQLiteAdapter(connection) as adapter:

            def steps_of(call: Callable[[], object]) -> int:
                taken = 0

                def step() -> int:
                    nonlocal taken
                    taken += 1
                    return 0

                connection.set_progress_handler(step, 1)
                call()
                connection.set_progress_handler(None, 1)
                return taken

            yield adapter, steps_of

    def test_the_cost_is_flat_in_the_length_of_the_session(
        self, steps: tuple[SQLiteAdapter, Callable[[Callable[[], object]], int]]
    ) -> None:
        adapter, steps_of = steps
        sessions = []
        for length in (20, 10_000):
            session = create_session()
            turn = TurnRecord(session_id=session.id, turn_id="t")
            some = [message(session) for _ in range(length)]
            sessions.append(adapter.commit(session, some, expected_version=0, turn=turn).session)
        newest = MessageQuery(session_id="-", limit=10, order="newest")
        after = MessageQuery(session_id="-", limit=10, after=5)

        def calls(session: SessionState) -> list[Callable[[], object]]:
            return [
                lambda: adapter.load(session.id, last_messages=10, turn_id="t"),
                lambda: adapter.find_messages(replace(newest, session_id=session.id)),
                lambda: adapter.find_messages(replace(after, session_id=session.id)),
                lambda: adapter.commit(session, [message(session)], expected_version=1),
            ]

        for short, long in zip(*map(calls, sessions), strict=True):
            assert 0 < steps_of(long) <= 1.1 * steps_of(short)
