"""MongoAdapter among faults: writers that die or sleep between two writes, lost answers, lost servers."""

from __future__ import annotations

import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)

from inturn.errors import InvalidInputError, SessionConflictError, StoreUnavailableError
from inturn.persistence import Committed, MessageQuery, MongoAdapter, SessionQuery, Target
from inturn.persistence.mongo import clients
from inturn.session import Message, SessionState, TurnRecord, create_session
from tests.conformance.scripts import next_line, run_script, started_script
from tests.servers_mongodb import OwnMongoDB, mongodb
from tests.waiting import wait_until

Raw = dict[str, Any]
WRITES = ("insert", "update", "delete")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mongodb(tmp_path_factory.mktemp("mongodb")) as url:
        yield url


@pytest.fixture
def database(url: str) -> Iterator[Database[Raw]]:
    """A database that is this test's own, as MongoDB has it."""
    with MongoClient[Raw](url) as client:
        name = f"inturn_test_{secrets.token_hex(4)}"
        yield client[name]
        client.drop_database(name)


@pytest.fixture
def adapter(url: str, database: Database[Raw]) -> Iterator[MongoAdapter]:
    with MongoAdapter(url, database_name=database.name) as adapter:
        yield adapter


def saved(adapter: MongoAdapter, session_id: str | None = None, commits: int = 1) -> SessionState:
    """A session in the store, with a message and a turn for each of its commits."""
    session = create_session(session_id, user_id="u")
    for number in range(commits):
        record = TurnRecord(session_id=session.id, turn_id=f"old-{number}", result={"number": number})
        said = Message(session_id=session.id, role="user", content="old", user_id="u")
        session = adapter.commit(session, [said], expected_version=number, turn=record).session
    return session


def new_turn(adapter: MongoAdapter, session: SessionState, turn_id: str | None = "new") -> Committed:
    """Commit two messages, the same ones whenever it is called for this session."""
    said = [
        Message(id=f"{session.id}-{n}", session_id=session.id, role="user", content="new", user_id="u")
        for n in range(2)
    ]
    record = None if turn_id is None else TurnRecord(session_id=session.id, turn_id=turn_id)
    return adapter.commit(session, said, expected_version=session.version, turn=record)


def state_of(adapter: MongoAdapter, session_id: str) -> Any:
    """All that readers see of a session."""
    return (
        adapter.load(session_id, last_messages=100, turn_id="new"),
        adapter.find_messages(MessageQuery(session_id=session_id)),
        [
            each
            for each in adapter.find_messages(MessageQuery(user_id="u")).items
            if each.session_id == session_id
        ],
        [each for each in adapter.find_sessions(SessionQuery(user_id="u")).items if each.id == session_id],
    )


def nothing_is_left_over(adapter: MongoAdapter, database: Database[Raw], session: SessionState) -> None:
    """Let a session go on until it has settled what came before: then every document counts."""
    for _ in range(10):
        session = adapter.commit(session, expected_version=session.version).session
    found = adapter.load(session.id, last_messages=100)
    assert found is not None
    stored = list(database.agent_messages.find({"session_id": session.id}))
    assert sorted(each["_id"] for each in stored) == sorted(each.id for each in found.messages)
    assert [each for each in stored if "draft" in each] == []
    turns = [each["turn_id"] for each in database.agent_turns.find({"session_id": session.id})]
    assert len(turns) == len(set(turns))


CHILD = """
    import os, signal, sys
    from pymongo import MongoClient
    from pymongo.monitoring import CommandListener
    from inturn.persistence import MongoAdapter, Target
    from inturn.session import create_session
    from tests.integration.test_mongodb_faults import WRITES, new_turn

    url, database, session_id, call, last = sys.argv[1:]

    class Killer(CommandListener):
        writes = 0

        def started(self, event):
            if event.command_name in WRITES:
                self.writes += 1
                if self.writes == int(last):
                    os.kill(os.getpid(), signal.SIGKILL)

        def succeeded(self, event): pass
        def failed(self, event): pass

    with MongoClient(url, event_listeners=[Killer()]) as client:
        adapter = MongoAdapter(client, database_name=database)
        if call == "delete":
            assert adapter.delete_sessions([Target(session_id)]) == [session_id]
        else:
            found = adapter.load(session_id)
            new_turn(adapter, create_session(session_id, user_id="u") if found is None else found.session)
"""


class TestKilledWriters:
    """Processes that end, by SIGKILL, right before one of the writes of a call; each of them in its turn."""

    @pytest.fixture
    def killed_before(self, url: str, database: Database[Raw]) -> Callable[[str, str, int], bool]:
        """Let a process do a call and die before its `n`th write; False: it had not so many."""

        def kill(call: str, session_id: str, n: int) -> bool:
            with started_script(CHILD, url, database.name, session_id, call, str(n)) as process:
                process.wait(60)
            assert process.returncode in (0, -signal.SIGKILL)
            return process.returncode != 0

        return kill

    @pytest.mark.parametrize(
        ("commits", "writes"), [(0, 3), (1, 2), (8, 4)], ids=["creates", "goes on", "settles"]
    )
    def test_a_commit_is_there_after_its_last_write_and_not_before(
        self,
        adapter: MongoAdapter,
        database: Database[Raw],
        killed_before: Callable[[str, str, int], bool],
        commits: int,
        writes: int,
    ) -> None:
        for n in range(1, writes + 2):
            session_id = f"s-{n}"
            session = (
                saved(adapter, session_id, commits) if commits else create_session(session_id, user_id="u")
            )
            before = state_of(adapter, session_id)
            assert killed_before("commit", session_id, n) == (n <= writes)
            if n <= writes:
                assert state_of(adapter, session_id) == before
                # The messages are the same ones, as when a call is repeated.
                committed = new_turn(adapter, session)
                assert not committed.repeated
            else:
                assert new_turn(adapter, session).repeated
            found = adapter.load(session_id, last_messages=100, turn_id="new")
            assert found is not None
            assert [each.content for each in found.messages] == ["old"] * commits + ["new"] * 2
            assert found.turn is not None
            nothing_is_left_over(adapter, database, found.session)

    def test_what_a_killed_writer_left_is_no_part_of_what_others_write(
        self, adapter: MongoAdapter, database: Database[Raw], killed_before: Callable[[str, str, int], bool]
    ) -> None:
        """Its messages have the sequences that the next commit's have."""
        session = saved(adapter)
        assert killed_before("commit", session.id, 2)
        assert database.agent_messages.count_documents({"session_id": session.id}) == 3
        said = Message(session_id=session.id, role="user", content="other", user_id="u")
        session = adapter.commit(session, [said], expected_version=1).session
        _, page, of_user, _ = state_of(adapter, session.id)
        assert [(each.sequence, each.content) for each in page.items] == [(1, "old"), (2, "other")]
        assert sorted(each.content for each in of_user) == ["old", "other"]
        nothing_is_left_over(adapter, database, session)

    def test_a_deletion_is_seen_after_its_first_write_and_comes_to_an_end_later(
        self, adapter: MongoAdapter, database: Database[Raw], killed_before: Callable[[str, str, int], bool]
    ) -> None:
        for n in range(1, 8):
            session_id = f"s-{n}"
            saved(adapter, session_id, 10)
            before = state_of(adapter, session_id)
            assert killed_before("delete", session_id, n) == (n <= 6)
            if n == 1:
                assert state_of(adapter, session_id) == before
                adapter.delete_sessions([Target(session_id)])
            assert state_of(adapter, session_id) == (None, ([], None), [], [])
            adapter.delete_sessions([])
            for name in ("agent_sessions", "agent_messages", "agent_turns"):
                assert database[name].count_documents({}) == 0

    def test_a_session_whose_deletion_did_not_end_can_be_created(
        self, adapter: MongoAdapter, database: Database[Raw], killed_before: Callable[[str, str, int], bool]
    ) -> None:
        saved(adapter, "s", 10)
        assert killed_before("delete", "s", 3)
        assert database.agent_messages.count_documents({}) == 10
        session = saved(adapter, "s", 1)
        found, page, of_user, _ = state_of(adapter, "s")
        assert found.session == session
        assert (len(page.items), len(of_user)) == (1, 1)
        loaded = adapter.load("s", turn_id="old-3")
        assert loaded is not None
        assert loaded.turn is None
        nothing_is_left_over(adapter, database, session)


class Sleeper(CommandListener):
    """Stops the thread that it was made for right before a command on a collection."""

    def __init__(self, command: str, collection: str) -> None:
        self._where = (command, collection)
        self.sleeps = threading.Event()
        self.wakes = threading.Event()

    def started(self, event: CommandStartedEvent) -> None:
        if (
            event.command_name,
            event.command.get(event.command_name),
        ) == self._where and not self.sleeps.is_set():
            self.sleeps.set()
            assert self.wakes.wait(60)

    def succeeded(self, event: CommandSucceededEvent) -> None: ...

    def failed(self, event: CommandFailedEvent) -> None: ...


class TestSleepingWriters:
    """Writers that stop between two writes, and go on when the world has changed."""

    @contextmanager
    def sleeping(
        self,
        url: str,
        database: Database[Raw],
        command: str,
        collection: str,
        call: Callable[[MongoAdapter], Any],
    ) -> Iterator[Callable[[], Any]]:
        """Let a writer fall asleep; gives what wakes it and returns what becomes of its call."""
        sleeper = Sleeper(command, collection)
        with MongoClient[Raw](url, event_listeners=[sleeper]) as client, ThreadPoolExecutor(1) as thread:
            running = thread.submit(call, MongoAdapter(client, database_name=database.name))
            assert sleeper.sleeps.wait(60)

            def wake() -> Any:
                sleeper.wakes.set()
                return running.result(60)

            try:
                yield wake
            finally:
                sleeper.wakes.set()

    def test_the_same_turn_meanwhile_is_the_one_that_counts(
        self, adapter: MongoAdapter, database: Database[Raw], url: str
    ) -> None:
        session = saved(adapter)
        with self.sleeping(
            url, database, "update", "agent_sessions", lambda each: new_turn(each, session)
        ) as wake:
            assert not new_turn(adapter, session).repeated
            done = state_of(adapter, session.id)
            assert wake().repeated
        assert state_of(adapter, session.id) == done
        nothing_is_left_over(adapter, database, done[0].session)

    @pytest.mark.parametrize("exists", [True, False])
    def test_the_same_messages_meanwhile_are_the_ones_that_count(
        self, adapter: MongoAdapter, database: Database[Raw], url: str, exists: bool
    ) -> None:
        session = saved(adapter) if exists else create_session(user_id="u")
        with self.sleeping(
            url, database, "update", "agent_sessions", lambda each: new_turn(each, session, None)
        ) as wake:
            assert not new_turn(adapter, session, None).repeated
            done = state_of(adapter, session.id)
            with pytest.raises(SessionConflictError):
                wake()
        assert state_of(adapter, session.id) == done
        nothing_is_left_over(adapter, database, done[0].session)

    def test_messages_that_somebody_gave_up_do_not_stop_who_wrote_them(
        self, adapter: MongoAdapter, database: Database[Raw], url: str
    ) -> None:
        """Another call takes the messages' place, and is refused then: the sleeper begins again."""
        session = saved(adapter)
        long = Message(id=f"{session.id}-0", session_id=session.id, role="user", content="x" * 17 * 2**20)
        with self.sleeping(
            url, database, "update", "agent_sessions", lambda each: new_turn(each, session)
        ) as wake:
            other = Message(id=f"{session.id}-1", session_id=session.id, role="user", content="other")
            with pytest.raises(InvalidInputError):
                adapter.commit(session, [other, long], expected_version=1)
            assert not wake().repeated
        found = adapter.load(session.id, last_messages=9)
        assert found is not None
        assert [each.content for each in found.messages] == ["old", "new", "new"]
        nothing_is_left_over(adapter, database, found.session)

    def test_a_session_that_was_deleted_meanwhile_stays_deleted(
        self, adapter: MongoAdapter, database: Database[Raw], url: str
    ) -> None:
        for command, collection in [("insert", "agent_messages"), ("update", "agent_sessions")]:
            session = saved(adapter)
            with self.sleeping(
                url,
                database,
                command,
                collection,
                lambda each, at=session: new_turn(each, at),  # type: ignore[misc]
            ) as wake:
                assert adapter.delete_sessions([Target(session.id)]) == [session.id]
                with pytest.raises(SessionConflictError) as conflict:
                    wake()
            assert conflict.value.actual_version is None
            for name in ("agent_sessions", "agent_messages", "agent_turns"):
                assert database[name].count_documents({}) == 0

    def test_a_turn_that_was_settled_under_a_deletion_is_gone(
        self, adapter: MongoAdapter, database: Database[Raw], url: str
    ) -> None:
        session = saved(adapter, commits=8)
        with self.sleeping(
            url, database, "insert", "agent_turns", lambda each: new_turn(each, session)
        ) as wake:
            assert adapter.delete_sessions([Target(session.id)]) == [session.id]
            with pytest.raises(SessionConflictError):
                wake()
        assert database.agent_turns.count_documents({}) == 0
        assert database.agent_messages.count_documents({}) == 0

    def test_a_session_that_is_created_twice_while_one_of_them_sleeps(
        self, adapter: MongoAdapter, database: Database[Raw], url: str
    ) -> None:
        """Created, deleted, and created again: what the sleeper read is not there any more."""
        session = create_session(user_id="u")
        with self.sleeping(
            url, database, "update", "agent_sessions", lambda each: new_turn(each, session)
        ) as wake:
            first = saved(adapter, session.id)
            adapter.delete_sessions([Target(first.id)])
            second = saved(adapter, session.id)
            with pytest.raises(SessionConflictError):
                wake()
        found = adapter.load(session.id, last_messages=9)
        assert found is not None
        assert (found.session, len(found.messages)) == (second, 1)
        nothing_is_left_over(adapter, database, second)

    def test_a_reader_sees_a_session_as_it_was_or_not_at_all(
        self, adapter: MongoAdapter, database: Database[Raw], url: str
    ) -> None:
        session = saved(adapter, commits=20)
        before = state_of(adapter, session.id)[0]

        def load(each: MongoAdapter) -> Any:
            return each.load(session.id, last_messages=100, turn_id="new")

        with self.sleeping(url, database, "find", "agent_messages", load) as wake:
            for _ in range(20):
                session = adapter.commit(session, expected_version=session.version).session
            new_turn(adapter, session)
            assert wake() == before
        with self.sleeping(url, database, "find", "agent_messages", load) as wake:
            adapter.delete_sessions([Target(session.id)])
            assert wake() is None
        saved(adapter, session.id)
        with self.sleeping(url, database, "find", "agent_messages", load) as wake:
            adapter.delete_sessions([Target(session.id)])
            again = saved(adapter, session.id, commits=3)
            assert wake().session == again

    def test_a_message_that_is_settled_while_a_user_is_looked_for_is_found(
        self, adapter: MongoAdapter, database: Database[Raw], url: str
    ) -> None:
        session = saved(adapter)

        def find(each: MongoAdapter) -> int:
            return len(each.find_messages(MessageQuery(user_id="u")).items)

        with self.sleeping(url, database, "find", "agent_sessions", find) as wake:
            for _ in range(9):
                session = adapter.commit(session, expected_version=session.version).session
            assert database.agent_messages.count_documents({"draft": None}) == 1
            assert wake() == 1


class Proxy:
    """Passes bytes on to a server, and loses the answer to the next message with `loses` in it."""

    def __init__(self, server: str) -> None:
        to = urlsplit(server)
        self._server = (to.hostname or "", to.port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"mongodb://127.0.0.1:{self._listener.getsockname()[1]}/?directConnection=true"
        self.loses: bytes | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                lost = threading.Event()
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(
                        target=self._pass, args=(source, sink, lost, client), daemon=True
                    ).start()

    def _pass(
        self, source: socket.socket, sink: socket.socket, lost: threading.Event, client: socket.socket
    ) -> None:
        with suppress(OSError):
            while data := source.recv(2**20):
                if source is client and self.loses is not None and self.loses in data:
                    self.loses = None
                    lost.set()
                elif source is not client and lost.is_set():
                    break  # the server has done it, and nobody hears of it
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # a mere close would wait for the other thread
            end.close()

    def close(self) -> None:
        self._listener.close()


class TestLostAnswers:
    """The connection is lost when the server has done what it was asked to."""

    @pytest.fixture(scope="class", params=[False, True], ids=["replica set", "single server"])
    @classmethod
    def server(
        cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[OwnMongoDB]:
        with OwnMongoDB(tmp_path_factory.mktemp("mongodb"), standalone=request.param) as server:
            yield server

    @pytest.fixture
    def proxy(self, server: OwnMongoDB) -> Iterator[Proxy]:
        proxy = Proxy(server.url)
        yield proxy
        proxy.close()

    @pytest.mark.parametrize("repeats", ["true", "false"], ids=["driver repeats", "driver does not"])
    @pytest.mark.parametrize("turn_id", ["new", None])
    @pytest.mark.parametrize("lost", [b"agent_messages", b"agent_sessions\x00\x08ordered", b"agent_turns"])
    def test_a_commit_whose_answer_is_lost_happens_once(
        self, proxy: Proxy, lost: bytes, turn_id: str | None, repeats: str
    ) -> None:
        """With a turn and without, whichever of its answers it is."""
        with MongoAdapter(f"{proxy.url}&retryWrites={repeats}") as adapter:
            session = saved(adapter)
            proxy.loses = lost
            committed = new_turn(adapter, session, turn_id)
            if turn_id is not None or lost != b"agent_turns":
                assert proxy.loses is None
            assert (committed.repeated, committed.session.version) == (False, 2)
            found = adapter.load(session.id, last_messages=100, turn_id="new")
            assert found is not None
            assert found.session == committed.session
            assert [each.content for each in found.messages] == ["old", "new", "new"]
            assert (found.turn is not None) == (turn_id is not None)

    def test_a_creation_and_a_deletion_whose_answers_are_lost(self, proxy: Proxy) -> None:
        with MongoAdapter(proxy.url) as adapter:
            proxy.loses = b"insert\x00"
            committed = new_turn(adapter, create_session())
            assert proxy.loses is None
            assert adapter.load(committed.session.id) is not None  # type: ignore[unreachable]
            proxy.loses = b"delete\x00"
            assert adapter.delete_sessions([Target(committed.session.id)]) == [committed.session.id]
            assert proxy.loses is None
            assert adapter.load(committed.session.id) is None


class TestServerAway:
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnMongoDB]:
        with OwnMongoDB(tmp_path_factory.mktemp("mongodb")) as server:
            yield server

    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch: pytest.MonkeyPatch, server: OwnMongoDB) -> Iterator[None]:
        monkeypatch.setattr(clients, "SERVER_SECONDS", 1.0)
        yield
        server.start()

    def test_calls_fail_while_the_server_is_away_and_work_when_it_is_back(self, server: OwnMongoDB) -> None:
        with MongoAdapter(server.url) as adapter:
            session = saved(adapter)
            server.kill()
            for call in (
                adapter.ping,
                lambda: adapter.load(session.id),
                lambda: new_turn(adapter, session),
            ):
                with pytest.raises(StoreUnavailableError):
                    call()
            server.start()
            committed = new_turn(adapter, session)
            assert (committed.repeated, committed.session.message_count) == (False, 3)

    def test_an_adapter_may_be_made_before_its_server_runs(self, server: OwnMongoDB) -> None:
        server.kill()
        with pytest.raises(StoreUnavailableError), MongoAdapter(server.url):
            pass
        with MongoClient[Raw](server.url, serverSelectionTimeoutMS=100) as client:
            adapter = MongoAdapter(client)
            with pytest.raises(StoreUnavailableError):
                adapter.ping()
            server.start()
            wait_until(lambda: _answers(adapter), what="the server")


def _answers(adapter: MongoAdapter) -> bool:
    try:
        adapter.ping()
    except StoreUnavailableError:
        return False
    return True


class TestProcesses:
    def test_each_process_opens_its_own_client_after_a_fork(
        self, adapter: MongoAdapter, database: Database[Raw], url: str
    ) -> None:
        session = saved(adapter)
        said = run_script(
            """
            import os, sys, warnings
            from inturn.persistence import MongoAdapter

            warnings.simplefilter("error")  # pymongo warns of a client that was opened before the fork
            adapter = MongoAdapter(sys.argv[1], database_name=sys.argv[2])
            state = adapter.load(sys.argv[3]).session
            if os.fork() == 0:
                state = adapter.commit(state, expected_version=1).session
                print(state.version, flush=True)
                adapter.close()
                sys.exit(0)
            os.wait()
            found = adapter.load(sys.argv[3]).session
            print(adapter.commit(found, expected_version=2).session.version)
            adapter.close()
            """,
            url,
            database.name,
            session.id,
        )
        assert said.split() == ["2", "3"]

    def test_processes_that_start_together_create_the_indexes_once(
        self, database: Database[Raw], url: str
    ) -> None:
        script = """
            import sys
            from inturn.persistence import MongoAdapter

            adapter = MongoAdapter(sys.argv[1], database_name=sys.argv[2])
            adapter.ping()
            print("ready", flush=True)
            sys.stdin.read()
            adapter.initialize()
            adapter.close()
        """
        with ExitStack() as stack:
            processes = [stack.enter_context(started_script(script, url, database.name)) for _ in range(3)]
            assert [next_line(process) for process in processes] == ["ready"] * 3
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
            assert [process.wait(60) for process in processes] == [0] * 3
        assert len(database.agent_sessions.index_information()) == 5

    def test_greenlets_wait_for_the_database_side_by_side(self, tmp_path: Path) -> None:
        """Under gevent a call that waits for the server lets the others go on."""
        with OwnMongoDB(tmp_path / "data") as server, socket.create_server(("127.0.0.1", 0)) as silent:
            said = run_script(
                """
                import sys
                from gevent import monkey, spawn, joinall
                monkey.patch_all()
                from inturn.errors import StoreUnavailableError
                from inturn.persistence import MongoAdapter
                from inturn.session import create_session

                adapter = MongoAdapter(sys.argv[1], pool_size=8)
                silent = MongoAdapter(sys.argv[2])
                waiting = [spawn(silent.ping) for _ in range(3)]
                others = [spawn(adapter.commit, create_session(), expected_version=0) for _ in range(50)]
                joinall(others, raise_error=True)
                print(len(others), [each.ready() for each in waiting], flush=True)
                for each in waiting:
                    each.kill()
                silent.close()
                adapter.close()
                """,
                server.url,
                f"mongodb://127.0.0.1:{silent.getsockname()[1]}/",
            )
        assert said == "50 [False, False, False]\n"
