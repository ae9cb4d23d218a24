"""SessionManager: the seed's promises, turns, other writers, and the faults of the seed's original."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from inturn.errors import InvalidInputError, SessionConflictError, SessionError, StoreUnavailableError
from inturn.persistence import MemoryAdapter, PersistenceAdapter, PersistenceManager, SQLiteAdapter, Target
from inturn.session import HistoryItem, Message, RouteRef, SessionManager, SessionState, StepRef, TurnRecord
from inturn.session.state import create_message
from tests.stores import TroubledStore


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PersistenceAdapter]:
    made = (
        MemoryAdapter() if request.param == "memory" else SQLiteAdapter(f"sqlite:///{tmp_path}/sessions.db")
    )
    with made:
        yield made


@pytest.fixture
def troubled() -> TroubledStore:
    return TroubledStore()


def state(manager: SessionManager) -> SessionState:
    assert manager.current is not None
    return manager.current


def said(manager: SessionManager) -> list[str]:
    return [line.content for line in manager.get_history()]


def stored(store: PersistenceAdapter, session_id: str = "s") -> list[str]:
    found = PersistenceManager(store).find_messages_by_session_id(session_id, limit=None)
    return [message.content for message in found]


def messages(session_id: str, *texts: str) -> list[Message]:
    return [create_message(session_id, "user", text) for text in texts]


class TestGettingASession:
    def test_an_id_is_honoured(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(store, user_id="u", agent_name="Support")

        session = manager.get_or_create("user-123")

        assert (session.id, session.user_id, session.agent_name) == ("user-123", "u", "Support")
        assert manager.id == "user-123"

    def test_the_same_session_is_the_same_object(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(store)
        session = manager.get_or_create("s")

        assert manager.get_or_create("s") is session
        assert manager.get_or_create() is session
        assert manager.current is session

    def test_a_new_session_is_saved_at_once(self, store: PersistenceAdapter) -> None:
        SessionManager(store).get_or_create("s")

        assert PersistenceManager(store).find_session_by_id("s") is not None

    def test_another_manager_loads_it(self, store: PersistenceAdapter) -> None:
        one = SessionManager(store, session_id="s")
        one.add_message("user", "Hello")
        one.set_data({"name": "John"})

        other = SessionManager(store).get_or_create("s")

        assert other.data == {"name": "John"}
        assert [line.content for line in other.history] == ["Hello"]
        assert other.version == 2

    def test_history_and_data_are_there_before_anything_was_called(self, store: PersistenceAdapter) -> None:
        SessionManager(store, session_id="s").add_message("user", "Hello")

        assert said(SessionManager(store, session_id="s")) == ["Hello"]

    def test_looking_creates_nothing(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(store, session_id="s")

        assert (manager.get_history(), manager.get_data()) == ([], {})
        assert SessionManager(store).get_history() == []
        assert SessionManager(store).get_data() == {}

        assert PersistenceManager(store).find_session_by_id("s") is None

    def test_before_the_first_call_there_is_no_session(self) -> None:
        manager = SessionManager()

        assert (manager.id, manager.current) == (None, None)

    def test_another_session_takes_the_place_of_the_one_at_hand(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(store, session_id="one")
        manager.add_message("user", "in one")
        manager.get_or_create("two")
        manager.add_message("user", "in two")

        assert (manager.id, said(manager)) == ("two", ["in two"])
        assert stored(store, "one") == ["in one"]

    @pytest.mark.parametrize("session_id", [{"$ne": None}, "", 5, "nul\x00"])
    def test_what_is_no_id_is_refused(self, store: PersistenceAdapter, session_id: Any) -> None:
        with pytest.raises(InvalidInputError):
            SessionManager(store).get_or_create(session_id)
        with pytest.raises(InvalidInputError):
            SessionManager(store, session_id=session_id)

    def test_a_load_error_is_raised_and_the_session_is_not_replaced(self, troubled: TroubledStore) -> None:
        """The original took it for a new session: one lost connection emptied a session of 50 messages."""
        SessionManager(troubled, session_id="s").add_message("user", "precious")
        manager = SessionManager(troubled, session_id="s")
        troubled.failing = {"load"}

        for call in (manager.get_or_create, manager.get_history, manager.get_data, manager.load):
            with pytest.raises(StoreUnavailableError):
                call()
        with pytest.raises(StoreUnavailableError):
            manager.add_message("user", "more")
        with pytest.raises(StoreUnavailableError):
            manager.set_data({"a": 1})

        troubled.failing = set()
        assert said(manager) == ["precious"]

    def test_a_session_that_somebody_creates_meanwhile_is_the_same_session(
        self, troubled: TroubledStore
    ) -> None:
        """The original: find, then create; the second process failed or wiped the first one's session."""
        other = SessionManager(troubled, session_id="s")
        troubled.meanwhile = [lambda: other.add_message("user", "first")]

        session = SessionManager(troubled, user_id="u").get_or_create("s")

        assert [line.content for line in session.history] == ["first"]

    def test_many_that_create_one_session_have_one_session(self, store: PersistenceAdapter) -> None:
        with ThreadPoolExecutor(6) as pool:
            made = list(pool.map(lambda _: SessionManager(store).get_or_create("s").version, range(6)))

        assert made == [1] * 6


class TestHistory:
    def test_order_names_and_times_are_kept(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(store, session_id="s")
        for number in range(5):
            manager.add_message("user" if number % 2 else "assistant", str(number), name=f"name {number}")

        lines = SessionManager(store, session_id="s").get_history()

        assert lines == manager.get_history()
        assert [(line.content, line.name) for line in lines] == [(str(n), f"name {n}") for n in range(5)]
        assert all(line.timestamp is not None for line in lines)

    def test_a_message_notes_who_where_and_when(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(store, session_id="s", user_id="u")
        session = manager.get_or_create()
        session.enter_route(RouteRef(id="booking"))
        session.enter_step(StepRef(id="ask"))
        manager.add_message("user", "Hello")

        (message,) = PersistenceManager(store).find_messages_by_session_id("s")
        assert (message.user_id, message.route, message.step) == ("u", "booking", "ask")

    def test_one_message_is_one_row(self, troubled: TroubledStore) -> None:
        """The original rewrote the whole history, three times a turn."""
        manager = SessionManager(troubled, session_id="s")
        manager.add_message("user", "first")
        (row,) = troubled.get_snapshot()["messages"]

        manager.add_message("user", "second")

        assert troubled.get_snapshot()["messages"][0] == row
        assert [row["sequence"] for row in troubled.get_snapshot()["messages"]] == [1, 2]
        assert troubled.commits == 2

    def test_adding_a_message_creates_the_session_in_the_same_step(self, troubled: TroubledStore) -> None:
        SessionManager(troubled, session_id="s").add_message("user", "Hello")

        assert (troubled.loads, troubled.commits) == (1, 1)

    def test_the_history_at_hand_is_the_window(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(PersistenceManager(store, history_window=3), session_id="s")
        for number in range(5):
            manager.add_message("user", str(number))

        assert said(manager) == ["2", "3", "4"]
        assert stored(store) == ["0", "1", "2", "3", "4"]

    def test_without_a_window_there_is_no_history_at_hand(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(PersistenceManager(store, history_window=0), session_id="s")
        manager.add_message("user", "Hello")

        assert said(manager) == []
        assert stored(store) == ["Hello"]

    def test_a_history_that_was_set_is_saved(self, store: PersistenceAdapter) -> None:
        """The original set it in memory only."""
        when = datetime(2026, 1, 2, tzinfo=UTC)
        manager = SessionManager(store, session_id="s")
        manager.add_message("user", "before")

        manager.set_history(
            [
                {"role": "user", "content": "old"},
                HistoryItem(role="assistant", content="reply", timestamp=when),
            ]
        )

        found = SessionManager(store, session_id="s").get_history()
        assert [line.content for line in found] == ["old", "reply"]
        assert found[1].timestamp == when

    def test_a_history_that_was_cleared_stays_cleared(self, store: PersistenceAdapter) -> None:
        """The original cleared it in memory only."""
        manager = SessionManager(store, session_id="s")
        manager.add_message("user", "before")
        manager.clear_history()
        assert said(SessionManager(store, session_id="s")) == []

        manager.add_message("user", "after")

        assert said(SessionManager(store, session_id="s")) == said(manager) == ["after"]
        assert stored(store) == ["before", "after"]

    def test_editing_the_returned_list_changes_nothing(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(store, session_id="s")
        manager.add_message("user", "Hello")

        manager.get_history().clear()

        assert said(manager) == ["Hello"]

    @pytest.mark.parametrize(
        ("role", "content"),
        [("nobody", "x"), ("user", 5), ("user", None), ("user", "\x00"), ("user", "\ud800")],
    )
    def test_a_message_that_is_refused_leaves_no_trace(
        self, store: PersistenceAdapter, role: str, content: Any
    ) -> None:
        manager = SessionManager(store, session_id="s")
        manager.add_message("user", "fine")

        with pytest.raises(InvalidInputError):
            manager.add_message(role, content)
        with pytest.raises(InvalidInputError):
            manager.set_history([{"role": "user", "content": "good"}, {"role": role, "content": content}])

        manager.add_message("user", "fine too")
        assert stored(store) == said(manager) == ["fine", "fine too"]


class TestData:
    def test_a_patch_is_merged_and_saved(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(store, session_id="s")
        manager.set_data({"name": "John", "nested": {"a": 1}})
        manager.set_data({"nested": {"b": [1, 2]}})

        assert SessionManager(store, session_id="s").get_data() == {"name": "John", "nested": {"b": [1, 2]}}

    def test_none_changes_nothing(self, troubled: TroubledStore) -> None:
        SessionManager(troubled, session_id="s").set_data(None)

        assert troubled.commits == 0

    def test_updated_at_moves(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(store, session_id="s")
        before = manager.get_or_create().updated_at

        manager.set_data({"a": 1})

        assert state(manager).updated_at > before

    def test_dates_stay_dates_in_memory_and_are_text_in_the_store(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(store, session_id="s")
        manager.set_data({"on": date(2026, 1, 2)})

        assert manager.get_data() == {"on": date(2026, 1, 2)}
        assert SessionManager(store, session_id="s").get_data() == {"on": "2026-01-02"}

    def test_a_patch_is_validated_and_converted(self, store: PersistenceAdapter) -> None:
        def validate(patch: dict[str, Any]) -> dict[str, Any]:
            return {key: int(value) for key, value in patch.items()}

        manager = SessionManager(store, session_id="s", validate=validate)
        manager.set_data({"guests": "2"})

        with pytest.raises(ValueError, match="many"):
            manager.set_data({"guests": "many"})

        assert SessionManager(store, session_id="s").get_data() == {"guests": 2}

    @pytest.mark.parametrize("patch", [{"a": "\x00"}, {"a": object()}, {"a": float("nan")}, ["a"], "a"])
    def test_data_that_is_refused_leaves_no_trace(self, store: PersistenceAdapter, patch: Any) -> None:
        manager = SessionManager(store, session_id="s")

        with pytest.raises(InvalidInputError):
            manager.set_data(patch)

        manager.set_data({"fine": True})
        assert SessionManager(store, session_id="s").get_data() == {"fine": True}

    def test_what_was_given_and_returned_is_not_shared(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(store, session_id="s")
        given: dict[str, Any] = {"nested": {"a": 1}}
        manager.set_data(given)
        given["nested"]["a"] = 2
        manager.get_data()["nested"]["a"] = 3

        assert manager.get_data() == {"nested": {"a": 1}}


class TestSaving:
    def test_save_writes_edits_of_the_state(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(store, session_id="s")
        manager.get_or_create().metadata["source"] = "web"

        manager.save()

        assert SessionManager(store).get_or_create("s").metadata == {"source": "web"}

    def test_saving_without_changes_writes_nothing(self, troubled: TroubledStore) -> None:
        manager = SessionManager(troubled, session_id="s")
        manager.save()
        manager.add_message("user", "Hello")
        manager.save()

        assert troubled.commits == 1

    def test_a_failed_save_raises_and_the_next_one_makes_up_for_it(self, troubled: TroubledStore) -> None:
        manager = SessionManager(troubled, session_id="s")
        manager.add_message("user", "one")
        troubled.failing = {"commit"}
        with pytest.raises(StoreUnavailableError):
            manager.add_message("user", "two")
        with pytest.raises(StoreUnavailableError):
            manager.set_data({"a": 1})
        assert (said(manager), manager.get_data()) == (["one", "two"], {"a": 1})
        assert manager.get_or_create() is manager.current

        troubled.failing = set()
        manager.save()

        assert stored(troubled) == ["one", "two"]
        assert SessionManager(troubled, session_id="s").get_data() == {"a": 1}

    def test_without_auto_save_nothing_is_written_before_save(self, troubled: TroubledStore) -> None:
        manager = SessionManager(PersistenceManager(troubled, auto_save=False))
        manager.get_or_create("s")
        manager.set_history([{"role": "user", "content": "cleared"}])
        manager.clear_history()
        manager.add_message("user", "Hello")
        manager.set_data({"a": 1})
        assert troubled.commits == 0

        manager.save()

        assert troubled.commits == 1
        other = SessionManager(troubled, session_id="s")
        assert (said(other), other.get_data()) == (["Hello"], {"a": 1})
        assert stored(troubled) == ["cleared", "Hello"]

    def test_without_auto_save_turns_wait_for_save_too(self, troubled: TroubledStore) -> None:
        manager = SessionManager(PersistenceManager(troubled, auto_save=False), session_id="s")
        for text in ("one", "two"):
            manager.load()
            state(manager).data[text] = True
            manager.commit(messages("s", text))
        assert (said(manager), troubled.commits) == (["one", "two"], 0)

        manager.save()

        assert stored(troubled) == ["one", "two"]
        assert SessionManager(troubled, session_id="s").get_data() == {"one": True, "two": True}

    def test_without_persistence_everything_works_in_memory(self) -> None:
        manager = SessionManager(session_id="s")
        manager.add_message("user", "Hello")
        manager.set_data({"a": 1})
        manager.save()
        turn = TurnRecord(session_id="s", turn_id="s:1", result={"reply": "Hi"})
        manager.load(turn_id="s:1")
        manager.commit(messages("s", "again"), turn)

        assert (said(manager), manager.get_data()) == (["Hello", "again"], {"a": 1})
        known = manager.load(turn_id="s:1")
        assert known is not None
        assert known.result == {"reply": "Hi"}

    def test_the_persistence_manager_is_the_one_that_was_given(self) -> None:
        persistence = PersistenceManager(MemoryAdapter())

        assert SessionManager(persistence).get_persistence_manager() is persistence

    def test_a_url_will_do(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/sessions.db"
        SessionManager(url, session_id="s").add_message("user", "Hello")

        assert said(SessionManager(url, session_id="s")) == ["Hello"]


class TestDeleting:
    def test_delete_forgets_without_persistence_too(self) -> None:
        """The original did nothing at all then."""
        manager = SessionManager(session_id="s")
        manager.add_message("user", "Hello")

        manager.delete()

        assert manager.current is None
        assert said(manager) == []
        assert manager.get_or_create().id == "s"

    def test_a_session_is_deleted_without_being_loaded(self, store: PersistenceAdapter) -> None:
        SessionManager(store, session_id="s").add_message("user", "Hello")

        assert SessionManager(store, session_id="s").delete() is True
        assert SessionManager(store, session_id="s").delete() is False
        assert SessionManager(store).delete() is False

    def test_a_delete_that_fails_raises_and_keeps_the_session(self, troubled: TroubledStore) -> None:
        manager = SessionManager(troubled, session_id="s")
        manager.add_message("user", "Hello")
        troubled.failing = {"delete_sessions"}

        with pytest.raises(StoreUnavailableError):
            manager.delete()

        assert said(manager) == stored(troubled) == ["Hello"]


class TestResetting:
    def test_the_conversation_is_kept_whole_and_the_old_session_is_gone(
        self, store: PersistenceAdapter
    ) -> None:
        manager = SessionManager(
            PersistenceManager(store, history_window=2), session_id="old", user_id="u", agent_name="Support"
        )
        manager.add_message("user", "cleared")
        manager.clear_history()
        for text in ("one", "two", "three"):
            manager.add_message("user", text)
        manager.set_data({"a": 1})

        new = manager.reset(preserve_history=True)

        assert manager.current is new
        assert manager.id == new.id != "old"
        assert (new.data, new.user_id, new.agent_name) == ({}, "u", "Support")
        assert said(manager) == ["two", "three"]
        assert stored(store, new.id) == ["one", "two", "three"]
        assert PersistenceManager(store).find_session_by_id("old") is None

    def test_without_its_history_it_is_empty(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(store, session_id="old")
        manager.add_message("user", "Hello")

        assert manager.reset().history == []
        assert stored(store, manager.id or "") == []

    def test_what_comes_after_a_reset_goes_into_the_new_session(self, store: PersistenceAdapter) -> None:
        """The original went back to the old ID, with an empty history."""
        manager = SessionManager(store, session_id="old")
        manager.add_message("user", "before")
        new = manager.reset(preserve_history=True)

        manager.add_message("user", "after")

        assert manager.get_or_create() is new
        assert stored(store, new.id) == ["before", "after"]
        assert PersistenceManager(store).find_session_by_id("old") is None

    def test_the_new_session_is_saved_before_the_old_one_is_deleted(self, troubled: TroubledStore) -> None:
        """The original deleted first: a crash in between left nothing."""
        manager = SessionManager(troubled, session_id="old")
        manager.add_message("user", "precious")
        troubled.failing = {"commit"}
        with pytest.raises(StoreUnavailableError):
            manager.reset(preserve_history=True)
        assert (manager.id, stored(troubled, "old")) == ("old", ["precious"])

        troubled.failing = {"delete_sessions"}
        with pytest.raises(StoreUnavailableError):
            manager.reset(preserve_history=True)
        assert manager.id != "old"
        assert said(manager) == stored(troubled, manager.id or "") == stored(troubled, "old") == ["precious"]

    def test_what_somebody_writes_to_the_old_session_meanwhile_is_not_deleted(
        self, troubled: TroubledStore
    ) -> None:
        manager = SessionManager(troubled, session_id="old")
        manager.add_message("user", "one")
        other = SessionManager(troubled, session_id="old")
        troubled.meanwhile = [lambda: other.add_message("user", "two")]

        manager.reset(preserve_history=True)

        assert said(manager) == ["one"]
        assert stored(troubled, "old") == ["one", "two"]

    def test_a_manager_without_a_session_is_reset_to_a_new_one(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(store, user_id="u")

        assert manager.reset().user_id == "u"

    def test_what_was_not_saved_yet_is_kept_as_well(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(PersistenceManager(store, auto_save=False), session_id="old")
        manager.add_message("user", "never saved")

        new = manager.reset(preserve_history=True)

        assert stored(store, new.id) == ["never saved"]


class TestOtherWriters:
    def test_messages_and_data_are_added_to_what_others_left(self, store: PersistenceAdapter) -> None:
        """The original kept its stale copy after a conflict: the documented retry failed for ever."""
        ours, theirs = SessionManager(store, session_id="s"), SessionManager(store, session_id="s")
        ours.get_or_create()
        theirs.add_message("user", "theirs")
        theirs.set_data({"a": "theirs", "b": "theirs"})

        ours.add_message("user", "ours")
        theirs.set_data({"c": "theirs"})
        ours.set_data({"b": "ours"})

        assert said(ours) == stored(store) == ["theirs", "ours"]
        assert ours.get_data() == {"a": "theirs", "b": "ours", "c": "theirs"}

    def test_clearing_and_setting_the_history_include_what_others_added(
        self, store: PersistenceAdapter
    ) -> None:
        ours, theirs = SessionManager(store, session_id="s"), SessionManager(store, session_id="s")
        ours.add_message("user", "one")
        theirs.add_message("user", "two")
        ours.clear_history()
        assert said(SessionManager(store, session_id="s")) == []

        theirs.add_message("user", "three")
        ours.set_history([{"role": "user", "content": "set"}])

        assert said(SessionManager(store, session_id="s")) == ["set"]
        assert stored(store) == ["one", "two", "three", "set"]

    def test_edits_of_the_state_are_a_conflict_and_then_the_session_is_loaded_anew(
        self, store: PersistenceAdapter
    ) -> None:
        ours, theirs = SessionManager(store, session_id="s"), SessionManager(store, session_id="s")
        stale = ours.get_or_create()
        theirs.set_data({"who": "they"})
        stale.data["who"] = "we"

        for _ in range(2):
            with pytest.raises(SessionConflictError) as raised:
                ours.save()
            assert (raised.value.expected_version, raised.value.actual_version) == (1, 2)

        fresh = ours.get_or_create()
        assert fresh is not stale
        assert fresh.data == {"who": "they"}
        fresh.data["who"] = "we"
        ours.save()
        assert SessionManager(store, session_id="s").get_data() == {"who": "we"}

    def test_edits_of_the_state_are_never_dropped_in_silence(self, store: PersistenceAdapter) -> None:
        ours, theirs = SessionManager(store, session_id="s"), SessionManager(store, session_id="s")
        ours.get_or_create()
        theirs.set_data({"who": "they"})
        state(ours).metadata["edited"] = True

        with pytest.raises(SessionConflictError):
            ours.add_message("user", "Hello")

        assert stored(store) == []
        ours.add_message("user", "Hello")
        assert stored(store) == ["Hello"]

    def test_a_message_that_could_not_be_saved_is_not_dropped_for_a_session_of_somebody_else(
        self, troubled: TroubledStore
    ) -> None:
        ours, theirs = SessionManager(troubled, session_id="s"), SessionManager(troubled, session_id="s")
        troubled.failing = {"commit"}
        with pytest.raises(StoreUnavailableError):
            ours.add_message("user", "unsaved")
        troubled.failing = set()
        theirs.get_or_create()

        with pytest.raises(SessionConflictError):
            ours.get_or_create()

        assert ours.get_or_create().version == 1

    def test_a_message_whose_save_had_an_unknown_end_is_not_saved_twice(
        self, troubled: TroubledStore
    ) -> None:
        manager = SessionManager(troubled, session_id="s")
        manager.get_or_create()
        troubled.lost_answers = 1
        with pytest.raises(StoreUnavailableError):
            manager.add_message("user", "once")

        with pytest.raises(SessionConflictError):
            manager.save()

        assert said(manager) == stored(troubled) == ["once"]

    def test_many_managers_lose_nothing(self, store: PersistenceAdapter) -> None:
        def write(number: int) -> None:
            manager = SessionManager(store, session_id="s")
            manager.add_message("user", str(number))
            manager.set_data({str(number): number})

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(write, range(18)))

        assert sorted(stored(store), key=int) == [str(number) for number in range(18)]
        data = SessionManager(store, session_id="s").get_data()
        assert data == {str(number): number for number in range(18)}

    def test_threads_share_a_manager(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(store, session_id="s")
        manager.get_or_create()

        def write(number: int) -> None:
            manager.add_message("user", str(number))
            manager.set_data({str(number): number})
            manager.save()

        with ThreadPoolExecutor(5) as pool:
            list(pool.map(write, range(5)))

        assert state(manager).version == 11
        assert sorted(said(manager)) == sorted(stored(store)) == ["0", "1", "2", "3", "4"]
        data = SessionManager(store, session_id="s").get_data()
        assert data == manager.get_data() == {str(number): number for number in range(5)}

    def test_a_session_of_another_user_is_out_of_reach(self, store: PersistenceAdapter) -> None:
        SessionManager(store, session_id="s", user_id="they").add_message("user", "private")
        manager = SessionManager(PersistenceManager(store, user_id="me"), session_id="s")

        for call in (manager.get_or_create, manager.get_history, manager.load, manager.clear_history):
            with pytest.raises(SessionError):
                call()

        assert stored(store) == ["private"]


class TestTurns:
    def turn(self, number: int = 1) -> TurnRecord:
        return TurnRecord(session_id="s", turn_id=f"s:{number}", result={"number": number})

    def test_loading_writes_nothing_and_takes_one_round_trip(self, troubled: TroubledStore) -> None:
        manager = SessionManager(troubled, session_id="s")

        assert manager.load(turn_id="s:1") is None

        assert (troubled.loads, troubled.commits) == (1, 0)
        assert state(manager).version == 0

    def test_a_turn_is_one_commit(self, troubled: TroubledStore) -> None:
        manager = SessionManager(troubled, session_id="s", user_id="u")
        manager.load(turn_id="s:1")
        state(manager).data["name"] = "John"

        committed = manager.commit(messages("s", "question", "answer"), self.turn())

        assert (troubled.loads, troubled.commits) == (1, 1)
        assert committed.session is manager.current
        assert (state(manager).version, state(manager).message_count) == (1, 2)
        assert said(manager) == stored(troubled) == ["question", "answer"]
        other = SessionManager(troubled, session_id="s")
        assert (other.get_data(), state(other).user_id) == ({"name": "John"}, "u")

    def test_each_turn_sees_what_others_did_before_it(self, store: PersistenceAdapter) -> None:
        ours, theirs = SessionManager(store, session_id="s"), SessionManager(store, session_id="s")
        for number in range(4):
            manager = (ours, theirs)[number % 2]
            manager.load()
            assert said(manager) == [str(n) for n in range(number)]
            manager.commit(messages("s", str(number)), self.turn(number))

    def test_a_turn_that_was_taken_is_answered_from_the_store(self, store: PersistenceAdapter) -> None:
        ours, theirs = SessionManager(store, session_id="s"), SessionManager(store, session_id="s")
        theirs.load()
        theirs.commit(messages("s", "question"), self.turn())

        known = ours.load(turn_id="s:1")

        assert known is not None
        assert known.result == {"number": 1}
        assert said(ours) == ["question"]
        ours.add_message("user", "no turn is open: this is saved at once")
        assert len(stored(store)) == 2

    def test_a_turn_that_somebody_took_meanwhile_changes_nothing(self, store: PersistenceAdapter) -> None:
        """As when a paused worker goes on after another has taken over."""
        late, other = SessionManager(store, session_id="s"), SessionManager(store, session_id="s")
        late.load(turn_id="s:1")
        state(late).data["by"] = "the late one"
        other.load(turn_id="s:1")
        state(other).data["by"] = "the other"
        other.commit(messages("s", "question"), self.turn())
        other.load()
        other.commit(messages("s", "next question"), self.turn(2))

        committed = late.commit(
            messages("s", "question"), TurnRecord(session_id="s", turn_id="s:1", result={"late": True})
        )

        assert committed.repeated
        assert committed.turn is not None
        assert committed.turn.result == {"number": 1}
        assert committed.session is late.current
        assert late.get_data() == {"by": "the other"}
        assert said(late) == stored(store) == ["question", "next question"]

    def test_a_turn_after_which_somebody_else_spoke_is_a_conflict(self, store: PersistenceAdapter) -> None:
        late, other = SessionManager(store, session_id="s"), SessionManager(store, session_id="s")
        late.load(turn_id="s:1")
        state(late).data["by"] = "the late one"
        other.add_message("user", "overtaken")

        with pytest.raises(SessionConflictError):
            late.commit(messages("s", "late"), self.turn())

        assert late.get_data() == {}
        assert late.load(turn_id="s:1") is None
        assert said(late) == ["overtaken"]
        late.commit(messages("s", "late"), self.turn())
        assert stored(store) == ["overtaken", "late"]

    def test_a_change_of_status_or_data_does_not_cost_the_turn(self, store: PersistenceAdapter) -> None:
        """The original: completing a session, or the seed's onContextUpdate recipe, failed the running turn
        and all later ones."""
        persistence = PersistenceManager(store)
        manager = SessionManager(persistence, session_id="s")
        manager.set_data({"name": "John", "guests": 1, "gone": True})
        manager.load(turn_id="s:1")
        session = state(manager)
        session.enter_route(RouteRef(id="booking"))
        session.data["guests"] = 2
        del session.data["gone"]
        session.data_by_route["booking"] = {"guests": 2}

        store.session_repository.update("s", {"data_by_route": {"booking": {"vip": 1}, "other": {"a": 1}}})
        persistence.update_collected_data("s", {"preferences": {"theme": "dark"}, "guests": 9})
        persistence.complete_session("s")
        manager.commit(messages("s", "question", "answer"), self.turn())

        other = SessionManager(store, session_id="s").get_or_create()
        assert other.data == {"name": "John", "guests": 2, "preferences": {"theme": "dark"}}
        assert other.data_by_route == {"booking": {"guests": 2, "vip": 1}, "other": {"a": 1}}
        assert other.status == "completed"
        assert other.completed_at is not None
        assert other.current_route is not None
        assert other.current_route.id == "booking"
        assert other == state(manager)

    def test_a_move_by_others_stays_unless_the_turn_moved_too(self, store: PersistenceAdapter) -> None:
        persistence = PersistenceManager(store)
        manager = SessionManager(persistence, session_id="s")
        manager.get_or_create()
        manager.load()
        persistence.update_route_step("s", "theirs")
        manager.commit(messages("s", "a"))
        route = state(manager).current_route
        assert route is not None
        assert route.id == "theirs"

        manager.load()
        state(manager).enter_route(RouteRef(id="ours"))
        persistence.update_route_step("s", "theirs", "a step of theirs")
        manager.commit(messages("s", "b"))
        route = state(manager).current_route
        assert route is not None
        assert (route.id, state(manager).current_step) == ("ours", None)

    def test_endless_changes_by_others_end_in_the_conflict(self, troubled: TroubledStore) -> None:
        persistence = PersistenceManager(troubled)
        manager = SessionManager(persistence, session_id="s")
        manager.get_or_create()
        manager.load()

        def again() -> None:
            persistence.update_collected_data("s", {"a": 1})
            troubled.meanwhile = [again]

        troubled.meanwhile = [again]

        with pytest.raises(SessionConflictError):
            manager.commit(messages("s", "question"), self.turn())

    def test_a_session_deleted_during_its_turn_is_not_brought_back(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(store, session_id="s")
        manager.add_message("user", "Hello")
        manager.load()
        store.delete_sessions([Target("s")])

        with pytest.raises(SessionConflictError) as raised:
            manager.commit(messages("s", "more"), self.turn())

        assert raised.value.actual_version is None
        assert stored(store) == []

    def test_what_tools_change_during_a_turn_is_committed_with_it(self, troubled: TroubledStore) -> None:
        """The original: saving inside a tool made the turn's own save a conflict."""
        manager = SessionManager(troubled, session_id="s")
        manager.load(turn_id="s:1")
        manager.set_data({"looked_up": True})
        manager.add_message("system", "a note")
        manager.get_or_create().metadata["a"] = 1
        manager.save()
        assert troubled.commits == 0

        manager.commit(messages("s", "question", "answer"), self.turn())

        assert troubled.commits == 1
        assert said(manager) == stored(troubled) == ["a note", "question", "answer"]
        other = SessionManager(troubled, session_id="s").get_or_create()
        assert (other.data, other.metadata) == ({"looked_up": True}, {"a": 1})

    def test_a_turn_that_fails_leaves_no_trace(self, troubled: TroubledStore) -> None:
        manager = SessionManager(troubled, session_id="s")
        manager.add_message("user", "before")
        manager.set_data({"nested": {"a": 1}})
        before = state(manager).model_copy(deep=True)
        manager.load()
        state(manager).data["nested"]["a"] = 2
        state(manager).enter_route(RouteRef(id="booking"))
        manager.add_message("system", "a note")
        manager.clear_history()

        manager.rollback()

        assert state(manager) == before
        manager.add_message("user", "after")
        assert said(manager) == stored(troubled) == ["before", "after"]

    def test_a_commit_that_fails_is_rolled_back(self, troubled: TroubledStore) -> None:
        manager = SessionManager(troubled, session_id="s")
        manager.add_message("user", "before")
        manager.load()
        state(manager).data["a"] = 1
        troubled.failing = {"commit"}

        with pytest.raises(StoreUnavailableError):
            manager.commit(messages("s", "question"), self.turn())

        troubled.failing = set()
        assert (said(manager), manager.get_data()) == (["before"], {})
        manager.add_message("user", "after")
        assert stored(troubled) == ["before", "after"]

    def test_a_commit_whose_answer_was_lost_is_found_again(self, troubled: TroubledStore) -> None:
        manager = SessionManager(troubled, session_id="s")
        manager.load(turn_id="s:1")
        troubled.lost_answers = 1
        with pytest.raises(StoreUnavailableError):
            manager.commit(messages("s", "question"), self.turn())

        assert manager.load(turn_id="s:1") is not None
        assert said(manager) == stored(troubled) == ["question"]

    def test_a_turn_that_was_left_open_is_undone_by_the_next(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(store, session_id="s")
        manager.load()
        state(manager).data["left"] = "open"

        manager.load()

        assert manager.get_data() == {}

    def test_what_could_not_be_saved_before_a_turn_is_saved_with_it(self, troubled: TroubledStore) -> None:
        manager = SessionManager(troubled, session_id="s")
        troubled.failing = {"commit"}
        with pytest.raises(StoreUnavailableError):
            manager.add_message("user", "unsaved")
        troubled.failing = set()

        manager.load()
        assert said(manager) == ["unsaved"]
        manager.commit(messages("s", "question"), self.turn())

        assert said(manager) == stored(troubled) == ["unsaved", "question"]

    def test_a_commit_needs_a_turn(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(store, session_id="s")
        manager.get_or_create()

        with pytest.raises(SessionError, match="load"):
            manager.commit(messages("s", "question"))

    def test_a_session_is_not_replaced_during_its_turn(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(store, session_id="s")
        manager.load()

        for call in (manager.delete, manager.reset, lambda: manager.get_or_create("another")):
            with pytest.raises(SessionError, match="during a turn"):
                call()

        manager.commit(messages("s", "question"))
        assert stored(store) == ["question"]

    def test_a_turn_of_a_session_without_an_id_makes_one(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(store)
        manager.load()
        session_id = state(manager).id
        manager.commit(messages(session_id, "question"))

        assert manager.id == session_id
        assert stored(store, session_id) == ["question"]

    def test_the_history_at_hand_stays_within_its_window(self, store: PersistenceAdapter) -> None:
        manager = SessionManager(PersistenceManager(store, history_window=3), session_id="s")
        for number in range(3):
            manager.load()
            manager.commit(messages("s", f"question {number}", f"answer {number}"))

        assert said(manager) == ["answer 1", "question 2", "answer 2"]
