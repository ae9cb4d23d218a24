"""Tombstones: that a person, and each of their sessions, was erased, so that no late turn brings them back.

A tombstone is a session of the store itself, with an ID that is a hash and no user: it outlives a loss of
Redis, every process that can write to the store can read it, and retention deletes it as a completed session.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from inturn.errors import SessionErasedError
from inturn.persistence.adapter import PersistenceAdapter
from inturn.persistence.conflicts import repeat_on_conflict
from inturn.session.state import create_session, utcnow

PREFIX = "inturn:erased:"
"""What the IDs of all tombstones begin with."""

SLOW_SECONDS = 1.0
"""A turn, or a commit, that takes longer may have been paused while somebody was erased; it looks again."""

SETTLE_SECONDS = 2.5
"""How long an erasure waits between its tombstones and its last look. It is more than twice `SLOW_SECONDS`:
whoever saw no tombstone before it has written by then, session and result, or looks again."""


@dataclass(slots=True)
class TurnInHand:
    """The turns that the code which runs now works on as one; `accepted_at` is the first one's time.

    `began` is when this process took them up, on its monotonic clock; `looked` when it last asked whether
    they are erased, 0 if never.
    """

    turn_ids: tuple[str, ...]
    user_ids: frozenset[str]
    accepted_at: datetime
    began: float

    looked: float = 0.0

    @property
    def is_slow(self) -> bool:
        """Whether enough time has passed for something to have happened meanwhile."""
        return time.monotonic() - self.began > SLOW_SECONDS


_in_hand: ContextVar[TurnInHand | None] = ContextVar("inturn_turn_in_hand", default=None)


def turn_in_hand() -> TurnInHand | None:
    """The turn that is worked on; None: what is written belongs to no turn."""
    return _in_hand.get()


@contextmanager
def working_on(turn: TurnInHand) -> Iterator[None]:
    """Have what is committed while the block runs known as the turn's, in this thread or a copied context."""
    token = _in_hand.set(turn)
    try:
        yield
    finally:
        _in_hand.reset(token)


class Tombstones:
    """The tombstones in a store. Raises what the store raises."""

    def __init__(self, adapter: PersistenceAdapter) -> None:
        self._adapter = adapter

    def put_user(self, user_id: str, unfinished: Iterable[str]) -> None:
        """Note that the user is erased, as of now, and which of their sessions are not all gone yet."""
        self._put(_of_user(user_id), {"unfinished": sorted(unfinished)})

    def put_session(self, session_id: str, turn_ids: Iterable[str]) -> None:
        """Note that the session is erased, as of now, and which turns it is known to have had."""
        name = _of_session(session_id)
        found = self._adapter.load(name)
        known = set() if found is None else set(found.session.data.get("turns", ()))
        self._put(name, {"turns": sorted(known | {_digest(turn_id) for turn_id in turn_ids})})

    def unfinished(self, user_id: str) -> list[str]:
        """The sessions that an erasure of the user, which did not come to its end, had found."""
        found = self._adapter.load(_of_user(user_id))
        return [] if found is None else list(found.session.data.get("unfinished", ()))

    def check(self, turn: TurnInHand, session_id: str) -> None:
        """Raise `SessionErasedError` if the turn was accepted before its session, or its user, was erased."""
        looked = time.monotonic()
        digests = {_digest(turn_id) for turn_id in turn.turn_ids}
        for name in (_of_session(session_id), *map(_of_user, sorted(turn.user_ids))):
            found = self._adapter.load(name)
            if found is None:
                continue
            data = found.session.data
            is_late = turn.accepted_at <= datetime.fromisoformat(data["erased_at"])
            if is_late or digests.intersection(data.get("turns", ())):
                raise SessionErasedError
        turn.looked = looked

    def _put(self, name: str, facts: dict[str, Any]) -> None:
        def put() -> None:
            found = self._adapter.load(name)
            session = create_session(name, agent_name="inturn") if found is None else found.session
            session.data = {**facts, "erased_at": utcnow().isoformat()}
            session.set_status("completed")
            self._adapter.commit(session, expected_version=session.version)

        repeat_on_conflict(put)


def _of_user(user_id: str) -> str:
    return f"{PREFIX}user:{_digest(user_id)}"


def _of_session(session_id: str) -> str:
    return f"{PREFIX}session:{_digest(session_id)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]
