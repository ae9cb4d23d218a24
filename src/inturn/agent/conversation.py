"""Conversation: one session whose turns are taken one at a time, each committed whole or not at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple

from inturn.contract import Piece, TurnResult
from inturn.errors import SessionConflictError, SessionError
from inturn.ids import create_turn_id
from inturn.metrics import count_conflict
from inturn.persistence.rows import turn_key
from inturn.session.manager import SessionManager
from inturn.session.state import Delivery, Message, SessionState, TurnRecord

MAX_TRIES = 3
"""How often a turn is taken anew because somebody else wrote to the session meanwhile."""


class Taken(NamedTuple):
    """What a turn is to be recorded as, and the context that it leaves."""

    result: TurnResult
    messages: list[Message]
    context: Mapping[str, Any]


Take = Callable[[SessionState, Sequence[str]], Generator[Piece, None, Taken]]
"""Takes the first of these turns, with the messages of the others."""


class Conversation:
    """Takes turns of one session; `context` is as the last of them left it."""

    def __init__(self, session: SessionManager, context: Mapping[str, Any]) -> None:
        self.session = session
        self.context = context
        self._lock = threading.Lock()
        self._holder: int | None = None

    def take(
        self,
        turn_id: str | None,
        take: Take,
        delivery: Delivery | None = None,
        merged: Sequence[str] = (),
    ) -> Generator[Piece, None, tuple[TurnResult, bool]]:
        """Take a turn and commit it; the result, and whether it was committed just now.

        With a `delivery` the reply, if it has any text, goes into the session's outbox in the same commit.
        A turn that was committed before is told from the store. `merged` are the IDs of turns that are
        answered with it; where one of them all was committed before, the others are one turn without it.
        Call `note_merged` afterwards. `SessionConflictError` if others wrote to the session during each of
        three tries, `SessionError` for a turn within a turn.
        """
        if turn_id is not None:
            turn_key(turn_id)  # refuse now what would be refused once the model has answered
        if self._holder == threading.get_ident():
            raise SessionError("a turn of this conversation is running here; end it before the next")
        with self._lock:
            self._holder = threading.get_ident()
            try:
                for _ in range(MAX_TRIES - 1):
                    try:
                        return (yield from self._try(turn_id, take, delivery, merged))
                    except SessionConflictError:
                        count_conflict("turn")
                        # Somebody else wrote: look again at what there is, and decide again.
                return (yield from self._try(turn_id, take, delivery, merged))
            finally:
                self._holder = None

    def note_merged(self) -> None:
        """Have the turns that were committed with another known under their own IDs too.

        Should we die before it is done, the next turn of the session begins with it.
        """
        self.session.note_merged()

    def _try(
        self, turn_id: str | None, take: Take, delivery: Delivery | None, merged: Sequence[str]
    ) -> Generator[Piece, None, tuple[TurnResult, bool]]:
        try:
            known, turn_ids = self._begin(turn_id, merged)
            if known is not None:
                return (yield from _retold(known))
            session = self.session.current
            assert session is not None, "load() leaves a session"
            turn_ids = turn_ids or [create_turn_id(session.id)]
            taken = yield from take(session, turn_ids)
            record = TurnRecord(
                session_id=session.id,
                turn_id=taken.result.turn_id,
                result=taken.result.model_dump(mode="json"),
            )
            if delivery is not None and taken.result.response.message.strip():
                session.outbox[record.turn_id] = delivery
            committed = self.session.commit(taken.messages, record, turn_ids[1:])
        except BaseException:
            self.session.rollback()
            raise
        if committed.repeated and committed.turn is not None:
            if merged:
                # Whoever was faster has perhaps committed this turn without the others.
                return (yield from self._try(turn_id, take, delivery, merged))
            return (yield from _retold(committed.turn))
        self.context = taken.context
        return taken.result, True

    def _begin(self, turn_id: str | None, merged: Sequence[str]) -> tuple[TurnRecord | None, Sequence[str]]:
        """The record of a turn that was committed before, else the IDs of the turns to take as one."""
        if turn_id is None or not merged:
            return self._load(turn_id), [] if turn_id is None else [turn_id]
        turn_ids = [turn_id, *merged]
        self._load(None)
        # Looked at once the turn has begun: what others commit from here on is a conflict.
        known = self.session.known(turn_ids)
        if known.issuperset(turn_ids):
            return self._load(turn_id), turn_ids
        return None, [each for each in turn_ids if each not in known]

    def _load(self, turn_id: str | None) -> TurnRecord | None:
        known = self.session.load(turn_id=turn_id)
        if self.session.note_merged():
            known = self.session.load(turn_id=turn_id)
        return known


def _retold(record: TurnRecord) -> Generator[Piece, None, tuple[TurnResult, bool]]:
    """A turn that was committed before: what was told of it until now is perhaps not what it came to."""
    result = TurnResult.model_validate(record.result)
    yield Piece(result.response.message, restarts=True)
    return result, False
