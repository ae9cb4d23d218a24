"""SQLAlchemyAdapter on a real MariaDB: the whole kit, and what is special about that server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from traceback import format_exception

import pytest
from sqlalchemy import Connection, NullPool, create_engine, make_url, text

from inturn.errors import SessionConflictError, StoreError, StoreUnavailableError
from inturn.persistence import PersistenceAdapter, SessionQuery, SQLAlchemyAdapter, Target, open_adapter
from inturn.persistence.schema import current, upgrade
from inturn.session import Message, SessionState, TurnRecord, create_session
from inturn.testing.conformance import AdapterConformance
from inturn.testing.conformance.base import Reopen
from tests.foreign_tables import check_adopted, statements
from tests.servers_mariadb import mariadb, why_no_mariadb
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(why_no_mariadb() is not None, reason=why_no_mariadb() or "")


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    with mariadb() as url:
        yield url


class TestMariaDB(AdapterConformance):
    kills = 6

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, server_url: str) -> Iterator[PersistenceAdapter]:
        with open_adapter(server_url) as adapter:
            yield adapter

    @pytest.fixture
    def reopen(self, server_url: str) -> Reopen:
        return partial(open_adapter, server_url, pool_size=8)


@pytest.mark.variant
class TestCallersEngine(AdapterConformance):
    """A caller's engine, as SQLAlchemy makes it: transactions that repeat what they have read."""

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, server_url: str) -> Iterator[PersistenceAdapter]:
        engine = create_engine(make_url(server_url).set(drivername="mysql+pymysql"))
        with SQLAlchemyAdapter(engine, tables={"sessions": "custom_sessions"}) as adapter:
            yield adapter
        engine.dispose()


@pytest.fixture
def url(server_url: str) -> Iterator[str]:
    """The URL of an empty database."""
    name = f"inturn_test_{secrets.token_hex(4)}"
    with admin(server_url) as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
        connection.execute(text(f"DROP DATABASE {name}"))


@pytest.fixture
def adapter(url: str) -> Iterator[PersistenceAdapter]:
    with open_adapter(url, pool_size=8) as adapter:
        yield adapter


@contextmanager
def admin(url: str) -> Iterator[Connection]:
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def saved(adapter: PersistenceAdapter, session: SessionState | None = None) -> SessionState:
    session = session or create_session()
    return adapter.commit(session, [message(session)], expected_version=0).session


def message(session: SessionState) -> Message:
    return Message(session_id=session.id, role="user", content="hello")


class TestTexts:
    @pytest.mark.parametrize("other", ["Ann", "ann ", "änn", "ann\u200d"])
    def test_ids_that_look_alike_are_two(self, adapter: PersistenceAdapter, other: str) -> None:
        """The collations of old take capitals, accents and spaces at the end for nothing."""
        for name in ("ann", other):
            saved(adapter, create_session(name, user_id=name))
            found = adapter.load(name, last_messages=5)
            assert found is not None
            assert (found.session.id, len(found.messages)) == (name, 1)
            listed = adapter.find_sessions(SessionQuery(user_id=name)).items
            assert [session.id for session in listed] == [name]
            turn = TurnRecord(session_id="ann", turn_id=name)
            current = adapter.load("ann")
            assert current is not None
            version = current.session.version
            assert not adapter.commit(current.session, expected_version=version, turn=turn).repeated
        assert adapter.delete_sessions([Target(other)]) == [other]
        assert adapter.load("ann") is not None

    def test_ids_are_ordered_by_code_point(self, adapter: PersistenceAdapter) -> None:
        now = datetime(2200, 1, 1, tzinfo=UTC)
        names = ["B", "a", "b ", "ä", "𝄞"]
        for name in reversed(names):
            saved(adapter, create_session(name, updated_at=now))
        page = adapter.find_sessions(SessionQuery(order="oldest", limit=2))
        seen = [session.id for session in page.items]
        while page.cursor is not None:
            page = adapter.find_sessions(SessionQuery(order="oldest", limit=2, cursor=page.cursor))
            seen += [session.id for session in page.items]
        assert seen == names

    def test_the_longest_ids_fit_the_indexes(self, adapter: PersistenceAdapter) -> None:
        session = create_session("🙂" * 255, user_id="🙂" * 255)
        turn = TurnRecord(session_id=session.id, turn_id="x" * 512)
        said = Message(id="🙃" * 255, session_id=session.id, user_id=session.user_id, role="user", content="")
        committed = adapter.commit(session, [said], expected_version=0, turn=turn)
        assert adapter.load(session.id, last_messages=1, turn_id=turn.turn_id) == committed[:3]


class TestTransactions:
    @pytest.mark.parametrize("level", ["REPEATABLE READ", "READ COMMITTED", "SERIALIZABLE"])
    def test_a_commit_over_a_session_that_moved_on_is_a_conflict(self, url: str, level: str) -> None:
        """In a transaction that repeats its reads, a second look shows the state of the first."""
        engine = create_engine(url, isolation_level=level)
        with SQLAlchemyAdapter(engine) as mine, open_adapter(url) as other:
            session = saved(mine)
            for version in range(1, 5):
                moved = other.commit(session, [message(session)], expected_version=version).session
                with pytest.raises(SessionConflictError) as conflict:
                    mine.commit(session, [message(session)], expected_version=version)
                assert conflict.value.actual_version == version + 1
                found = mine.load(session.id, last_messages=100)
                assert found is not None
                assert found.session == moved
                assert len(found.messages) == moved.message_count
                session = moved
        engine.dispose()

    def test_a_transaction_that_loses_a_deadlock_is_repeated(
        self, adapter: PersistenceAdapter, url: str
    ) -> None:
        first, second = saved(adapter, create_session("a")), saved(adapter, create_session("b"))
        engine = create_engine(url, poolclass=NullPool)
        lock = "SELECT 1 FROM agent_sessions WHERE id = '{}' FOR UPDATE"
        with ThreadPoolExecutor(1) as thread, engine.connect() as rival:
            # A transaction that has changed much is not the one to be rolled back.
            for _ in range(100):
                rival.execute(text("INSERT INTO agent_turns VALUES ('b', UUID(), '{}', now())"))
            rival.execute(text(lock.format("b")))
            deleting = thread.submit(adapter.delete_sessions, [Target(first.id), Target(second.id)])
            wait_until(lambda: waiting(url) == 1, what="the deletion to wait")
            # The deletion has locked the first, in its order.
            rival.execute(text(lock.format("a")))
            rival.commit()
            assert sorted(deleting.result(timeout=60)) == ["a", "b"]

    @pytest.mark.parametrize("has_turn", [True, False])
    def test_a_commit_whose_connection_is_killed_under_it(
        self, adapter: PersistenceAdapter, url: str, has_turn: bool
    ) -> None:
        """With a turn it is repeated; without one nobody could tell whether it happened."""
        session = saved(adapter)
        turn = TurnRecord(session_id=session.id, turn_id="t") if has_turn else None
        engine = create_engine(url, poolclass=NullPool)
        with ThreadPoolExecutor(1) as thread, engine.connect() as lock:
            lock.execute(text("SELECT 1 FROM agent_sessions FOR UPDATE"))
            running = thread.submit(
                adapter.commit, session, [message(session)], expected_version=1, turn=turn
            )
            wait_until(lambda: waiting(url) == 1, what="the commit to wait")
            assert kill_connections(url, but=lock) >= 1
            lock.rollback()
            if has_turn:
                assert running.result(timeout=60).session.version == 2
            else:
                with pytest.raises(StoreUnavailableError):
                    running.result(timeout=60)
        found = adapter.load(session.id)
        assert found is not None
        assert found.session.version == (2 if has_turn else 1)

    def test_every_call_works_after_its_connections_were_killed(
        self, adapter: PersistenceAdapter, url: str
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
            assert kill_connections(url) >= 1
            call()


def waiting(url: str) -> int:
    """How many transactions wait for a lock."""
    with admin(url) as connection:
        query = "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
        return int(connection.scalar(text(query)) or 0)


def kill_connections(url: str, but: Connection | None = None) -> int:
    """End all connections to the database; how many there were."""
    spared = [0] if but is None else [but.scalar(text("SELECT connection_id()"))]
    with admin(url) as connection:
        query = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id NOT IN ({}, {})"
        own = connection.scalar(text("SELECT connection_id()"))
        ids = connection.scalars(text(query.format(own, spared[0]))).all()
        for each in ids:
            connection.execute(text(f"KILL {each}"))
        wait_until(
            lambda: not connection.scalars(text(query.format(own, spared[0]))).all(), what="them to end"
        )
        return len(ids)


class TestErrors:
    def test_missing_tables_are_named_with_the_mend(self, url: str) -> None:
        adapter = open_adapter(url)
        with pytest.raises(StoreError, match=r"initialize\(\)"):
            adapter.load("s")
        adapter.close()

    def test_a_server_that_is_away_and_a_wrong_password_are_told_without_it(self, url: str) -> None:
        parsed = make_url(url).set(username="nobody", password="hunter2")
        for wrong in (parsed, parsed.set(port=1)):
            adapter = SQLAlchemyAdapter(wrong)
            with pytest.raises(StoreError) as error:
                adapter.ping()
            adapter.close()
            assert "hunter2" not in str(error.value)
        assert isinstance(error.value, StoreUnavailableError)

    def test_values_are_in_no_error(self, adapter: PersistenceAdapter, url: str) -> None:
        session = saved(adapter)
        with admin(url) as connection:
            connection.execute(text("ALTER TABLE agent_messages MODIFY content VARCHAR(5) NOT NULL"))
        said = Message(session_id=session.id, role="user", content="my words")
        with pytest.raises(StoreError) as error:
            adapter.commit(session, [said], expected_version=1)
        assert "my words" not in "".join(format_exception(error.value))


class TestSchema:
    def test_migrations_and_adapters_make_the_same_schema(self, url: str) -> None:
        upgrade(url)
        migrated = described(url)
        with admin(url) as connection:
            connection.execute(text("DROP TABLE agent_turns, agent_messages, agent_sessions"))
        with open_adapter(url):
            pass
        assert described(url) == migrated
        assert "utf8mb4_nopad_bin" in str(migrated)

    def test_what_an_adapter_created_is_recognised(self, adapter: PersistenceAdapter, url: str) -> None:
        assert current(url).is_complete
        assert upgrade(url).revision == current(url).head

    def test_tables_of_prisma_models_are_adopted_without_loss(self, url: str) -> None:
        with admin(url) as connection:
            for statement in statements("mysql"):
                connection.exec_driver_sql(statement)
        upgrade(url)
        with open_adapter(url) as adapter:
            check_adopted(adapter)
            saved(adapter)
        assert upgrade(url).is_complete

    def test_an_upgrade_that_was_interrupted_is_finished_by_the_next(self, url: str) -> None:
        """Here nothing undoes the half that is done."""
        with admin(url) as connection:
            for statement in statements("mysql"):
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql("CREATE VIEW agent_turns AS SELECT 1 AS nonsense")
            with pytest.raises(StoreError):
                upgrade(url)
            connection.exec_driver_sql("DROP VIEW agent_turns")
        upgrade(url)
        with open_adapter(url) as adapter:
            check_adopted(adapter)

    def test_processes_that_start_together_create_the_tables_once(self, url: str) -> None:
        with ThreadPoolExecutor(4) as threads:
            states = list(threads.map(lambda _: upgrade(url), range(4)))
        assert all(state.is_complete for state in states)


def described(url: str) -> list[set[str]]:
    """What each table is made of, which MariaDB itself says."""
    with admin(url) as connection:
        tables = ("agent_sessions", "agent_messages", "agent_turns")
        created = [connection.execute(text(f"SHOW CREATE TABLE {table}")).one()[1] for table in tables]
    return [{line.strip(" ,") for line in each.splitlines()} for each in created]
