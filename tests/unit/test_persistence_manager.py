"""PersistenceManager and the repositories: what the seed promises, and where its original failed."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from inturn.contract import TurnResult
from inturn.errors import (
    InvalidInputError,
    SessionConflictError,
    SessionError,
    SessionNotFoundError,
    StoreUnavailableError,
)
from inturn.persistence import (
    MemoryAdapter,
    PersistenceAdapter,
    PersistenceManager,
    SessionRepository,
    SQLiteAdapter,
)
from inturn.session import HistoryItem, SessionState, TurnRecord, create_session
from inturn.session.state import create_message
from tests.stores import TroubledStore


@pytest.fixture(params=["memory", "sqlite"])
def adapter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PersistenceAdapter]:
    made = (
        MemoryAdapter() if request.param == "memory" else SQLiteAdapter(f"sqlite:///{tmp_path}/sessions.db")
    )
    with made:
        yield made


@pytest.fixture
def persistence(adapter: PersistenceAdapter) -> PersistenceManager:
    return PersistenceManager(adapter)


def contents(persistence: PersistenceManager, session_id: str) -> list[str]:
    return [message.content for message in persistence.find_messages_by_session_id(session_id, limit=None)]


def stored(persistence: PersistenceManager, session_id: str) -> SessionState:
    session = persistence.find_session_by_id(session_id)
    assert session is not None
    return session


class TestSavingAndLoadingStates:
    def test_a_state_comes_back_as_it_was(self, persistence: PersistenceManager) -> None:
        session = create_session(
            "s",
            user_id="u",
            agent_name="Support",
            data={"nested": {"list": [1, {"a": None}]}, "text": "ünïcode 😀"},
            metadata={"source": "web"},
            data_by_route={"booking": {"guests": 2}},
            pending={"route": "feedback"},
            current_route={"id": "booking", "title": "Book a table"},
            current_step={"id": "ask", "description": "Ask for the date"},
            schema_version=3,
        )
        session.enter_route(session.current_route)  # type: ignore[arg-type]

        persistence.save_session_state("s", session)

        loaded = persistence.load_session_state("s")
        assert loaded == session

    def test_a_thousand_items_come_back(self, persistence: PersistenceManager) -> None:
        items = [{"number": number, "name": f"item {number}"} for number in range(1000)]
        persistence.save_session_state("s", create_session("s", data={"items": items}))

        assert stored(persistence, "s").data == {"items": items}

    def test_when_a_route_was_entered_survives(self, persistence: PersistenceManager) -> None:
        persistence.create_session(id="s")
        entered = persistence.update_route_step("s", "booking", "ask")

        loaded = stored(persistence, "s")
        assert loaded.current_route == entered.current_route
        assert loaded.route_history == entered.route_history

    def test_a_finished_route_does_not_return_with_a_reload(self, persistence: PersistenceManager) -> None:
        persistence.create_session(id="s")
        persistence.update_route_step("s", "booking", "ask")
        session = stored(persistence, "s")
        session.leave_route(completed=True)
        session.data.clear()

        persistence.save_session_state("s", session)

        loaded = stored(persistence, "s")
        assert (loaded.current_route, loaded.current_step, loaded.data) == (None, None, {})
        assert loaded.route_history[0].completed

    def test_saving_brings_the_version_up_to_date(self, persistence: PersistenceManager) -> None:
        session = create_session("s")

        for version in (1, 2, 3):
            persistence.save_session_state("s", session)
            assert session.version == stored(persistence, "s").version == version

    def test_of_two_loaded_copies_the_second_save_is_a_conflict(
        self, persistence: PersistenceManager
    ) -> None:
        persistence.create_session(id="s")
        winner, loser = stored(persistence, "s"), stored(persistence, "s")
        winner.data["who"] = "winner"
        loser.data["who"] = "loser"
        persistence.save_session_state("s", winner)

        with pytest.raises(SessionConflictError) as raised:
            persistence.save_session_state("s", loser)

        assert (raised.value.expected_version, raised.value.actual_version) == (1, 2)
        assert stored(persistence, "s").data == {"who": "winner"}

    def test_creating_what_somebody_created_meanwhile_is_a_conflict(
        self, persistence: PersistenceManager
    ) -> None:
        """The original looked first: the second process got a driver's error, or overwrote the first."""
        ours, theirs = create_session("s", data={"who": "us"}), create_session("s", data={"who": "they"})
        persistence.save_session_state("s", theirs)

        with pytest.raises(SessionConflictError):
            persistence.save_session_state("s", ours)
        with pytest.raises(SessionConflictError):
            persistence.create_session(id="s")

        assert stored(persistence, "s").data == {"who": "they"}

    def test_a_new_state_brings_its_history_along_once(self, persistence: PersistenceManager) -> None:
        when = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
        line = HistoryItem(role="user", content="Hello", name="John", timestamp=when)
        session = create_session("s", history=[line])

        persistence.save_session_state("s", session)
        persistence.save_session_state("s", session)

        assert persistence.load_session_history("s") == [line]

    def test_a_state_is_not_saved_under_another_id(self, persistence: PersistenceManager) -> None:
        with pytest.raises(InvalidInputError):
            persistence.save_session_state("another", create_session("s"))

    def test_what_could_not_be_read_back_is_not_written(self, persistence: PersistenceManager) -> None:
        session = persistence.create_session(id="s")
        for name, value in {
            "status": "bogus",
            "data": ["a list"],
            "completed_at": datetime(2026, 1, 1),
        }.items():
            bad = session.model_copy(update={name: value})
            with pytest.raises(InvalidInputError, match=name):
                persistence.save_session_state("s", bad)

        assert stored(persistence, "s") == session

    def test_a_load_error_is_raised(self) -> None:
        store = TroubledStore()
        persistence = PersistenceManager(store)
        persistence.create_session(id="s")
        store.failing = {"load"}

        for load in (persistence.load, persistence.load_session_state, persistence.find_session_by_id):
            with pytest.raises(StoreUnavailableError):
                load("s")


class TestFinding:
    def test_what_is_missing_is_none_or_nothing(self, persistence: PersistenceManager) -> None:
        assert persistence.find_session_by_id("x") is None
        assert persistence.load("x") is None
        assert persistence.load_session_state("x") is None
        assert persistence.find_active_session_by_user_id("x") is None
        assert persistence.find_sessions_by_user_id("x") == []
        assert persistence.find_messages_by_session_id("x") == []
        assert persistence.find_messages_by_user_id("x") == []
        assert persistence.load_session_history("x") == []
        assert persistence.delete_session("x") is False

    def test_an_object_in_place_of_an_id_is_refused_everywhere(self, persistence: PersistenceManager) -> None:
        persistence.create_session(id="s", user_id="u")
        injected: Any = {"$ne": None}
        calls: list[Callable[[], object]] = [
            lambda: persistence.create_session(id=injected),
            lambda: persistence.create_session(user_id=injected),
            lambda: persistence.load(injected),
            lambda: persistence.load_session_state(injected),
            lambda: persistence.load_session_history(injected),
            lambda: persistence.find_session_by_id(injected),
            lambda: persistence.find_active_session_by_user_id(injected),
            lambda: persistence.find_sessions_by_user_id(injected),
            lambda: persistence.find_messages_by_session_id(injected),
            lambda: persistence.find_messages_by_user_id(injected),
            lambda: persistence.save_message(session_id=injected, role="user", content="x"),
            lambda: persistence.save_message(session_id="s", role="user", content="x", user_id=injected),
            lambda: persistence.update_session_status(injected, "completed"),
            lambda: persistence.update_collected_data(injected, {}),
            lambda: persistence.update_route_step(injected, "r"),
            lambda: persistence.save_turn(injected, "t"),
            lambda: persistence.save_turn("s", injected),
            lambda: persistence.delete_session(injected),
        ]
        for call in calls:
            with pytest.raises(InvalidInputError):
                call()

        assert stored(persistence, "s").version == 1

    def test_the_newest_messages_are_found_and_the_oldest_of_them_is_first(
        self, persistence: PersistenceManager
    ) -> None:
        """The original returned the oldest 1,000 of a long conversation."""
        persistence.save_turn(
            "s", "t", messages=[HistoryItem(role="user", content=str(number)) for number in range(2500)]
        )

        found = persistence.find_messages_by_session_id("s")
        few = persistence.load_session_history("s", limit=3)
        many = persistence.find_messages_by_session_id("s", limit=1500)
        everything = persistence.find_messages_by_session_id("s", limit=None)

        assert [message.content for message in found] == [str(number) for number in range(1500, 2500)]
        assert [line.content for line in few] == ["2497", "2498", "2499"]
        assert [message.sequence for message in many] == list(range(1001, 2501))
        assert [message.sequence for message in everything] == list(range(1, 2501))

    @pytest.mark.parametrize("limit", [0, -1, "5", 1.5])
    def test_a_limit_that_is_none_is_refused(self, persistence: PersistenceManager, limit: Any) -> None:
        with pytest.raises(InvalidInputError):
            persistence.find_messages_by_session_id("s", limit=limit)
        with pytest.raises(InvalidInputError):
            persistence.find_sessions_by_user_id("u", limit=limit)

    def test_messages_of_a_user_are_found_over_all_sessions_newest_first(
        self, persistence: PersistenceManager
    ) -> None:
        for name in ("one", "two"):
            persistence.create_session(id=name, user_id="u")
            persistence.save_message(session_id=name, role="user", content=f"in {name}")
        persistence.create_session(id="three", user_id="v")
        persistence.save_message(session_id="three", role="user", content="a stranger's")

        found = persistence.find_messages_by_user_id("u")

        assert [message.content for message in found] == ["in two", "in one"]

    def test_more_sessions_than_a_page_holds_are_all_found(self) -> None:
        persistence = PersistenceManager(MemoryAdapter())
        for number in range(1100):
            persistence.create_session(id=str(number), user_id="u")

        found = persistence.find_sessions_by_user_id("u", limit=None)

        assert len({session.id for session in found}) == len(found) == 1100

    def test_sessions_are_found_by_status_and_age(self, persistence: PersistenceManager) -> None:
        for name in ("a", "b", "c"):
            persistence.create_session(id=name, user_id="u")
        persistence.complete_session("a")
        middle = stored(persistence, "a").updated_at
        persistence.complete_session("b")

        done = persistence.find_sessions_by_user_id("u", status="completed")
        old = persistence.find_sessions_by_user_id(
            "u", status="completed", older_than=middle + timedelta(microseconds=1)
        )

        assert [session.id for session in done] == ["b", "a"]
        assert [session.id for session in old] == ["a"]

    def test_a_time_without_a_zone_is_refused(self, persistence: PersistenceManager) -> None:
        persistence.create_session(id="s", user_id="u")

        with pytest.raises(InvalidInputError):
            persistence.find_sessions_by_user_id("u", older_than=datetime(2026, 1, 1))
        with pytest.raises(InvalidInputError):
            persistence.update_session_status("s", "completed", datetime(2026, 1, 1))

    def test_only_the_window_of_the_history_is_loaded(self, adapter: PersistenceAdapter) -> None:
        persistence = PersistenceManager(adapter, history_window=3)
        persistence.save_turn(
            "s", "t", messages=[HistoryItem(role="user", content=str(number)) for number in range(10)]
        )

        loaded = persistence.load("s")

        assert loaded is not None
        assert [line.content for line in loaded.session.history] == ["7", "8", "9"]
        assert [message.sequence for message in loaded.messages] == [8, 9, 10]

    def test_cleared_messages_are_not_part_of_the_conversation(self, persistence: PersistenceManager) -> None:
        session = create_session("s", history=[{"role": "user", "content": "before"}])
        persistence.save_session_state("s", session)
        session.history_start = session.message_count
        persistence.save_session_state("s", session)
        persistence.save_message(session_id="s", role="user", content="after")

        loaded = persistence.load_session_state("s")

        assert loaded is not None
        assert [line.content for line in loaded.history] == ["after"]
        assert [line.content for line in persistence.load_session_history("s")] == ["after"]
        assert contents(persistence, "s") == ["before", "after"]


class TestUpdates:
    def test_a_missing_session_cannot_be_updated(self, persistence: PersistenceManager) -> None:
        calls: list[Callable[[], object]] = [
            lambda: persistence.update_session_status("x", "completed"),
            lambda: persistence.complete_session("x"),
            lambda: persistence.abandon_session("x"),
            lambda: persistence.update_collected_data("x", {}),
            lambda: persistence.update_route_step("x", "r"),
            lambda: persistence.save_message(session_id="x", role="user", content="Hello"),
        ]
        for call in calls:
            with pytest.raises(SessionNotFoundError):
                call()

    def test_a_partial_update_keeps_other_keys_history_and_position(
        self, persistence: PersistenceManager
    ) -> None:
        """The original replaced the whole blob: data and history were gone."""
        persistence.create_session(id="s", initial_data={"name": "John", "preferences": {"theme": "light"}})
        persistence.save_message(session_id="s", role="user", content="Hello")
        persistence.update_route_step("s", "booking", "ask")

        persistence.update_collected_data("s", {"preferences": {"theme": "dark"}})

        session = persistence.load_session_state("s")
        assert session is not None
        assert session.data == {"name": "John", "preferences": {"theme": "dark"}}
        assert [line.content for line in session.history] == ["Hello"]
        assert session.current_route is not None
        assert session.current_step is not None
        assert (session.current_route.id, session.current_step.id) == ("booking", "ask")

    def test_data_that_no_store_can_keep_is_refused(self, persistence: PersistenceManager) -> None:
        persistence.create_session(id="s")
        patches: list[Any] = [{"a": "\x00"}, {"a": float("nan")}, {"a": object()}, {5: "a"}, "text", None]
        for patch in patches:
            with pytest.raises(InvalidInputError):
                persistence.update_collected_data("s", patch)

        assert stored(persistence, "s").version == 1

    def test_completing_again_keeps_the_time(self, persistence: PersistenceManager) -> None:
        persistence.create_session(id="s")
        first = persistence.complete_session("s").completed_at

        assert first is not None
        assert persistence.complete_session("s").completed_at == first
        assert persistence.update_session_status("s", "active").completed_at is None

    def test_a_status_that_is_none_is_refused(self, persistence: PersistenceManager) -> None:
        persistence.create_session(id="s")

        with pytest.raises(InvalidInputError, match="status"):
            persistence.update_session_status("s", "finished")  # type: ignore[arg-type]

    def test_the_same_route_is_not_entered_twice(self, persistence: PersistenceManager) -> None:
        persistence.create_session(id="s")
        persistence.update_route_step("s", "booking", "one")
        persistence.update_route_step("s", "booking", "two")
        persistence.update_route_step("s", "feedback")
        session = persistence.update_route_step("s")

        assert [entry.route_id for entry in session.route_history] == ["booking", "feedback"]
        assert all(entry.exited_at for entry in session.route_history)
        assert (session.current_route, session.current_step) == (None, None)

    def test_a_step_without_a_route_is_refused(self, persistence: PersistenceManager) -> None:
        persistence.create_session(id="s")

        with pytest.raises(InvalidInputError):
            persistence.update_route_step("s", None, "ask")

    def test_fields_are_updated_by_name(self, adapter: PersistenceAdapter) -> None:
        sessions = adapter.session_repository
        sessions.create(create_session("s"))

        updated = sessions.update("s", {"agent_name": "Support", "metadata": {"a": 1}})

        assert updated == sessions.find_by_id("s")
        assert (updated.agent_name, updated.metadata) == ("Support", {"a": 1})

    @pytest.mark.parametrize("field", ["version", "id", "history", "message_count", "updated_at", "nonsense"])
    def test_what_the_store_keeps_itself_cannot_be_updated(
        self, adapter: PersistenceAdapter, field: str
    ) -> None:
        adapter.session_repository.create(create_session("s"))

        with pytest.raises(InvalidInputError, match=field):
            adapter.session_repository.update("s", {field: 1})

    def test_an_update_of_an_expected_version_is_made_on_no_other(self, adapter: PersistenceAdapter) -> None:
        sessions = adapter.session_repository
        sessions.create(create_session("s"))
        sessions.update("s", {"metadata": {"by": "the first"}}, expected_version=1)

        with pytest.raises(SessionConflictError) as raised:
            sessions.update("s", {"metadata": {"by": "the second"}}, expected_version=1)

        assert (raised.value.expected_version, raised.value.actual_version) == (1, 2)
        found = sessions.find_by_id("s")
        assert found is not None
        assert found.metadata == {"by": "the first"}

    def test_deleting_takes_the_messages_along(self, persistence: PersistenceManager) -> None:
        persistence.create_session(id="s", user_id="u")
        persistence.save_message(session_id="s", role="user", content="Hello")

        assert persistence.delete_session("s") is True

        assert persistence.find_messages_by_session_id("s") == []
        assert persistence.find_messages_by_user_id("u") == []
        assert persistence.delete_session("s") is False


class TestWritersSideBySide:
    def test_an_update_is_made_again_when_another_came_between(self) -> None:
        store = TroubledStore()
        persistence = PersistenceManager(store)
        persistence.create_session(id="s")
        store.meanwhile = [lambda: persistence.update_collected_data("s", {"theirs": 1})]

        persistence.update_collected_data("s", {"ours": 2})

        assert stored(persistence, "s").data == {"theirs": 1, "ours": 2}

    def test_many_writers_lose_no_update(self, persistence: PersistenceManager) -> None:
        """The original's Redis adapter lost one of the two in 50 races of 50, and told both it was saved."""
        persistence.create_session(id="s")

        def write(number: int) -> None:
            persistence.update_collected_data("s", {str(number): number})
            persistence.save_message(session_id="s", role="user", content=str(number))

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(write, range(24)))

        assert stored(persistence, "s").data == {str(number): number for number in range(24)}
        assert sorted(contents(persistence, "s"), key=int) == [str(number) for number in range(24)]
        found = persistence.find_messages_by_session_id("s")
        assert [message.sequence for message in found] == list(range(1, 25))

    def test_sessions_made_side_by_side_are_all_there(self, persistence: PersistenceManager) -> None:
        with ThreadPoolExecutor(6) as pool:
            made = list(pool.map(lambda _: persistence.create_session(user_id="u").id, range(30)))

        found = persistence.find_sessions_by_user_id("u")
        assert {session.id for session in found} == set(made)
        assert len(found) == 30

    def test_of_many_that_create_one_session_one_succeeds(self, persistence: PersistenceManager) -> None:
        gate = threading.Barrier(6)

        def create(_: int) -> str:
            gate.wait()
            try:
                persistence.create_session(id="s")
            except SessionConflictError:
                return "conflict"
            return "created"

        with ThreadPoolExecutor(6) as pool:
            outcomes = sorted(pool.map(create, range(6)))

        assert outcomes == ["conflict"] * 5 + ["created"]

    def test_endless_conflicts_end_in_the_conflict(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        store = TroubledStore()
        persistence = PersistenceManager(store)
        persistence.create_session(id="s")
        other = SessionRepository(store)

        def again() -> None:
            session = other.find_by_id("s")
            assert session is not None
            store.meanwhile = []
            store.commit(session, expected_version=session.version)
            store.meanwhile = [again]

        store.meanwhile = [again]

        with pytest.raises(SessionConflictError):
            persistence.update_collected_data("s", {"a": 1})

    def test_an_update_of_a_session_deleted_meanwhile_says_so(self) -> None:
        store = TroubledStore()
        persistence = PersistenceManager(store)
        persistence.create_session(id="s")
        store.meanwhile = [lambda: persistence.delete_session("s")]

        with pytest.raises(SessionNotFoundError):
            persistence.update_collected_data("s", {"a": 1})


class TestTurnsFromOutside:
    def test_a_turn_creates_merges_and_appends(self, persistence: PersistenceManager) -> None:
        persistence.save_turn("s", "s:1", data={"a": 1, "b": 1}, metadata={"source": "crm"}, user_id="u")

        record = persistence.save_turn(
            "s",
            "s:2",
            data={"b": 2},
            metadata={"paid": True},
            status="completed",
            messages=[{"role": "system", "content": "Paid"}, HistoryItem(role="assistant", content="Thanks")],
        )

        session = stored(persistence, "s")
        assert (session.data, session.metadata) == ({"a": 1, "b": 2}, {"source": "crm", "paid": True})
        assert (session.status, session.user_id, session.version) == ("completed", "u", 2)
        assert [
            (message.content, message.turn_id, message.user_id)
            for message in persistence.find_messages_by_session_id("s")
        ] == [("Paid", "s:2", "u"), ("Thanks", "s:2", "u")]
        result = TurnResult.model_validate(record.result)
        assert (result.kind, result.state, result.turn_id) == ("save_session", "done", "s:2")
        assert (result.response.message, result.response.finish_reason) == ("", "saved")
        assert result.response.data == {"a": 1, "b": 2}

    def test_a_turn_is_taken_once(self, persistence: PersistenceManager) -> None:
        first = persistence.save_turn("s", "s:1", data={"a": 1}, messages=[{"role": "user", "content": "Hi"}])
        persistence.update_collected_data("s", {"a": "changed since"})

        again = persistence.save_turn("s", "s:1", data={"a": 1}, messages=[{"role": "user", "content": "Hi"}])

        assert again.result == first.result
        assert stored(persistence, "s").data == {"a": "changed since"}
        assert contents(persistence, "s") == ["Hi"]

    def test_a_turn_whose_answer_was_lost_is_not_taken_twice(self) -> None:
        store = TroubledStore()
        persistence = PersistenceManager(store)
        store.lost_answers = 1
        with pytest.raises(StoreUnavailableError):
            persistence.save_turn("s", "s:1", messages=[{"role": "user", "content": "Hi"}])

        persistence.save_turn("s", "s:1", messages=[{"role": "user", "content": "Hi"}])

        assert contents(persistence, "s") == ["Hi"]

    def test_the_same_turn_at_the_same_time_is_taken_once(self) -> None:
        store = TroubledStore()
        persistence = PersistenceManager(store)
        turn: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
        store.meanwhile = [lambda: persistence.save_turn("s", "s:1", **turn)]

        record = persistence.save_turn("s", "s:1", **turn)

        assert contents(persistence, "s") == ["Hi"]
        loaded = persistence.load("s", turn_id="s:1")
        assert loaded is not None
        assert loaded.turn == record

    def test_a_turn_is_taken_on_what_others_left(self) -> None:
        store = TroubledStore()
        persistence = PersistenceManager(store)
        persistence.create_session(id="s")
        store.meanwhile = [lambda: persistence.save_message(session_id="s", role="user", content="theirs")]

        persistence.save_turn("s", "s:1", messages=[{"role": "user", "content": "ours"}])

        assert contents(persistence, "s") == ["theirs", "ours"]

    @pytest.mark.parametrize(
        "turn",
        [
            {"status": "finished"},
            {"data": {"a": object()}},
            {"metadata": {"a": "\x00"}},
            {"messages": [{"role": "user", "content": "fine"}, {"role": "nobody", "content": "x"}]},
            {"messages": [{"content": "x"}]},
            {"messages": [{"role": "user", "content": "\ud800"}]},
            {"messages": [{"role": "user", "content": "x", "colour": "red"}]},
        ],
    )
    def test_a_turn_with_nonsense_changes_nothing(
        self, persistence: PersistenceManager, turn: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidInputError):
            persistence.save_turn("s", "s:1", **turn)

        assert persistence.load("s") is None

    def test_a_refused_value_is_not_in_the_error(self, persistence: PersistenceManager) -> None:
        persistence.create_session(id="s")
        with pytest.raises(InvalidInputError) as raised:
            persistence.save_message(session_id="s", role="user", content=["my secret"])  # type: ignore[arg-type]

        with pytest.raises(ValueError, match="content") as raw:
            HistoryItem(role="user", content=["my secret"])

        assert "content" in str(raised.value)
        assert "secret" not in f"{raised.value} {raw.value}"

    def test_a_turn_is_known_by_its_commit(self, persistence: PersistenceManager) -> None:
        session = persistence.create_session(id="s")
        turn = TurnRecord(session_id="s", turn_id="s:1", result={"reply": "Hi"})
        persistence.commit(session, [create_message("s", "assistant", "Hi")], turn=turn)

        again = persistence.commit(
            session,
            [create_message("s", "assistant", "Hello")],
            turn=TurnRecord(session_id="s", turn_id="s:1", result={"reply": "Hello"}),
        )

        assert again.repeated
        assert again.turn is not None
        assert again.turn.result == {"reply": "Hi"}
        assert contents(persistence, "s") == ["Hi"]


class TestActingForAUser:
    @pytest.fixture
    def mine(self, adapter: PersistenceAdapter) -> PersistenceManager:
        return PersistenceManager(adapter, user_id="me")

    @pytest.fixture(autouse=True)
    def _sessions(self, persistence: PersistenceManager) -> None:
        persistence.create_session(id="theirs", user_id="they", initial_data={"secret": 1})
        persistence.save_message(session_id="theirs", role="user", content="private")
        persistence.create_session(id="nobodys")

    def test_what_it_creates_is_the_users(self, mine: PersistenceManager) -> None:
        assert mine.create_session(id="mine").user_id == "me"
        assert mine.save_session_state("too", create_session("too")).user_id == "me"
        mine.save_turn("three", "three:1")

        found = mine.find_sessions_by_user_id("me")
        assert {session.id for session in found} == {"mine", "too", "three"}

    @pytest.mark.parametrize("session_id", ["theirs", "nobodys"])
    def test_it_finds_nothing_of_others(self, mine: PersistenceManager, session_id: str) -> None:
        assert mine.find_session_by_id(session_id) is None
        assert mine.find_messages_by_session_id(session_id) == []
        assert mine.load_session_history(session_id) == []
        assert mine.find_sessions_by_user_id("they") == []
        assert mine.find_active_session_by_user_id("they") is None
        assert mine.find_messages_by_user_id("they") == []
        assert mine.delete_session(session_id) is False

    @pytest.mark.parametrize("session_id", ["theirs", "nobodys"])
    def test_it_changes_and_loads_nothing_of_others(
        self, mine: PersistenceManager, persistence: PersistenceManager, session_id: str
    ) -> None:
        before = stored(persistence, session_id)
        calls: list[Callable[[], object]] = [
            lambda: mine.load(session_id),
            lambda: mine.load_session_state(session_id),
            lambda: mine.update_session_status(session_id, "completed"),
            lambda: mine.update_collected_data(session_id, {}),
            lambda: mine.update_route_step(session_id, "r"),
            lambda: mine.save_message(session_id=session_id, role="user", content="Hello"),
            lambda: mine.save_turn(session_id, "t"),
            lambda: mine.save_session_state(session_id, before.model_copy(deep=True)),
            lambda: mine.create_session(id=session_id),
        ]
        for call in calls:
            with pytest.raises(SessionError):
                call()

        assert stored(persistence, session_id) == before


class TestTheManagerItself:
    def test_the_adapter_of_a_url_is_made_ready_and_closed_with_the_manager(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/sessions.db"
        with PersistenceManager(url) as persistence:
            persistence.create_session(id="s")

        with PersistenceManager(url) as persistence:
            assert persistence.find_session_by_id("s") is not None
            assert isinstance(persistence.get_adapter(), SQLiteAdapter)

    def test_an_adapter_that_was_given_is_the_callers_to_close(self) -> None:
        class Counting(MemoryAdapter):
            closed = 0

            def close(self) -> None:
                self.closed += 1

        adapter = Counting()
        with PersistenceManager(adapter) as persistence:
            assert persistence.get_adapter() is adapter

        assert adapter.closed == 0

    def test_a_negative_window_is_refused(self) -> None:
        with pytest.raises(InvalidInputError):
            PersistenceManager(MemoryAdapter(), history_window=-1)

    def test_a_window_of_none_loads_no_history(self) -> None:
        persistence = PersistenceManager(MemoryAdapter(), history_window=0)
        persistence.save_turn("s", "t", messages=[{"role": "user", "content": "Hi"}])

        loaded = persistence.load("s")

        assert loaded is not None
        assert (loaded.session.history, loaded.messages) == ([], [])

    def test_a_slow_operation_is_logged_once_with_its_session(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = itertools.count(step=1.5)
        monkeypatch.setattr("inturn.persistence.timing.time.monotonic", lambda: next(clock))
        persistence = PersistenceManager(MemoryAdapter())
        session = create_session("s")

        with capture_logs() as logs:
            persistence.save_session_state("s", session)
            persistence.commit(session)
            persistence.find_sessions_by_user_id("u")
            with pytest.raises(SessionNotFoundError):
                persistence.complete_session("missing")

        assert [(entry["operation"], entry["session_id"], entry["ms"]) for entry in logs] == [
            ("save_session_state", "s", 1500),
            ("commit", "s", 1500),
            ("find_sessions_by_user_id", None, 1500),
            ("update_session_status", "missing", 1500),
        ]
        assert {(entry["event"], entry["log_level"]) for entry in logs} == {("slow persistence", "warning")}

    def test_a_quick_operation_is_not_logged(self) -> None:
        with capture_logs() as logs:
            PersistenceManager(MemoryAdapter()).create_session()

        assert logs == []
