"""WorkingCopy: a session in memory, and how it differs from what is stored."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from inturn.session.rebase import rebase
from inturn.session.state import Message, SessionState

MOST_OPEN = 8
"""Turns with notes in a session's journal. One is being taken; others were cancelled while they slept."""


class WorkingCopy:
    """A session that may be edited, with the messages that are not saved yet.

    `window` is the number of lines that the session's `history` keeps.
    """

    def __init__(self, session: SessionState, *, window: int) -> None:
        self.session = session
        self.unsaved: list[Message] = []
        self._stored = _copy(session)
        self._window = window

    def has_changes(self) -> bool:
        """Whether there is something to save: edits of the session (its history apart) or messages."""
        session = self.session.model_copy(update={"history": self._stored.history})
        return bool(self.unsaved) or session != self._stored

    def append(self, messages: Sequence[Message]) -> None:
        """Add messages that are to be saved."""
        self.unsaved = [*self.unsaved, *messages]
        self.show(messages)

    def show(self, messages: Sequence[Message]) -> None:
        """Put messages into the session's history."""
        lines = [*self.session.history, *(message.to_history_item() for message in messages)]
        self.session.history = lines[-self._window :] if self._window else []

    def clear_history(self) -> None:
        """Start the conversation anew after all that was said."""
        self.session.history_start = self.session.message_count + len(self.unsaved)
        self.session.history = []

    def saved(self, committed: SessionState) -> None:
        """Note that the session and its messages are stored, as `committed`."""
        self.session.adopt(committed)
        self.unsaved = []
        self._stored = _copy(self.session)

    def rebase(self, found: SessionState) -> bool:
        """Bring the edits onto what the store holds now.

        False, and nothing done, if somebody spoke since, or if somebody else takes the same turn.
        """
        spoke = found.message_count != self._stored.message_count
        if spoke or any(note in self._changed_notes(found) for note in self._changed_notes(self.session)):
            return False
        rebase(self.session, base=self._stored, onto=found)
        self._stored = found
        return True

    def follow(self, other: WorkingCopy) -> None:
        """Bring the edits onto what `other`, from which this copy was made, has saved since."""
        saved = _copy(other.session)
        rebase(self.session, base=self._stored, onto=saved)
        self.unsaved = self.unsaved[saved.message_count - self._stored.message_count :]
        self._stored = _copy(saved)

    def snapshot(self) -> WorkingCopy:
        """A copy that further edits do not reach."""
        snapshot = copy.copy(self)
        snapshot.session = _copy(self.session)
        return snapshot

    def _changed_notes(self, session: SessionState) -> set[str]:
        """The turns of whose journal `session` holds something else than what was stored."""
        mine, stored = session.journal, self._stored.journal
        return {
            turn_id for turn_id in mine.keys() | stored.keys() if mine.get(turn_id) != stored.get(turn_id)
        }


def with_notes(
    journal: dict[str, dict[str, Any]], turn_id: str, notes: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """The journal with one turn's notes; of turns that were never ended only the newest are kept."""
    others = sorted(
        (each for each in journal if each != turn_id), key=lambda each: str(journal[each].get("at"))
    )
    return {**{each: journal[each] for each in others[1 - MOST_OPEN :]}, turn_id: notes}


def _copy(session: SessionState) -> SessionState:
    # The history may be long and its lines are never edited: deeply copied is only the rest.
    fields = {name: _deep(value) for name, value in session.__dict__.items() if name != "history"}
    return session.model_copy(update={**fields, "history": list(session.history)})


def _deep(value: Any) -> Any:
    """As `copy.deepcopy`, several times faster for what is JSON, as nearly all of a session is."""
    kind = type(value)
    if kind in _IMMUTABLE:
        return value
    if kind is dict:
        return {key: _deep(item) for key, item in value.items()}
    if kind is list:
        return [_deep(item) for item in value]
    return copy.deepcopy(value)


_IMMUTABLE = frozenset({str, int, float, bool, type(None), datetime})
