"""The kit on `load`: everything comes back as it went in, and no more messages than were asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from inturn.persistence.adapter import PersistenceAdapter
from inturn.session.state import (
    HistoryItem,
    Message,
    RouteHistoryEntry,
    RouteRef,
    SessionState,
    StepRef,
    TurnRecord,
)
from inturn.testing.conformance.base import (
    Conformance,
    loaded,
    message,
    messages,
    new_session,
    recommit,
    saved,
    turn,
    unique,
)

TIME = datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC)
JSON = {
    "text": 'quotes " and \\ and \u2028 and 🙂',
    "": "an empty key",
    "ключ": None,
    "numbers": [0, -1, 1.5, 0.1, 1e-9, 2**53 + 1, -(2**63)],
    "truth": [True, False, None],
    "nested": {"list": [[], {}, [{"deep": [1, [2, [3]]]}]]},
}


class LoadConformance(Conformance):
    """load."""

    def test_an_unknown_session_is_none(self, adapter: PersistenceAdapter) -> None:
        """`load`: None if there is none."""
        assert adapter.load(unique()) is None
        assert adapter.load(unique(), last_messages=10, turn_id="t") is None

    def test_every_field_of_a_session_comes_back(self, adapter: PersistenceAdapter) -> None:
        """Whatever a session holds is there after a load."""
        session = SessionState(
            id=unique("session"),
            user_id=unique("user"),
            agent_name="Booking",
            status="completed",
            data=JSON,
            data_by_route={"booking": JSON, "empty": {}},
            route_history=[
                RouteHistoryEntry(route_id="a", entered_at=TIME, exited_at=TIME, completed=True),
                RouteHistoryEntry(route_id="b", entered_at=TIME),
            ],
            current_route=RouteRef(id="b", title="Second", entered_at=TIME),
            current_step=StepRef(id="ask", description="Ask for the city", entered_at=TIME),
            pending=JSON,
            history_start=7,
            metadata=JSON,
            completed_at=TIME,
            created_at=TIME,
            schema_version=3,
        )
        stored = adapter.commit(session, expected_version=0).session
        unchanged = set(SessionState.model_fields) - {"version", "updated_at"}
        assert stored.model_dump(include=unchanged) == session.model_dump(include=unchanged)
        assert loaded(adapter, session.id).session == stored

    def test_every_field_of_a_message_comes_back(self, adapter: PersistenceAdapter) -> None:
        """Whatever a message holds is there after a load."""
        session = new_session()
        full = Message(
            id=unique("msg"),
            session_id=session.id,
            turn_id=unique("turn"),
            user_id=unique("user"),
            role="assistant",
            content='Line 1\nLine 2\t"quoted" 100% :name ?1 {brace} \\ 🙂 \u0301\ufeff\uffff',
            name="Ann",
            route="booking",
            step="ask",
            tool_calls=[{"name": "search", "arguments": JSON}, {}],
            event=JSON,
            created_at=TIME,
        )
        stored = adapter.commit(session, [full], expected_version=0).messages
        assert stored == [full.model_copy(update={"sequence": 1})]
        assert loaded(adapter, session.id).messages == stored

    def test_every_field_of_a_turn_comes_back(self, adapter: PersistenceAdapter) -> None:
        """`load`: with `turn_id` also that turn's record."""
        session = new_session()
        record = TurnRecord(session_id=session.id, turn_id=unique("turn"), result=JSON, created_at=TIME)
        adapter.commit(session, expected_version=0, turn=record)
        assert loaded(adapter, session.id, record.turn_id).turn == record

    def test_nothing_stays_nothing_and_empty_stays_empty(self, adapter: PersistenceAdapter) -> None:
        """None, an empty text and an empty container are three things."""
        session = new_session(pending={}, agent_name="")
        some = [
            message(session.id, "", name="", route="", step="", tool_calls=[], event={}),
            message(session.id, "x"),
        ]
        stored = adapter.commit(session, some, expected_version=0)
        found = loaded(adapter, session.id)
        assert found.session == stored.session
        assert (found.session.pending, found.session.agent_name) == ({}, "")
        empty, missing = found.messages
        assert (empty.name, empty.route, empty.step, empty.tool_calls, empty.event) == ("", "", "", [], {})
        assert (missing.name, missing.route, missing.step, missing.tool_calls) == (None, None, None, None)

        bare = saved(adapter)
        found = loaded(adapter, bare.id)
        assert found.session == bare
        assert found.messages == []
        assert found.turn is None
        for field in ("user_id", "agent_name", "current_route", "current_step", "pending", "schema_version"):
            assert getattr(found.session, field) is None

    def test_what_was_cleared_is_gone(self, adapter: PersistenceAdapter) -> None:
        """A commit replaces the whole state: nothing of an older one shines through."""
        session = saved(
            adapter,
            user_id="u",
            data={"city": "Lagos", "date": "today"},
            metadata={"a": 1},
            pending={"directive": "x"},
            current_route=RouteRef(id="r"),
            current_step=StepRef(id="s"),
            schema_version=1,
        )
        del session.data["city"]
        session.metadata.clear()
        session.user_id = session.pending = session.schema_version = None
        session.current_route = session.current_step = None
        stored = recommit(adapter, session).session
        assert loaded(adapter, session.id).session == stored
        assert stored.data == {"date": "today"}
        assert stored.current_route is None

    def test_a_mebibyte_of_text_comes_back(self, adapter: PersistenceAdapter) -> None:
        """Texts may be long."""
        long = "ä🙂x\n" * (2**20 // 4)
        session = saved(adapter, data={"long": long})
        recommit(adapter, session, message(session.id, long))
        found = loaded(adapter, session.id)
        assert found.messages[0].content == long
        assert found.session.data == {"long": long}

    @pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-11)), timezone(timedelta(hours=5.75))])
    @pytest.mark.parametrize("year", [1, 1000, 1969, 2038, 9999])
    def test_times_come_back_to_the_microsecond_in_utc(
        self, adapter: PersistenceAdapter, year: int, zone: timezone
    ) -> None:
        """Every time in inturn is aware, and in UTC."""
        time = datetime(year, 6, 15, 12, 30, 45, 999999, tzinfo=zone)
        session = saved(adapter, created_at=time)
        recommit(adapter, session, message(session.id, created_at=time))
        found = loaded(adapter, session.id)
        for back in (found.session.created_at, found.messages[0].created_at, found.session.last_message_at):
            assert back is not None
            assert back == time
            assert back.utcoffset() == timedelta(0)

    @pytest.mark.parametrize(("asked", "first"), [(0, None), (1, 7), (3, 5), (7, 1), (8, 1), (10**6, 1)])
    def test_the_newest_messages_come_oldest_first(
        self, adapter: PersistenceAdapter, asked: int, first: int | None
    ) -> None:
        """`load`: a session with its `last_messages` newest messages, oldest first."""
        session = saved(adapter, 5)
        session = recommit(adapter, session, message(session.id, "6"), message(session.id, "7")).session
        found = adapter.load(session.id, last_messages=asked)
        assert found is not None
        expected = list(range(first, 8)) if first is not None else []
        assert [item.sequence for item in found.messages] == expected
        assert [item.content for item in found.messages] == [str(number) for number in expected]

    def test_the_history_is_not_part_of_what_is_saved(self, adapter: PersistenceAdapter) -> None:
        """A session's `history` is the window of its reader: messages are rows of their own."""
        session = new_session(history=[HistoryItem(role="user", content="only here")])
        adapter.commit(session, messages(session.id, 1), expected_version=0)
        assert loaded(adapter, session.id).session.history == []

    def test_a_turn_that_was_not_committed_is_none(self, adapter: PersistenceAdapter) -> None:
        """`load`: the turn's record, if it was committed for this session."""
        mine, others = new_session(), new_session()
        record = turn(others.id)
        adapter.commit(mine, expected_version=0)
        adapter.commit(others, expected_version=0, turn=record)
        assert loaded(adapter, mine.id, record.turn_id).turn is None
        assert loaded(adapter, others.id, unique()).turn is None
        assert loaded(adapter, others.id).turn is None

    def test_what_was_loaded_is_a_copy(self, adapter: PersistenceAdapter) -> None:
        """Changing what an adapter returned, or was given, does not change the store."""
        session = new_session(data={"list": [1]}, metadata={"a": {}})
        given = message(session.id, event={"a": [1]})
        record = turn(session.id, a=[1])
        committed = adapter.commit(session, [given], expected_version=0, turn=record)
        before = loaded(adapter, session.id, record.turn_id)
        for state in (session, committed.session, loaded(adapter, session.id).session):
            state.data["list"].append(2)
            state.metadata["a"]["b"] = 1
            state.status = "abandoned"
        for item in (given, *committed.messages, *loaded(adapter, session.id).messages):
            assert item.event is not None
            item.event["a"].append(2)
            item.content = "changed"
        record.result["a"].append(2)
        assert loaded(adapter, session.id, record.turn_id) == before
        assert before.session.data == {"list": [1]}
