"""The kit on input: what no backend could keep alike is refused by all, before anything is written."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from inturn.errors import InvalidInputError
from inturn.ids import create_turn_id
from inturn.persistence.adapter import (
    MAX_PAGE,
    MessageQuery,
    PersistenceAdapter,
    SessionQuery,
    Target,
)
from inturn.session.state import RouteHistoryEntry, RouteRef, SessionState, StepRef, TurnRecord
from inturn.testing.conformance.base import (
    Conformance,
    everything,
    loaded,
    message,
    messages,
    new_session,
    saved,
    turn,
    unique,
)

NAIVE = datetime(2024, 1, 1)
SAID = "what the user said"

BAD_IDS: list[Any] = [
    "",
    None,
    7,
    True,
    b"bytes",
    {"$ne": None},
    {"$gt": ""},
    ["a"],
    "nul\x00",
    "line\nbreak",
    "\u2028",
    "escape\x1b[31m",
    "lone \ud800",
    "x" * 256,
]
ODD_IDS = [
    "it's",
    '"quoted"; DROP TABLE agent_sessions; --',
    "100% %s %(id)s %%",
    ":id ?1 $1 @id",
    "{sessions} {0} {}",
    "$ne",
    "back\\slash \\x00 \\u0000",
    "../../etc/passwd",
    "a:b#c*d?e[f]",
    " spaces around ",
    "null",
    "用户-🙂-e\u0301-\u202e",
    "\uffff",
    "🙂" * 200,
]
BAD_TEXTS = [f"{SAID}\x00", f"{SAID}\udcff"]
BAD_JSON: list[Any] = [
    {"a": float("nan")},
    {"a": [float("-inf")]},
    {"a": object},
    {"a": {"b": f"{SAID}\x00"}},
    {f"{SAID}\x00": 1},
    {"a": f"{SAID}\ud800"},
    {"a": {("tuple",): 1}},
]


def _endless() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


def _deep() -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(100_000):
        value = {"a": value}
    return value


SESSION_FAULTS: dict[str, Callable[[SessionState], object]] = {
    **{
        f"{field}={text!r}": lambda session, field=field, text=text: setattr(session, field, text)  # type: ignore[misc]
        for field in ("agent_name", "user_id")
        for text in BAD_TEXTS
    },
    **{
        f"{field}={number}": lambda session, field=field, value=value: setattr(session, field, value)  # type: ignore[misc]
        for field in ("data", "metadata", "pending")
        for number, value in enumerate(BAD_JSON)
    },
    "data_by_route": lambda session: session.data_by_route.update(r=BAD_JSON[0]),
    "route": lambda session: setattr(session, "current_route", RouteRef(id=BAD_TEXTS[0])),
    "route title": lambda session: setattr(session, "current_route", RouteRef(id="r", title=BAD_TEXTS[0])),
    "step": lambda session: setattr(session, "current_step", StepRef(id=BAD_TEXTS[1])),
    "route history": lambda session: session.route_history.append(RouteHistoryEntry(route_id=BAD_TEXTS[0])),
    "status": lambda session: setattr(session, "status", SAID),
    "no data": lambda session: setattr(session, "data", None),
    "a naive created_at": lambda session: setattr(session, "created_at", NAIVE),
    "a naive updated_at": lambda session: setattr(session, "updated_at", NAIVE),
    "a naive completed_at": lambda session: setattr(session, "completed_at", NAIVE),
    "a naive last_message_at": lambda session: setattr(session, "last_message_at", NAIVE),
    "a naive time in a route": lambda session: setattr(
        session, "current_route", RouteRef(id="r").model_copy(update={"entered_at": NAIVE})
    ),
    "a naive time in the route history": lambda session: session.route_history.append(
        RouteHistoryEntry(route_id="r").model_copy(update={"entered_at": NAIVE})
    ),
    "schema_version": lambda session: setattr(session, "schema_version", 2**63),
}
MESSAGE_FAULTS: dict[str, dict[str, Any]] = {
    **{
        f"{field}={text!r}": {field: text}
        for field in ("content", "name", "route", "step", "turn_id", "user_id", "id")
        for text in BAD_TEXTS
    },
    **{f"event={number}": {"event": value} for number, value in enumerate(BAD_JSON)},
    **{f"tool_calls={number}": {"tool_calls": [value]} for number, value in enumerate(BAD_JSON)},
    "content": {"content": 7},
    "role": {"role": SAID},
    "a naive time": {"created_at": NAIVE},
}


class InputConformance(Conformance):
    """Input of every kind."""

    @pytest.mark.parametrize("bad", BAD_IDS, ids=repr)
    def test_what_is_no_id_is_refused(self, adapter: PersistenceAdapter, bad: Any) -> None:
        """Identifiers are non-empty strings of at most 255 characters, without control characters."""
        session = new_session()
        for call in (
            lambda: adapter.load(bad),
            lambda: adapter.commit(session.model_copy(update={"id": bad}), expected_version=0),
            lambda: adapter.commit(session.model_copy(update={"id": bad}), expected_version=1),
            lambda: adapter.delete_sessions([Target(session.id), Target(bad)]),
        ):
            with pytest.raises(InvalidInputError):
                call()
        if bad is not None:
            for find in (
                lambda: adapter.find_sessions(SessionQuery(user_id=bad)),
                lambda: adapter.find_messages(MessageQuery(session_id=bad)),
                lambda: adapter.find_messages(MessageQuery(user_id=bad)),
                lambda: adapter.commit(session.model_copy(update={"user_id": bad}), expected_version=0),
            ):
                with pytest.raises(InvalidInputError):
                    find()
        assert adapter.load(session.id) is None

    @pytest.mark.parametrize("bad", ["", 7, {"$ne": None}, ["t"], "t\x00", "t\ud800"], ids=repr)
    def test_what_is_no_turn_id_is_refused(self, adapter: PersistenceAdapter, bad: Any) -> None:
        """A turn ID is a string that every store can keep."""
        session = saved(adapter)
        record = turn(session.id).model_copy(update={"turn_id": bad})
        with pytest.raises(InvalidInputError):
            adapter.commit(session, messages(session.id, 1), expected_version=1, turn=record)
        with pytest.raises(InvalidInputError):
            adapter.load(session.id, turn_id=bad)
        assert loaded(adapter, session.id).session == session

    @pytest.mark.parametrize("odd", ODD_IDS)
    def test_odd_ids_are_only_names(self, adapter: PersistenceAdapter, odd: str) -> None:
        """No character of an ID means anything to a store."""
        prefix = unique()
        session = new_session(agent_name=prefix + odd)
        session.id, session.user_id = prefix + odd, odd + prefix
        other = new_session(agent_name=prefix)
        other.id, other.user_id = prefix + odd[:-1], odd[:-1] + prefix
        record = turn(session.id, create_turn_id(session.id, odd))
        some = [message(session.id, odd, id=prefix + odd, user_id=session.user_id)]
        stored = adapter.commit(session, some, expected_version=0, turn=record)
        adapter.commit(other, [message(other.id, user_id=other.user_id)], expected_version=0)
        assert loaded(adapter, session.id, record.turn_id) == stored[:3]
        by_user = adapter.find_sessions(SessionQuery(user_id=session.user_id, agent_name=session.agent_name))
        assert by_user.items == [stored.session]
        for query in (MessageQuery(session_id=session.id), MessageQuery(user_id=session.user_id)):
            assert adapter.find_messages(query).items == stored.messages
        assert adapter.delete_sessions([Target(session.id)]) == [session.id]
        assert adapter.load(other.id) is not None

    @pytest.mark.parametrize("fault", SESSION_FAULTS)
    def test_a_session_no_store_could_keep_is_refused(self, adapter: PersistenceAdapter, fault: str) -> None:
        """`InvalidInputError` before anything is written, and without a word of what was said."""
        session = saved(adapter, 1)
        before = everything(adapter, session.id)
        SESSION_FAULTS[fault](session)
        record = turn(session.id)
        with pytest.raises(InvalidInputError) as refusal:
            adapter.commit(session, [message(session.id)], expected_version=1, turn=record)
        assert SAID not in str(refusal.value)
        assert everything(adapter, session.id) == before
        assert loaded(adapter, session.id, record.turn_id).turn is None
        fresh = new_session()
        SESSION_FAULTS[fault](fresh)
        with pytest.raises(InvalidInputError):
            adapter.commit(fresh, expected_version=0)
        assert adapter.load(fresh.id) is None

    @pytest.mark.parametrize("make", [_endless, _deep])
    def test_json_without_an_end_is_refused(
        self, adapter: PersistenceAdapter, make: Callable[[], dict[str, Any]]
    ) -> None:
        """JSON that holds itself, or is nested without measure."""
        session = saved(adapter)
        session.data = make()
        with pytest.raises(InvalidInputError):
            adapter.commit(session, expected_version=1)
        assert loaded(adapter, session.id).session.version == 1

    @pytest.mark.parametrize("fault", MESSAGE_FAULTS)
    def test_a_message_no_store_could_keep_is_refused(self, adapter: PersistenceAdapter, fault: str) -> None:
        """One bad message, and none of the commit is written."""
        session = saved(adapter, 1)
        before = everything(adapter, session.id)
        bad = message(session.id).model_copy(update=MESSAGE_FAULTS[fault])
        session.data["lost"] = True
        record = turn(session.id)
        with pytest.raises(InvalidInputError) as refusal:
            adapter.commit(session, [message(session.id), bad], expected_version=1, turn=record)
        assert SAID not in str(refusal.value)
        assert everything(adapter, session.id) == before
        assert loaded(adapter, session.id, record.turn_id).turn is None

    @pytest.mark.parametrize(
        "fault",
        [*({"result": value} for value in BAD_JSON), {"created_at": NAIVE}, {"result": None}],
        ids=repr,
    )
    def test_a_turn_no_store_could_keep_is_refused(
        self, adapter: PersistenceAdapter, fault: dict[str, Any]
    ) -> None:
        """One bad record, and none of the commit is written."""
        session = saved(adapter, 1)
        before = everything(adapter, session.id)
        record: TurnRecord = turn(session.id).model_copy(update=fault)
        with pytest.raises(InvalidInputError) as refusal:
            adapter.commit(session, [message(session.id)], expected_version=1, turn=record)
        assert SAID not in str(refusal.value)
        assert everything(adapter, session.id) == before

    @pytest.mark.parametrize("bad", [-1, 2**63, None, "1", 1.0, True], ids=repr)
    def test_what_is_no_version_is_refused(self, adapter: PersistenceAdapter, bad: Any) -> None:
        """A version is a whole number, and never negative."""
        session = saved(adapter)
        with pytest.raises(InvalidInputError):
            adapter.commit(session, messages(session.id, 1), expected_version=bad)
        if bad is not None:
            with pytest.raises(InvalidInputError):
                adapter.delete_sessions([Target(session.id, bad)])
        assert loaded(adapter, session.id).session == session

    @pytest.mark.parametrize("bad", [-1, 2**63, None, "10", 1.0, True], ids=repr)
    def test_what_is_no_number_of_messages_is_refused(self, adapter: PersistenceAdapter, bad: Any) -> None:
        """`load`: `last_messages` is 0 or more."""
        with pytest.raises(InvalidInputError):
            adapter.load(saved(adapter, 1).id, last_messages=bad)

    @pytest.mark.parametrize("bad", [0, -1, MAX_PAGE + 1, 10**20, None, "10", 1.5, True], ids=repr)
    def test_what_is_no_limit_is_refused(self, adapter: PersistenceAdapter, bad: Any) -> None:
        """A page has 1 to `MAX_PAGE` items."""
        with pytest.raises(InvalidInputError):
            adapter.find_sessions(SessionQuery(limit=bad))
        with pytest.raises(InvalidInputError):
            adapter.find_messages(MessageQuery(session_id="s", limit=bad))

    @pytest.mark.parametrize(
        "bad",
        [
            {"status": "done"},
            {"status": {"$ne": None}},
            {"agent_name": {"$gt": ""}},
            {"agent_name": "a\x00"},
            {"agent_name": "a\ud800"},
            {"older_than": NAIVE},
            {"newer_than": NAIVE},
            {"older_than": "2024-01-01T00:00:00Z"},
            {"newer_than": 0},
            {"order": "random"},
            {"order": "newest; DROP TABLE agent_sessions"},
        ],
        ids=repr,
    )
    def test_a_query_for_sessions_that_makes_no_sense_is_refused(
        self, adapter: PersistenceAdapter, bad: dict[str, Any]
    ) -> None:
        """`SessionQuery`: each field is what its type says."""
        with pytest.raises(InvalidInputError):
            adapter.find_sessions(SessionQuery(**bad))

    @pytest.mark.parametrize(
        "bad",
        [
            {},
            {"session_id": "s", "user_id": "u"},
            {"user_id": "u", "after": 1},
            {"user_id": "u", "before": 1},
            {"session_id": "s", "after": "1"},
            {"session_id": "s", "before": 1.5},
            {"session_id": "s", "after": 2**63},
            {"session_id": "s", "before": True},
            {"session_id": "s", "after": {"$gt": 0}},
            {"session_id": "s", "order": "sideways"},
        ],
        ids=repr,
    )
    def test_a_query_for_messages_that_makes_no_sense_is_refused(
        self, adapter: PersistenceAdapter, bad: dict[str, Any]
    ) -> None:
        """`MessageQuery`: exactly one of session and user, bounds with a session only."""
        with pytest.raises(InvalidInputError):
            adapter.find_messages(MessageQuery(**bad))

    def test_a_cursor_of_another_query_is_refused(self, adapter: PersistenceAdapter) -> None:
        """A cursor goes on where its own query stopped, and nowhere else."""
        user = unique("user")
        session = saved(adapter, 3, user_id=user)
        saved(adapter, user_id=user)
        adapter.commit(
            session,
            [message(session.id, user_id=user), message(session.id, user_id=user)],
            expected_version=1,
        )
        queries: list[SessionQuery | MessageQuery] = [
            query
            for order in ("newest", "oldest")
            for query in (
                SessionQuery(user_id=user, order=order, limit=1),
                MessageQuery(session_id=session.id, order=order, limit=1),
                MessageQuery(user_id=user, order=order, limit=1),
            )
        ]
        cursors = [_find(adapter, query).cursor for query in queries]
        for number, query in enumerate(queries):
            for other, cursor in enumerate(cursors):
                assert cursor is not None
                if number == other:
                    assert len(_find(adapter, query, cursor=cursor).items) == 1
                else:
                    with pytest.raises(InvalidInputError):
                        _find(adapter, query, cursor=cursor)

    @pytest.mark.parametrize(
        "bad",
        [
            "",
            "nonsense",
            "é",
            "\ud800",
            7,
            {"$ne": None},
            "WzFd",
            base64.urlsafe_b64encode(b'["2024-01-01T00:00:00+00:00", "x"]').decode(),
            base64.urlsafe_b64encode(b"[" * 100_000).decode(),
            base64.urlsafe_b64encode(b'"; DROP TABLE agent_sessions; --').decode(),
        ],
        ids=lambda bad: repr(bad)[:20],
    )
    def test_what_is_no_cursor_is_refused(self, adapter: PersistenceAdapter, bad: Any) -> None:
        """A cursor comes from a page, unchanged."""
        for query in (SessionQuery(), MessageQuery(session_id="s"), MessageQuery(user_id="u")):
            with pytest.raises(InvalidInputError):
                _find(adapter, query, cursor=bad)

    def test_a_changed_cursor_is_refused_or_harmless(self, adapter: PersistenceAdapter) -> None:
        """Whatever somebody makes of a cursor, no error of the driver comes out."""
        session = saved(adapter, 3)
        query = MessageQuery(session_id=session.id, limit=1)
        cursor = adapter.find_messages(query).cursor
        assert cursor is not None
        text = base64.urlsafe_b64decode(cursor).decode()
        for changed in (
            text.replace(", 1]", ', "1"]'),
            text.replace(", 1]", f", {2**70}]"),
            text.replace(", 1]", ", true]"),
            text.replace(", 1]", ", 1, 2]"),
            text.replace(", 1]", ", null]"),
        ):
            assert changed != text
            with pytest.raises(InvalidInputError):
                _find(adapter, query, cursor=base64.urlsafe_b64encode(changed.encode()).decode())


def _find(adapter: PersistenceAdapter, query: SessionQuery | MessageQuery, **changes: Any) -> Any:
    fields = {name: getattr(query, name) for name in query.__slots__} | changes
    if isinstance(query, SessionQuery):
        return adapter.find_sessions(SessionQuery(**fields))
    return adapter.find_messages(MessageQuery(**fields))
