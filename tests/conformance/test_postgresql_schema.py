"""What PostgreSQLAdapter makes of a database, and what a call costs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import psycopg
import pytest

from inturn.errors import ConfigurationError
from inturn.persistence import MessageQuery, PostgreSQLAdapter, SessionQuery
from inturn.session import Message, TurnRecord, create_session


@pytest.fixture
def connection(schema_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(schema_url, autocommit=True) as connection:
        yield connection


def indexes(connection: psycopg.Connection[Any], schema: str) -> dict[str, str]:
    found = connection.execute("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = %s", [schema])
    return {name: definition.partition(" USING btree ")[2] for name, definition in found}


class TestTables:
    def test_the_tables_have_their_usual_names_and_indexes(
        self, connection: psycopg.Connection[Any], schema: str
    ) -> None:
        with PostgreSQLAdapter(connection):
            pass
        assert indexes(connection, schema) == {
            "agent_sessions_pkey": "(id)",
            "idx_sessions_user_status": "(user_id, status)",
            "idx_sessions_updated": "(updated_at, id)",
            "agent_messages_pkey": "(id)",
            "idx_messages_session": "(session_id, sequence)",
            "idx_messages_created": "(created_at)",
            "idx_messages_user": "(user_id, created_at, id) WHERE (user_id IS NOT NULL)",
            "agent_turns_pkey": "(session_id, turn_id)",
        }
        types = connection.execute(
            "SELECT column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = %s AND table_name = 'agent_sessions'",
            [schema],
        )
        assert {
            "collected_data": "jsonb",
            "updated_at": "timestamp with time zone",
            "version": "bigint",
        }.items() <= dict(types.fetchall()).items()

    def test_other_names_are_honoured_for_tables_and_indexes(
        self, connection: psycopg.Connection[Any], schema: str
    ) -> None:
        with PostgreSQLAdapter(connection):
            pass
        with PostgreSQLAdapter(connection, tables={"sessions": "custom", "messages": f"{schema}.Lines"}):
            pass
        made = indexes(connection, schema)
        assert {"custom_user_status_idx", "Lines_session_idx", "custom_turns_pkey"} < set(made)
        # As many as the usual tables have.
        assert len(made) == 16

    def test_sessions_of_two_sets_of_tables_never_meet(self, connection: psycopg.Connection[Any]) -> None:
        with (
            PostgreSQLAdapter(connection) as usual,
            PostgreSQLAdapter(connection, tables={"sessions": "x"}) as other,
        ):
            session = create_session()
            turn = TurnRecord(session_id=session.id, turn_id="t")
            message = Message(session_id=session.id, role="user", content="hi")
            for adapter in (usual, other):
                assert not adapter.commit(session, [message], expected_version=0, turn=turn).repeated

    def test_initialize_takes_no_lock_where_all_is_there(
        self, connection: psycopg.Connection[Any], schema_url: str
    ) -> None:
        """A process may start while a long transaction writes."""
        with PostgreSQLAdapter(connection) as adapter, psycopg.connect(schema_url) as writer:
            writer.execute("LOCK TABLE agent_sessions, agent_messages, agent_turns IN ROW EXCLUSIVE MODE")
            connection.execute("SET lock_timeout = '1s'")
            adapter.initialize()

    @pytest.mark.parametrize(
        "names",
        [
            {"sessions": ""},
            {"sessions": "a b"},
            {"sessions": 'a"; DROP TABLE x; --'},
            {"sessions": "a.b.c"},
            {"sessions": "1a"},
            {"sessions": "x" * 48},
            {"sessions": None},
            {"sessions": "same", "messages": "same"},
            {"session": "a"},
        ],
    )
    def test_names_that_cannot_work_are_refused(self, schema_url: str, names: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError):
            PostgreSQLAdapter(schema_url, tables=names)


class Counting(psycopg.Cursor[Any]):
    """Notes what all of its kind execute."""

    statements: ClassVar[list[tuple[Any, Any]]] = []

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        self.statements.append((query, params))
        return super().execute(query, params, **options)


class TestCost:
    @pytest.fixture
    def counted(self, connection: psycopg.Connection[Any]) -> PostgreSQLAdapter:
        adapter = PostgreSQLAdapter(connection)
        adapter.initialize()
        connection.cursor_factory = Counting
        Counting.statements.clear()
        return adapter

    def test_a_load_and_a_commit_are_one_statement_each(self, counted: PostgreSQLAdapter) -> None:
        session = create_session()
        for version in range(3):
            turn = TurnRecord(session_id=session.id, turn_id=str(version))
            some = [Message(session_id=session.id, role="user", content="hi") for _ in range(4)]
            session = counted.commit(session, some, expected_version=version, turn=turn).session
            assert len(Counting.statements) == 1
            Counting.statements.clear()
            assert counted.load(session.id, last_messages=50, turn_id=turn.turn_id) is not None
            assert len(Counting.statements) == 1
            Counting.statements.clear()

    def test_the_cost_is_flat_in_the_length_of_the_session(
        self, counted: PostgreSQLAdapter, connection: psycopg.Connection[Any]
    ) -> None:
        """Pages touched, as PostgreSQL itself counts them: of 20 messages and of 20,000."""
        short, long = (self._session_of(counted, length) for length in (20, 20_000))
        connection.execute("VACUUM ANALYZE agent_sessions, agent_messages, agent_turns")
        for call in ("load", "commit", "newest messages", "messages after"):
            pages = []
            for session in (short, long):
                Counting.statements.clear()
                if call == "load":
                    counted.load(session.id, last_messages=10, turn_id="t")
                elif call == "commit":
                    more = [Message(session_id=session.id, role="user", content="hi")]
                    with connection.transaction(force_rollback=True):
                        counted.commit(session, more, expected_version=session.version)
                else:
                    bounds = {"order": "newest"} if call == "newest messages" else {"after": 3}
                    counted.find_messages(MessageQuery(session_id=session.id, limit=10, **bounds))
                pages.append(self._pages(connection, *Counting.statements[0]))
            assert pages[1] <= pages[0] * 1.1 + 3, f"{call}: {pages}"

    def test_lists_are_read_from_an_index(
        self, counted: PostgreSQLAdapter, connection: psycopg.Connection[Any]
    ) -> None:
        """None of them reads a whole table, or sorts one."""
        for n in range(300):
            session = create_session(user_id=f"user-{n % 100}")
            said = {
                "session_id": session.id,
                "user_id": session.user_id,
                "role": "user",
                "content": "x" * 500,
            }
            some = [Message.model_validate(said) for _ in range(10)]
            counted.commit(session, some, expected_version=0)
        connection.execute("VACUUM ANALYZE agent_sessions, agent_messages")
        Counting.statements.clear()
        counted.find_sessions(SessionQuery(user_id="user-7", status="active"))
        counted.find_sessions(SessionQuery(order="oldest", limit=5))
        cursor = counted.find_messages(MessageQuery(user_id="user-7", limit=5)).cursor
        counted.find_messages(MessageQuery(user_id="user-7", limit=5, cursor=cursor))
        plans = []
        for query, parameters in list(Counting.statements):
            explained = connection.execute(b"EXPLAIN " + query, parameters)
            plans.append("\n".join(line for (line,) in explained.fetchall()))
        for plan, index in zip(
            plans,
            ["idx_sessions_user_status", "idx_sessions_updated", "idx_messages_user", "idx_messages_user"],
            strict=True,
        ):
            assert index in plan
            assert "Seq Scan" not in plan

    def _session_of(self, adapter: PostgreSQLAdapter, length: int) -> Any:
        session = create_session()
        some = [Message(session_id=session.id, role="user", content="hello " * 20) for _ in range(length)]
        turn = TurnRecord(session_id=session.id, turn_id="t")
        return adapter.commit(session, some, expected_version=0, turn=turn).session

    def _pages(self, connection: psycopg.Connection[Any], query: bytes, parameters: Any) -> int:
        with connection.transaction(force_rollback=True):
            explained = connection.execute(b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + query, parameters)
            (((plan,),),) = explained.fetchall()
        return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])
