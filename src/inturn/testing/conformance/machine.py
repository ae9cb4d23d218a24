"""The kit's state machine: whatever is called in whatever order, the answers are those of `MemoryAdapter`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from inturn.errors import InvalidInputError, SessionConflictError
from inturn.persistence.adapter import MessageQuery, PersistenceAdapter, SessionQuery, Target
from inturn.persistence.memory import MemoryAdapter
from inturn.session.state import Message, RouteRef, SessionState, StepRef, TurnRecord, create_session
from inturn.testing.conformance.base import Conformance, a_time_of_its_own, everything, unique
from inturn.testing.conformance.listings import pages

T = TypeVar("T")
SESSIONS = 3

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
# Not all floats: a store that keeps decimals, as PostgreSQL does, gives those above as whole numbers.
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(-1e15, 1e15)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(texts, values, max_size=3)
places = st.none() | st.tuples(texts, texts)
states = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(["ann", "bob", None]),
        "agent_name": st.sampled_from(["desk", "desk", "desk", "", None]),
        "status": st.sampled_from(["active", "completed", "abandoned"]),
        "data": objects,
        "metadata": objects,
        "pending": st.none() | objects,
        "current_route": st.builds(lambda place: place and RouteRef(id=place[0], title=place[1]), places),
        "current_step": st.builds(lambda place: place and StepRef(id=place[0], description=place[1]), places),
        "schema_version": st.none() | st.integers(0, 3),
        "history_start": st.integers(0, 3),
    }
)
lines = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(["ann", "bob", None]),
        "role": st.sampled_from(["user", "assistant", "system", "tool"]),
        "content": texts,
        "name": st.none() | texts,
        "tool_calls": st.none() | st.lists(objects, max_size=2),
        "event": st.none() | objects,
        "after": st.integers(0, 3),  # seconds: many share a time
    }
)
conversations = st.lists(lines, max_size=4)
which = st.integers(0, SESSIONS - 1)
turns = st.none() | st.integers(0, 2)
seldom = st.integers(0, 9).map(lambda number: number == 9)
ticks = st.sampled_from([0, 0, 1, 10**6])  # microseconds: commits of one instant, and of others
orders = st.sampled_from(["newest", "oldest"])


@dataclass(frozen=True)
class _Edit:
    """What one commit brings."""

    state: dict[str, Any]
    said: list[dict[str, Any]]
    turn: int | None = None
    result: dict[str, Any] = field(default_factory=dict)
    tick: int = 0


edits = st.builds(_Edit, states, conversations, turns, objects, ticks)


class MachineConformance(Conformance):
    """Random histories of calls, the same ones in each run."""

    examples: ClassVar[int] = 25
    """How many histories are tried."""
    steps: ClassVar[int] = 25
    """How many calls one history has at most."""
    shrink: ClassVar[bool] = False
    """Whether a failure is told with the shortest history that shows it; looking for it may take minutes."""

    def test_any_history_of_calls_is_answered_as_by_the_reference(self, adapter: PersistenceAdapter) -> None:
        """The whole contract at once: each call gives, or raises, what it does in memory."""

        class Comparison(_Comparison):
            checked = adapter

        run_state_machine_as_test(
            Comparison,
            settings=settings(
                max_examples=self.examples,
                stateful_step_count=self.steps,
                derandomize=True,
                database=None,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
                phases=[Phase.generate, Phase.shrink] if self.shrink else [Phase.generate],
            ),
        )


class _Comparison(RuleBasedStateMachine):
    """Two stores that are asked the same, about sessions that nobody else has."""

    checked: ClassVar[PersistenceAdapter]

    def __init__(self) -> None:
        super().__init__()
        self._reference = MemoryAdapter()
        self._own = unique()
        self._sessions = [f"{self._own}-{number}" for number in range(SESSIONS)]
        self._held: list[SessionState] = []  # as they were loaded or committed: most of them are stale
        self._message_ids: list[str] = []
        self._start = self._clock = a_time_of_its_own()

    @initialize(states=st.tuples(states, states), said=conversations)
    def begin(self, states: tuple[dict[str, Any], dict[str, Any]], said: list[dict[str, Any]]) -> None:
        """Two of the sessions are there from the start."""
        for number, state in enumerate(states):
            self.create(self._sessions[number], _Edit(state, said))

    @rule(number=which, edit=edits)
    def create_one(self, number: int, edit: _Edit) -> None:
        """A session that may be there already."""
        self.create(self._sessions[number], edit)

    @rule(number=which, edit=edits)
    def go_on(self, number: int, edit: _Edit) -> None:
        """The turn of a session that nobody else has touched."""
        found = self._both(lambda store: store.load(self._sessions[number]))
        if found is None:
            self.create(self._sessions[number], edit)
        else:
            self._commit(found.session, found.session.version, edit)

    @precondition(lambda self: self._held)
    @rule(copy=st.integers(0, 20), off=st.sampled_from([0, 0, 0, 1, -1]), edit=edits)
    def change_a_copy(self, copy: int, off: int, edit: _Edit) -> None:
        """The turn of a session as it was some time ago, or with a version that it never had."""
        session = self._held[-1 - copy % len(self._held)]
        self._commit(session, max(0, session.version + off), edit)

    @precondition(lambda self: self._message_ids)
    @rule(number=which, edit=edits)
    def repeat_a_message_id(self, number: int, edit: _Edit) -> None:
        """An ID that may still be taken, or is free since its session went."""
        found = self._both(lambda store: store.load(self._sessions[number]))
        if found is not None:
            self._commit(found.session, found.session.version, edit, message_id=self._message_ids[-1])

    @rule(number=which, window=st.integers(0, 6), turn=turns)
    def load(self, number: int, window: int, turn: int | None) -> None:
        """A session that may not be there, and a turn that may not."""
        session_id = self._sessions[number]
        turn_id = None if turn is None else f"{session_id}:{turn}"
        found = self._both(lambda store: store.load(session_id, last_messages=window, turn_id=turn_id))
        if found is not None:
            self._held.append(found.session)

    @rule(doomed=st.lists(st.tuples(which, seldom.map(lambda yes: None if yes else 2)), max_size=3))
    def delete(self, doomed: list[tuple[int, int | None]]) -> None:
        """Some sessions, whatever their version (which ends them) or only if it is this one."""
        targets = [Target(self._sessions[number], version) for number, version in doomed]
        self._both(lambda store: store.delete_sessions(targets))

    @rule(
        user=st.sampled_from([None, "ann"]),
        status=st.sampled_from([None, None, "active"]),
        after=st.none() | st.integers(0, 2),
        order=orders,
        limit=st.integers(1, 2),
    )
    def find_sessions(self, user: str | None, status: Any, after: int | None, order: Any, limit: int) -> None:
        """All pages of a list."""
        query = SessionQuery(
            user_id=user and self._name(user),
            agent_name=None if user else self._name("desk"),
            status=status,
            newer_than=None if after is None else self._start + timedelta(seconds=after),
            order=order,
            limit=limit,
        )
        self._both(lambda store: pages(store.find_sessions, query))

    @rule(
        number=which,
        user=st.sampled_from([None, "ann", "bob"]),
        after=st.none() | st.integers(-1, 3),
        before=st.none() | st.integers(2, 9),
        order=orders,
        limit=st.integers(1, 3),
    )
    def find_messages(
        self, number: int, user: str | None, after: int | None, before: int | None, order: Any, limit: int
    ) -> None:
        """All pages of a session's messages, or of a user's."""
        if user is None:
            query = MessageQuery(
                session_id=self._sessions[number], after=after, before=before, order=order, limit=limit
            )
        else:
            query = MessageQuery(user_id=self._name(user), order=order, limit=limit)
        self._both(lambda store: pages(store.find_messages, query))

    def teardown(self) -> None:
        """All that is stored is alike in the end, and goes."""
        for session_id in self._sessions:
            self._both(lambda store, session_id=session_id: everything(store, session_id))  # type: ignore[misc]
        one_by_one = SessionQuery(agent_name=self._name("desk"), limit=1)
        self._both(lambda store: pages(store.find_sessions, one_by_one))
        self._both(lambda store: store.delete_sessions([Target(each) for each in self._sessions]))

    def create(self, session_id: str, edit: _Edit) -> None:
        """Commit a session that is expected to be new."""
        self._commit(create_session(session_id, created_at=self._start), 0, edit)

    def _commit(
        self, session: SessionState, expected_version: int, edit: _Edit, message_id: str | None = None
    ) -> None:
        self._clock += timedelta(microseconds=edit.tick)
        names = {key: edit.state[key] and self._name(edit.state[key]) for key in ("user_id", "agent_name")}
        session = session.model_copy(update={**edit.state, **names, "updated_at": self._clock})
        some = self._messages(session, edit.said)
        if some and message_id is not None:
            some[-1].id = message_id
        record = None if edit.turn is None else self._turn(session, edit.turn, edit.result)
        done = self._both(
            lambda store: store.commit(session, some, expected_version=expected_version, turn=record)
        )
        if done is not None:
            self._held.append(done.session)
            self._message_ids += [message.id for message in done.messages]

    def _messages(self, session: SessionState, said: list[dict[str, Any]]) -> list[Message]:
        some: list[Message] = []
        for line in said:
            user, after = line["user_id"], timedelta(seconds=line["after"])
            fields = {**line, "user_id": user and self._name(user), "created_at": self._start + after}
            del fields["after"]
            message_id = f"{self._own}-{len(self._message_ids)}-{len(some)}-{self._clock.isoformat()}"
            some.append(Message(id=message_id, session_id=session.id, **fields))
        return some

    def _turn(self, session: SessionState, number: int, result: dict[str, Any]) -> TurnRecord:
        return TurnRecord(
            session_id=session.id,
            turn_id=f"{session.id}:{number}",
            result=result,
            created_at=self._start,
        )

    def _name(self, name: str) -> str:
        return f"{self._own}-{name}"

    def _both(self, call: Callable[[PersistenceAdapter], T]) -> T | None:
        """What both stores answer; None if both refuse."""
        expected, actual = (_outcome(call, store) for store in (self._reference, self.checked))
        assert actual == expected
        return expected[0]


def _outcome(call: Callable[[PersistenceAdapter], T], store: PersistenceAdapter) -> tuple[T | None, Any]:
    try:
        return call(store), None
    except SessionConflictError as conflict:
        return None, vars(conflict)
    except InvalidInputError:
        return None, InvalidInputError
