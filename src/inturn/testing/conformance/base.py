"""What all parts of the kit share: the optional fixture, and makers of sessions, messages and turns."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import pytest

from inturn.persistence.adapter import Committed, Loaded, MessageQuery, PersistenceAdapter
from inturn.session.state import Message, SessionState, TurnRecord, create_session

Reopen: TypeAlias = Callable[[], PersistenceAdapter]


class Conformance:
    """The fixtures that a subclass may replace."""

    @pytest.fixture
    def reopen(self) -> Reopen | None:
        """Make another adapter on the same store; None: this store has no other."""
        return None

    @pytest.fixture
    def another(self, adapter: PersistenceAdapter, reopen: Reopen | None) -> Iterator[PersistenceAdapter]:
        """Another adapter on the same store, as another process would have."""
        if reopen is None:
            why = "there is no fixture `reopen`" if adapter.durable else "this store is not durable"
            pytest.skip(f"needs a second adapter on the store, and {why}")
        with reopen() as second:
            yield second


def unique(prefix: str = "it") -> str:
    """A name that nothing else has."""
    return f"{prefix}-{uuid.uuid4().hex}"


def new_session(**fields: Any) -> SessionState:
    """A session that nobody else has, not saved yet."""
    return create_session(unique("session"), **fields)


def message(session_id: str, content: str = "hello", **fields: Any) -> Message:
    """A user's message, not saved yet."""
    return Message(**{"session_id": session_id, "role": "user", "content": content, **fields})


def messages(session_id: str, count: int) -> list[Message]:
    """Messages that say `1`, `2`, and so on."""
    return [message(session_id, str(number)) for number in range(1, count + 1)]


def turn(session_id: str, turn_id: str | None = None, **result: Any) -> TurnRecord:
    """A turn's record, not saved yet."""
    return TurnRecord(session_id=session_id, turn_id=turn_id or unique("turn"), result=result)


def saved(adapter: PersistenceAdapter, count: int = 0, **fields: Any) -> SessionState:
    """A session in the store, at version 1, with `count` messages."""
    session = new_session(**fields)
    return adapter.commit(session, messages(session.id, count), expected_version=0).session


def loaded(adapter: PersistenceAdapter, session_id: str, turn_id: str | None = None) -> Loaded:
    """A session that must be there, with its newest messages."""
    found = adapter.load(session_id, last_messages=1000, turn_id=turn_id)
    assert found is not None
    return found


def recommit(adapter: PersistenceAdapter, session: SessionState, *more: Message) -> Committed:
    """Save a session over the version it was loaded or committed with."""
    return adapter.commit(session, more, expected_version=session.version)


def everything(adapter: PersistenceAdapter, session_id: str) -> tuple[Loaded | None, list[Message]]:
    """All that the store has of a session, to be compared with what it has later."""
    found = adapter.load(session_id, last_messages=1000)
    return found, adapter.find_messages(MessageQuery(session_id=session_id, limit=1000)).items


def a_time_of_its_own() -> datetime:
    """A time in a later century that no other test uses, so that queries by age find its sessions only."""
    return datetime(2200, 1, 1, tzinfo=UTC) + timedelta(
        seconds=random.randrange(10**9), microseconds=next(_ticks)
    )


_ticks = itertools.count(1)
