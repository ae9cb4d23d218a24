"""RedisAdapter among faults: lost answers, servers that go and come back, forks, greenlets, other hands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry
from structlog.testing import capture_logs

from inturn.embedded.valkey import EmbeddedValkey
from inturn.errors import ConfigurationError, SessionConflictError, StoreError, StoreUnavailableError
from inturn.persistence import MessageQuery, PersistenceAdapter, RedisAdapter, SessionQuery, Target
from inturn.session import Message, SessionState, TurnRecord, create_session
from inturn.testing.conformance.races import at_once
from tests.conformance.scripts import run_script
from tests.cutting import CuttingProxy

Call = Callable[[], object]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A server that these tests may stop, kill and set up as they like."""
    directory: Path = tmp_path_factory.mktemp("valkey")
    with EmbeddedValkey(directory) as server:
        yield server


@pytest.fixture
def admin(server: EmbeddedValkey) -> Iterator[Any]:
    with Redis.from_url(server.url) as client:
        yield client
        client.flushall()


@pytest.fixture
def adapter(server: EmbeddedValkey, admin: Any) -> Iterator[RedisAdapter]:
    with RedisAdapter(server.url) as adapter:
        yield adapter


@pytest.fixture
def proxy(server: EmbeddedValkey) -> Iterator[CuttingProxy]:
    with CuttingProxy(server.port) as proxy:
        yield proxy


def message(session: SessionState) -> Message:
    return Message(session_id=session.id, role="user", content="hello")


def saved(adapter: PersistenceAdapter, **fields: Any) -> SessionState:
    return adapter.commit(create_session(**fields), expected_version=0).session


def every_call(adapter: PersistenceAdapter, session: SessionState) -> list[Call]:
    """All primitives but `commit` and `delete_sessions`, which change what they find."""
    return [
        adapter.ping,
        adapter.initialize,
        lambda: adapter.load(session.id, last_messages=3, turn_id="t"),
        lambda: adapter.find_sessions(SessionQuery()),
        lambda: adapter.find_messages(MessageQuery(session_id=session.id)),
        lambda: adapter.find_messages(MessageQuery(user_id="ann")),
    ]


class TestLostAnswers:
    @pytest.mark.parametrize("has_turn", [True, False])
    def test_a_commit_whose_answer_is_lost_is_repeated_and_happens_once(
        self, proxy: CuttingProxy, adapter: RedisAdapter, has_turn: bool
    ) -> None:
        """The repetition knows its own commit, so it is neither a conflict nor somebody else's turn."""
        session = saved(adapter)
        turn = TurnRecord(session_id=session.id, turn_id="t", result={"a": 1}) if has_turn else None
        with RedisAdapter(f"redis://127.0.0.1:{proxy.port}") as mine:
            mine.ping()
            proxy.cut_next = 1
            committed = mine.commit(session, [message(session)], expected_version=1, turn=turn)
        assert proxy.cuts == 1
        assert (committed.repeated, committed.turn, committed.session.version) == (False, turn, 2)
        found = adapter.load(session.id, last_messages=9, turn_id="t")
        assert found == (committed.session, committed.messages, turn)

    def test_a_turn_whose_answer_is_lost_for_good_is_settled_by_its_id(
        self, proxy: CuttingProxy, adapter: RedisAdapter
    ) -> None:
        session = saved(adapter)
        turn = TurnRecord(session_id=session.id, turn_id="t", result={"a": 1})

        def commit(adapter: RedisAdapter) -> Any:
            return adapter.commit(session, [message(session)], expected_version=1, turn=turn)

        never: Any = NoBackoff()
        with Redis(port=proxy.port, retry=Retry(never, 0)) as client:
            mine = RedisAdapter(client)
            mine.ping()
            proxy.cut_next = 1
            with pytest.raises(StoreUnavailableError):
                commit(mine)
            again = commit(mine)
        assert (again.repeated, again.turn) == (True, turn)
        found = adapter.load(session.id, last_messages=9)
        assert found is not None
        assert (found.session.version, len(found.messages)) == (2, 1)

    def test_what_others_did_since_is_not_taken_for_ones_own(
        self, proxy: CuttingProxy, adapter: RedisAdapter
    ) -> None:
        session = saved(adapter)
        adapter.commit(session, expected_version=1)
        with pytest.raises(SessionConflictError):
            adapter.commit(session, expected_version=1)

    def test_a_deletion_whose_answer_is_lost_is_not_repeated(
        self, proxy: CuttingProxy, adapter: RedisAdapter
    ) -> None:
        """It would return fewer IDs than are gone by it."""
        session = saved(adapter)
        with RedisAdapter(f"redis://127.0.0.1:{proxy.port}") as mine:
            mine.delete_sessions([Target("nobody")])
            proxy.cut_next = 1
            with pytest.raises(StoreUnavailableError):
                mine.delete_sessions([Target(session.id)])
        assert adapter.load(session.id) is None

    def test_every_call_works_after_its_connections_were_killed(
        self, adapter: RedisAdapter, admin: Any
    ) -> None:
        session = saved(adapter)
        changes: list[Call] = [
            lambda: adapter.commit(session, [message(session)], expected_version=1),
            lambda: adapter.delete_sessions([Target(session.id)]),
        ]
        for call in every_call(adapter, session) + changes:
            admin.client_kill_filter(_type="normal", skipme=True)
            call()
        assert adapter.load(session.id) is None


class TestServerAway:
    @pytest.fixture(autouse=True)
    def back_again(self, server: EmbeddedValkey) -> Iterator[None]:
        yield
        server.stop()
        server.start()

    @pytest.mark.parametrize("crash", [False, True])
    def test_sessions_are_there_after_a_restart(
        self, server: EmbeddedValkey, adapter: RedisAdapter, crash: bool
    ) -> None:
        """With an append-only file; the scripts, which a server forgets, are sent anew."""
        session = saved(adapter, user_id="ann")
        turn = TurnRecord(session_id=session.id, turn_id="t")
        session = adapter.commit(session, [message(session)], expected_version=1, turn=turn).session
        at_once([adapter], lambda each, _: each.load(session.id))
        server.kill() if crash else server.stop()
        commit: Call = partial(adapter.commit, session, expected_version=2)
        for call in [*every_call(adapter, session), commit]:
            with pytest.raises(StoreUnavailableError) as error:
                call()
            assert "127.0.0.1" in str(error.value)
        server.start()
        again = adapter.commit(session, [message(session)], expected_version=2)
        assert not again.repeated
        found = adapter.load(session.id, last_messages=9, turn_id="t")
        assert found is not None
        assert (found.session, len(found.messages), found.turn) == (again.session, 2, turn)
        assert [each.id for each in adapter.find_sessions(SessionQuery(user_id="ann")).items] == [session.id]
        at_once([adapter], lambda each, _: each.load(session.id))

    def test_an_adapter_may_be_made_before_its_server_runs(self, server: EmbeddedValkey) -> None:
        server.stop()
        with pytest.raises(StoreUnavailableError), RedisAdapter(server.url):
            pass
        adapter = RedisAdapter(server.url)
        with pytest.raises(StoreUnavailableError):
            adapter.ping()
        server.start()
        adapter.ping()
        adapter.close()

    def test_a_server_that_forgot_its_scripts_gets_them_again(
        self, adapter: RedisAdapter, admin: Any
    ) -> None:
        session = saved(adapter)
        changes: list[Call] = [
            lambda: adapter.commit(session, [message(session)], expected_version=1),
            lambda: adapter.delete_sessions([Target(session.id)]),
        ]
        for call in every_call(adapter, session) + changes:
            admin.script_flush()
            call()

    def test_a_full_server_refuses_a_commit_as_a_whole(self, adapter: RedisAdapter, admin: Any) -> None:
        session = saved(adapter, user_id="ann")
        admin.config_set("maxmemory", 1)
        try:
            with pytest.raises(StoreUnavailableError, match="memory"):
                adapter.commit(session, [message(session)], expected_version=1)
            found = adapter.load(session.id, last_messages=9)
            listed = adapter.find_sessions(SessionQuery(user_id="ann"))
        finally:
            admin.config_set("maxmemory", 0)
        assert found == (session, [], None)
        assert listed.items == [session]
        adapter.commit(session, [message(session)], expected_version=1)

    def test_a_replica_that_takes_no_writes_is_unavailable(self, adapter: RedisAdapter, admin: Any) -> None:
        session = saved(adapter)
        admin.replicaof("127.0.0.1", 1)
        try:
            with pytest.raises(StoreUnavailableError, match="read only"):
                adapter.commit(session, expected_version=1)
        finally:
            admin.replicaof("no", "one")


class TestProcesses:
    def test_each_process_opens_its_own_connections_after_a_fork(
        self, adapter: RedisAdapter, server: EmbeddedValkey
    ) -> None:
        session = saved(adapter)
        said = run_script(
            """
            import os, sys
            from redis import Redis
            from inturn.persistence import RedisAdapter

            client = Redis.from_url(sys.argv[1])
            adapters = [RedisAdapter(sys.argv[1], pool_size=1), RedisAdapter(client)]
            versions = lambda: [each.load(sys.argv[2]).session.version for each in adapters]
            mine, before = client.client_id(), versions()
            read, write = os.pipe()
            if os.fork() == 0:
                ok = client.client_id() != mine and versions() == before
                adapters[0].close()
                os.write(write, b"y" if ok else b"n")
                sys.exit(0)  # with all finalizers, which must not end the parent's connections
            child = os.read(read, 1)
            os.wait()
            print(child.decode(), client.client_id() == mine, versions())
            adapters[0].close()
            client.close()
            """,
            server.url,
            session.id,
        )
        assert said.split(maxsplit=2) == ["y", "True", "[1, 1]\n"]

    def test_greenlets_wait_for_the_server_side_by_side(
        self, adapter: RedisAdapter, proxy: CuttingProxy
    ) -> None:
        """Under gevent a call that waits for a connection or an answer lets the others go on."""
        said = run_script(
            """
            from gevent import monkey, spawn, joinall
            monkey.patch_all()
            from inturn.persistence import RedisAdapter
            from inturn.session import create_session

            adapter = RedisAdapter(sys.argv[1], pool_size=4)
            ticks = []
            def tick():
                import time
                while len(ticks) < 1000:
                    ticks.append(1)
                    time.sleep(0)
            watcher = spawn(tick)
            commits = [spawn(adapter.commit, create_session(), expected_version=0) for _ in range(100)]
            joinall(commits, raise_error=True)
            print(len({each.value.session.id for each in commits}), len(ticks) > 1)
            adapter.close()
            """,
            f"redis://127.0.0.1:{proxy.port}",
        )
        assert said == "100 True\n"


class TestOtherHands:
    """What administrators, callers and other programs do."""

    def test_a_closed_adapter_says_so_and_a_callers_client_stays_open(self, server: EmbeddedValkey) -> None:
        adapter = RedisAdapter(server.url)
        adapter.ping()
        adapter.close()
        with pytest.raises(StoreError, match="closed"):
            adapter.ping()
        with Redis.from_url(server.url) as client:
            with RedisAdapter(client) as mine:
                mine.ping()
            assert client.ping()

    def test_a_row_that_cannot_be_read_is_a_store_error_without_its_text(
        self, adapter: RedisAdapter, admin: Any
    ) -> None:
        session = saved(adapter)
        key = f"agent:session:{session.id}"
        row = admin.hget(key, "row")
        assert isinstance(row, bytes)
        broken_rows = [
            row.replace(b'"active"', b'"my secret"'),
            b'{"my secret"',
            b'["my secret"]',
            b"\xff",
            b"{}",
        ]
        for broken in broken_rows:
            admin.hset(key, "row", broken)
            with pytest.raises(StoreError) as error:
                adapter.load(session.id)
            assert "my secret" not in str(error.value)

    def test_a_key_of_another_kind_is_a_store_error(self, adapter: RedisAdapter, admin: Any) -> None:
        admin.set("agent:session:s", "my secret")
        with pytest.raises(StoreError, match="WRONGTYPE") as error:
            adapter.load("s")
        assert not isinstance(error.value, StoreUnavailableError)

    def test_a_wrong_password_is_no_outage_and_not_shown(self, server: EmbeddedValkey, admin: Any) -> None:
        admin.acl_setuser("reader", enabled=True, passwords=["+right"], keys=["*"], categories=["+@read"])
        for password, meant in (("hunter2", "login"), ("right", "NoPermission")):
            url = server.url.replace("//", f"//reader:{password}@")
            adapter = RedisAdapter(url)
            with pytest.raises(StoreError, match=meant) as error:
                adapter.load("s")
            adapter.close()
            assert not isinstance(error.value, StoreUnavailableError)
            assert "hunter2" not in str(error.value)
        admin.acl_deluser("reader")

    def test_a_user_with_the_rights_of_the_docs_can_do_everything(
        self, server: EmbeddedValkey, admin: Any
    ) -> None:
        page = (Path(__file__).parents[2] / "docs" / "persistence-redis.md").read_text()
        (rights,) = [line for line in page.splitlines() if line.startswith("ACL SETUSER")]
        admin.execute_command(*rights.replace("SECRET", "right").split())
        name = rights.split()[2]
        with RedisAdapter(server.url.replace("//", f"//{name}:right@"), session_ttl=60) as mine:
            session = saved(mine, user_id="ann")
            mine.commit(session, [message(session)], expected_version=1)
            for call in every_call(mine, session):
                call()
            assert mine.delete_sessions([Target(session.id)]) == [session.id]
        admin.acl_deluser(name)

    def test_eviction_is_warned_of(self, adapter: RedisAdapter, admin: Any) -> None:
        with capture_logs() as logs:
            adapter.initialize()
            assert logs == []
            admin.config_set("maxmemory-policy", "allkeys-lru")
            adapter.initialize()
            admin.config_set("maxmemory-policy", "noeviction")
        assert [(each["log_level"], each["maxmemory_policy"]) for each in logs] == [
            ("warning", "allkeys-lru")
        ]

    def test_a_cluster_is_refused(self, tmp_path: Path) -> None:
        with EmbeddedValkey(tmp_path, appendonly=False, config={"cluster-enabled": "yes"}) as node:
            adapter = RedisAdapter(node.url)
            with pytest.raises(ConfigurationError, match="Cluster"):
                adapter.initialize()
            adapter.close()


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        "url",
        [
            "redis://me:hunter2@[::1/0",
            "redis://me:hunter2@host:port/0",
            "redis://me:hunter2@host/0?nonsense=1",
            "redis://me:hunter2@host/0?socket_timeout=soon",
            "http://me:hunter2@host/0",
        ],
    )
    def test_a_url_that_is_none_is_refused_without_showing_it(self, url: str) -> None:
        with pytest.raises(ConfigurationError) as error:
            RedisAdapter(url)
        assert "hunter2" not in str(error.value)

    @pytest.mark.parametrize("source", [7, None, RedisCluster, b"redis://host"])
    def test_a_source_of_no_kind_is_refused(self, source: Any) -> None:
        with pytest.raises(ConfigurationError, match="URL"):
            RedisAdapter(source)

    @pytest.mark.parametrize("ttl", [0, -1, True, "60", float("nan"), float("inf"), 1e11])
    @pytest.mark.parametrize("name", ["session_ttl", "message_ttl"])
    def test_what_is_no_time_to_live_is_refused(self, name: str, ttl: Any) -> None:
        with pytest.raises(ConfigurationError, match=name):
            RedisAdapter("redis://host", **{name: ttl})

    @pytest.mark.parametrize("prefix", [None, 7, "a\n", "a\x00"])
    def test_what_is_no_prefix_is_refused(self, prefix: Any) -> None:
        with pytest.raises(ConfigurationError, match="key_prefix"):
            RedisAdapter("redis://host", key_prefix=prefix)

    def test_a_pool_must_have_a_connection(self) -> None:
        with pytest.raises(ConfigurationError, match="pool_size"):
            RedisAdapter("redis://host", pool_size=0)
