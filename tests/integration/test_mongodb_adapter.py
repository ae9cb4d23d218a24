"""MongoAdapter: the faults of the system it replaces, what a call costs, and what MongoDB does not take."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import bson
import pytest
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ExecutionTimeout,
    NotPrimaryError,
    OperationFailure,
    WriteConcernError,
    WTimeoutError,
)
from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)

from inturn.errors import ConfigurationError, InvalidInputError, StoreError, StoreUnavailableError
from inturn.persistence import MessageQuery, MongoAdapter, PersistenceManager, SessionQuery, Target
from inturn.persistence.mongo import clients
from inturn.session import Message, SessionManager, SessionState, TurnRecord, create_session
from inturn.session.state import RouteRef, StepRef
from inturn.testing.conformance.races import at_once
from tests.servers_mongodb import mongodb

SAID = "what the user said"
Raw = dict[str, Any]


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


def message(session: SessionState, content: str = "hello", **fields: Any) -> Message:
    return Message(session_id=session.id, role="user", content=content, user_id=session.user_id, **fields)


def saved(adapter: MongoAdapter, count: int = 1, **fields: Any) -> SessionState:
    session = create_session(**fields)
    return adapter.commit(session, [message(session) for _ in range(count)], expected_version=0).session


class TestFaultsOfTheOriginal:
    def test_the_indexes_are_made(self, adapter: MongoAdapter, database: Database[Raw]) -> None:
        """The original made no index: every listing read the whole collection."""
        for collection, field in [
            ("agent_sessions", "user_id"),
            ("agent_sessions", "agent_name"),
            ("agent_sessions", "updated_at"),
            ("agent_messages", "life"),
            ("agent_messages", "user_id"),
            ("agent_turns", "life"),
        ]:
            indexes = database[collection].index_information().values()
            assert field in [index["key"][0][0] for index in indexes]
        assert database.agent_turns.index_information()["life_1_turn_id_1"]["unique"]

    @pytest.mark.parametrize(
        ("collection", "wanted"),
        [
            ("agent_sessions", {"_id": "s"}),
            ("agent_sessions", {"user_id": "u", "updated_at": {"$gt": "2024"}}),
            ("agent_sessions", {"updated_at": {"$gt": "2024", "$lt": "2025"}}),
            ("agent_messages", {"life": bson.ObjectId("0" * 24), "sequence": {"$gte": 5, "$lte": 9}}),
            ("agent_messages", {"user_id": "u"}),
            ("agent_turns", {"life": bson.ObjectId("0" * 24), "turn_id": "t"}),
        ],
        ids=str,
    )
    def test_no_search_reads_a_whole_collection(
        self, adapter: MongoAdapter, database: Database[Raw], collection: str, wanted: Raw
    ) -> None:
        """The original made no index: every listing read the whole collection."""
        saved(adapter)
        plan = str(database[collection].find(wanted).explain()["queryPlanner"]["winningPlan"])
        assert "COLLSCAN" not in plan

    def test_what_was_cleared_does_not_come_back(
        self, adapter: MongoAdapter, database: Database[Raw]
    ) -> None:
        """In the original undefined left the old value, or became null: a finished route returned."""
        session = saved(
            adapter,
            data={"city": "Lagos", "date": "today"},
            current_route=RouteRef(id="booking"),
            current_step=StepRef(id="ask"),
            pending={"go": "on"},
        )
        session.current_route = session.current_step = session.pending = None
        del session.data["city"]
        session.metadata["kept"] = None
        adapter.commit(session, expected_version=1)
        found = adapter.load(session.id)
        assert found is not None
        assert (found.session.current_route, found.session.current_step, found.session.pending) == (None,) * 3
        assert (found.session.data, found.session.metadata) == ({"date": "today"}, {"kept": None})
        assert "Lagos" not in str(database.agent_sessions.find_one({"_id": session.id}))

    def test_a_session_that_many_create_is_created_once(
        self, adapter: MongoAdapter, database: Database[Raw], url: str
    ) -> None:
        """The original looked, found none and inserted: two processes left two documents of one session."""
        with MongoAdapter(url, database_name=database.name) as other:
            for number in range(5):
                session_id = f"s-{number}"

                def create(each: MongoAdapter, writer: int, session_id: str = session_id) -> str:
                    manager = SessionManager(PersistenceManager(each), session_id=session_id)
                    manager.get_or_create()
                    manager.add_message("user", str(writer))
                    return session_id

                at_once([adapter, other], create)  # type: ignore[arg-type]
                found = adapter.load(session_id, last_messages=100)
                assert found is not None
                assert sorted(item.content for item in found.messages) == list("01234567")
        assert database.agent_sessions.count_documents({}) == 5

    def test_a_writer_that_comes_late_overwrites_nothing(self, adapter: MongoAdapter) -> None:
        """The original's update named the version, and its caller then kept the stale copy."""
        session = saved(adapter)
        with ThreadPoolExecutor(2) as threads:
            futures = [
                threads.submit(adapter.commit, session, [message(session)], expected_version=1)
                for _ in range(2)
            ]
        assert sorted(type(future.exception()).__name__ for future in futures) == [
            "NoneType",
            "SessionConflictError",
        ]


class TestCost:
    """Commands and bytes between driver and server, which both sides count alike."""

    class Meter(CommandListener):
        def __init__(self) -> None:
            self.commands = 0
            self.bytes = 0

        def started(self, event: CommandStartedEvent) -> None:
            self.commands += 1
            self.bytes += len(bson.encode(event.command))

        def succeeded(self, event: CommandSucceededEvent) -> None:
            self.bytes += len(bson.encode(event.reply))

        def failed(self, event: CommandFailedEvent) -> None:
            raise AssertionError(event.failure)

    def test_the_cost_is_flat_in_the_length_of_the_session(
        self, adapter: MongoAdapter, database: Database[Raw], url: str
    ) -> None:
        sessions = [create_session(), create_session()]
        for number in range(20):
            for each, count in zip(sessions, (1, 100), strict=True):
                record = TurnRecord(session_id=each.id, turn_id=f"{number}")
                some = [message(each) for _ in range(count)]
                each.adopt(adapter.commit(each, some, expected_version=number, turn=record).session)
        meter = self.Meter()
        newest = MessageQuery(session_id="-", limit=10, order="newest")
        after = MessageQuery(session_id="-", limit=10, after=5)

        def turns(session: SessionState) -> None:
            for number in range(18):
                record = TurnRecord(session_id=session.id, turn_id=f"t-{number}", result={"reply": SAID})
                two = [message(session), message(session)]
                session.adopt(
                    metered.commit(session, two, expected_version=session.version, turn=record).session
                )

        calls: list[Callable[[SessionState], object]] = [
            turns,
            lambda session: metered.load(session.id, last_messages=10, turn_id="0"),
            lambda session: metered.find_messages(replace(newest, session_id=session.id)),
            lambda session: metered.find_messages(replace(after, session_id=session.id)),
        ]
        with MongoClient[Raw](url, event_listeners=[meter]) as client:
            metered = MongoAdapter(client, database_name=database.name)
            metered.ping()
            for call, most in zip(calls, (18 * 4 + 3 * 4, 3, 2, 2), strict=True):
                costs = []
                for session in sessions:
                    meter.commands = meter.bytes = 0
                    call(session)
                    costs.append((meter.commands, meter.bytes))
                (short, short_bytes), (long, long_bytes) = costs
                assert short == long <= most
                assert 0 < long_bytes <= 1.1 * short_bytes

    def test_a_turn_writes_its_own_rows_only(
        self, adapter: MongoAdapter, database: Database[Raw], url: str
    ) -> None:
        """Nothing of the messages that were there before goes over the wire in either direction."""
        session = create_session()
        some = [message(session, SAID) for _ in range(50)]
        session = adapter.commit(session, some, expected_version=0).session

        class Watch(CommandListener):
            heard = ""

            def started(self, event: CommandStartedEvent) -> None:
                self.heard += str(event.command)

            def succeeded(self, event: CommandSucceededEvent) -> None:
                self.heard += str(event.reply)

            def failed(self, event: CommandFailedEvent) -> None: ...

        watch = Watch()
        with MongoClient[Raw](url, event_listeners=[watch]) as client:
            watched = MongoAdapter(client, database_name=database.name)
            for _ in range(10):
                session = watched.commit(
                    session, [message(session)], expected_version=session.version
                ).session
        assert "hello" in watch.heard
        assert SAID not in watch.heard


class TestValues:
    def test_keys_that_mean_something_to_mongodb_are_only_keys(self, adapter: MongoAdapter) -> None:
        odd: dict[str, Any] = {
            "$set": {"a.b": 1},
            "a.b.c": [],
            "": {"$where": "sleep(1000)"},
            "$": None,
            "_id": 1,
        }
        session = create_session(data=odd, metadata=odd, pending=odd)
        record = TurnRecord(session_id=session.id, turn_id="$ne", result=odd)
        said = message(session, "$set", event=odd, tool_calls=[odd])
        adapter.commit(session, [said], expected_version=0, turn=record)
        found = adapter.load(session.id, last_messages=1, turn_id="$ne")
        assert found is not None
        assert found.turn == record
        assert (found.session.data, found.session.metadata, found.session.pending) == (odd, odd, odd)
        assert (found.messages[0].event, found.messages[0].tool_calls) == (odd, [odd])

    def test_numbers_and_depths_that_bson_does_not_have_come_back(self, adapter: MongoAdapter) -> None:
        deep: Any = "bottom"
        for _ in range(300):
            deep = [deep]
        data = {"big": 2**70, "small": -(2**63), "float": 1e300, "deep": deep}
        session = create_session(data=data)
        adapter.commit(session, expected_version=0)
        found = adapter.load(session.id)
        assert found is not None
        assert found.session.data == data

    def test_a_message_of_more_than_16_mb_is_refused_and_nothing_is_written(
        self, adapter: MongoAdapter, database: Database[Raw]
    ) -> None:
        session = saved(adapter)
        long = SAID * (17 * 2**20 // len(SAID))
        record = TurnRecord(session_id=session.id, turn_id="t")
        with pytest.raises(InvalidInputError, match="16 MB") as refusal:
            adapter.commit(
                session, [message(session), message(session, long)], expected_version=1, turn=record
            )
        assert SAID not in str(refusal.value)
        assert refusal.value.__cause__ is None
        found = adapter.load(session.id, last_messages=9, turn_id="t")
        assert found is not None
        assert (found.session, len(found.messages), found.turn) == (session, 1, None)
        assert database.agent_messages.count_documents({}) == 1
        adapter.commit(session, [message(session)], expected_version=1, turn=record)

    def test_a_session_of_more_than_16_mb_is_refused_and_nothing_is_written(
        self, adapter: MongoAdapter, database: Database[Raw]
    ) -> None:
        session = saved(adapter)
        larger = session.model_copy(update={"data": {"long": "x" * 17 * 2**20}})
        with pytest.raises(InvalidInputError, match="16 MB"):
            adapter.commit(larger, [message(session)], expected_version=1)
        found = adapter.load(session.id, last_messages=9)
        assert found is not None
        assert (found.session, len(found.messages)) == (session, 1)
        assert database.agent_messages.count_documents({}) == 1

    def test_results_of_turns_do_not_pile_up_in_the_session(
        self, adapter: MongoAdapter, database: Database[Raw]
    ) -> None:
        """Eight results of 3 MB each would be more than a document may have."""
        session = saved(adapter)
        for number in range(10):
            record = TurnRecord(session_id=session.id, turn_id=f"{number}", result={"long": "x" * 3 * 2**20})
            session = adapter.commit(session, expected_version=session.version, turn=record).session
        for number in range(10):
            found = adapter.load(session.id, turn_id=f"{number}")
            assert found is not None
            assert found.turn is not None
            assert adapter.commit(session, expected_version=1, turn=found.turn).repeated
        assert database.agent_turns.count_documents({}) == 9


class TestOtherHands:
    """What administrators and other programs do to a database."""

    def test_a_document_that_cannot_be_read_is_a_store_error_without_its_text(
        self, adapter: MongoAdapter, database: Database[Raw]
    ) -> None:
        session = saved(adapter)
        for column in ("status", "collected_data"):
            database.agent_sessions.update_one({"_id": session.id}, {"$set": {column: SAID}})
            with pytest.raises(StoreError) as error:
                adapter.load(session.id)
            assert SAID not in str(error.value)

    def test_documents_of_another_program_are_left_alone(
        self, adapter: MongoAdapter, database: Database[Raw]
    ) -> None:
        database.agent_sessions.insert_one({"_id": "s", "userId": "u", "version": 1})
        database.agent_messages.insert_one({"_id": "m", "session_id": "s", "user_id": "u"})
        for call in (
            lambda: adapter.load("s"),
            lambda: adapter.commit(create_session("s"), expected_version=1),
        ):
            with pytest.raises(StoreError, match="not written by inturn"):
                call()
        assert adapter.find_messages(MessageQuery(user_id="u")).items == []
        assert adapter.find_sessions(SessionQuery()).items == []

    def test_messages_that_somebody_removed_are_missed(
        self, adapter: MongoAdapter, database: Database[Raw]
    ) -> None:
        session = saved(adapter, 3)
        database.agent_messages.delete_one({"sequence": 2})
        with pytest.raises(StoreError, match="missing"):
            adapter.load(session.id, last_messages=10)
        with pytest.raises(StoreError, match="missing"):
            adapter.find_messages(MessageQuery(session_id=session.id))
        assert adapter.load(session.id, last_messages=1) is not None
        assert adapter.delete_sessions([Target(session.id)]) == [session.id]

    def test_an_index_of_another_kind_is_named_with_the_mend(self, url: str, database: Database[Raw]) -> None:
        database.agent_turns.create_index([("life", 1), ("turn_id", 1)])
        adapter = MongoAdapter(url, database_name=database.name)
        with pytest.raises(StoreError, match="drop it"):
            adapter.initialize()
        adapter.close()


class TestOptions:
    def test_the_database_is_the_one_named_or_the_urls_or_inturn(self, url: str) -> None:
        base = url.partition("?")[0].rstrip("/").rpartition(":")
        host = f"{base[0]}:{base[2].partition('/')[0]}"
        with MongoClient[Raw](host) as client, MongoClient[Raw](f"{host}/theirs") as theirs:
            for adapter, name in [
                (MongoAdapter(f"{host}/mine"), "mine"),
                (MongoAdapter(f"{host}/mine", database_name="other"), "other"),
                (MongoAdapter(host), "inturn"),
                (MongoAdapter(client), "inturn"),
                (MongoAdapter(theirs), "theirs"),
                (MongoAdapter(theirs, database_name="other"), "other"),
            ]:
                assert adapter._run(lambda store: store.database.name) == name
                adapter.close()

    def test_names_that_are_not_given_are_made_from_the_sessions_name(
        self, url: str, database: Database[Raw]
    ) -> None:
        names = {"sessions": "chat", "turns": "done"}
        with MongoAdapter(url, database_name=database.name, collections=names) as adapter:
            session = saved(adapter)
            assert adapter.load(session.id, last_messages=1) is not None
        assert set(database.list_collection_names()) == {"chat", "chat_messages", "done"}

    @pytest.mark.parametrize(
        "names",
        [
            {"session": "a"},
            {"sessions": ""},
            {"sessions": "a$b"},
            {"sessions": "system.users"},
            {"sessions": 7},
            {"sessions": "a", "messages": "a"},
            {"messages": "agent_sessions"},
        ],
        ids=str,
    )
    def test_names_that_cannot_work_are_refused(self, names: Any) -> None:
        with pytest.raises(ConfigurationError):
            MongoAdapter("mongodb://localhost", collections=names)

    @pytest.mark.parametrize("name", ["a b", "a.b", "a/b", "x" * 64, 'a"b', 7])
    def test_a_database_name_that_cannot_work_is_refused(self, name: Any) -> None:
        with pytest.raises(ConfigurationError):
            MongoAdapter("mongodb://localhost", database_name=name)

    @pytest.mark.parametrize(
        "source",
        [
            "mongodb://",
            "mongodb://me:hunter2@host:port/db",
            "mongodb://me:hunter2@ho@st/db",
            "mongodb://me:hunter2@host/?timeoutMS=soon",
            "mongodb+srv://me:hunter2@host:port/db",
            "postgresql://me:hunter2@host",
            "localhost:27017",
            None,
            7,
        ],
    )
    def test_a_source_of_no_kind_is_refused_without_showing_it(self, source: Any) -> None:
        with pytest.raises(ConfigurationError) as error:
            MongoAdapter(source)
        assert "hunter2" not in str(error.value)

    @pytest.mark.parametrize("size", [0, -1, True, "4"])
    def test_a_pool_must_have_a_connection(self, size: Any) -> None:
        with pytest.raises(ConfigurationError, match="pool_size"):
            MongoAdapter("mongodb://localhost", pool_size=size)

    def test_a_closed_adapter_says_so(self, url: str) -> None:
        adapter = MongoAdapter(url)
        adapter.ping()
        adapter.close()
        with pytest.raises(StoreError, match="closed"):
            adapter.ping()

    def test_a_callers_client_is_not_closed(self, url: str, database: Database[Raw]) -> None:
        client = MongoClient[Raw](url)
        with MongoAdapter(client, database_name=database.name) as adapter:
            saved(adapter)
        assert client[database.name].agent_sessions.count_documents({}) == 1
        client.close()
        with pytest.raises(StoreError, match="closed"):
            adapter.ping()


@pytest.mark.parametrize(
    "error",
    [
        AutoReconnect("connection closed"),
        NotPrimaryError("not primary"),
        ExecutionTimeout("operation exceeded time limit", 50),
        WriteConcernError("waiting for replication timed out", 64),
        WTimeoutError("waiting for replication timed out", 64),
        OperationFailure(SAID, 10107),
        OperationFailure(SAID, 91),
        OperationFailure(SAID, 112),
        BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 91, "errmsg": SAID}]}),
    ],
    ids=repr,
)
def test_what_may_pass_is_unavailable(error: Exception) -> None:
    ours = clients.translated(error)
    assert type(ours) is StoreUnavailableError
    assert SAID not in str(ours)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (OperationFailure(SAID, 18), StoreError, "password"),
        (OperationFailure(SAID, 13), StoreError, "may not"),
        (OperationFailure(SAID, 2), StoreError, "code 2"),
        (OperationFailure(SAID), StoreError, "unknown"),
        (OperationFailure(SAID, 17419), InvalidInputError, "16 MB"),
        (BulkWriteError({"writeErrors": [{"code": 10334, "op": SAID}]}), InvalidInputError, "16 MB"),
        (BulkWriteError({"writeErrors": [{"code": 11000, "op": SAID}]}), StoreError, "code 11000"),
        (bson.errors.InvalidDocument(SAID), StoreError, "InvalidDocument"),
    ],
    ids=repr,
)
def test_what_will_not_pass_is_an_error_without_a_value(
    error: Exception, kind: type[Exception], said: str
) -> None:
    ours = clients.translated(error)
    assert type(ours) is kind
    assert said in str(ours)
    assert SAID not in str(ours)
