"""The end of a turn, where the store is away at the worst moment."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inturn.contract import RespondPayload, Response, TurnResult
from inturn.errors import StoreError, StoreUnavailableError
from inturn.persistence.guarded import GuardedAdapter
from inturn.persistence.memory import MemoryAdapter
from inturn.persistence.tombstones import SLOW_SECONDS
from inturn.session.state import utcnow
from inturn.turns import Finished, Head
from worker.ending import end
from worker.runtime import Runtime

PAYLOAD = RespondPayload(session_id="s", message="hello", accepted_at=utcnow()).model_dump_json()
HEAD = Head("t1", PAYLOAD, attempts=1, waiting=2)
RESULT = TurnResult(
    kind="respond",
    session_id="s",
    turn_id="t1",
    response=Response(message="hi", session_id="s", turn_id="t1"),
)


class Away(MemoryAdapter):
    """A store that nobody can reach."""

    def load(self, *_: Any, **__: Any) -> Any:
        raise StoreUnavailableError("the database is away")

    def find_sessions(self, *_: Any, **__: Any) -> Any:
        raise StoreUnavailableError("the database is away")


def runtime(*, with_mailbox: bool) -> tuple[Runtime, list[str]]:
    """As much of a worker as the end of a turn needs; and what was told."""
    told: list[str] = []

    def store(result: TurnResult, **_: Any) -> None:
        time.sleep(SLOW_SECONDS * 1.2)
        told.append(result.turn_id)

    results = SimpleNamespace(
        with_mailbox=with_mailbox,
        kept=lambda result: result,
        store=store,
        tell=lambda result, **_: told.append(result.turn_id),
    )
    made = SimpleNamespace(adapter=GuardedAdapter(Away()), results=results, dead_letters=None)
    return cast(Runtime, made), told


def test_a_turn_that_is_stored_and_gone_has_ended_whatever_is_away_then() -> None:
    house, told = runtime(with_mailbox=True)

    def finish(**_: Any) -> Finished:
        time.sleep(SLOW_SECONDS * 1.2)
        return Finished("yield", publish="t2")

    kept, finished = end(house, "s", HEAD, [RESULT], finish, own_id="t1", took=0.0, since=time.monotonic())

    assert (list(kept), told) == ([RESULT], ["t1"])
    assert finished == Finished("yield", publish="t2"), "the next one's message must be sent"


def test_a_turn_that_is_not_gone_yet_is_ended_again() -> None:
    house, _ = runtime(with_mailbox=False)

    with pytest.raises(StoreError):
        end(house, "s", HEAD, [RESULT], pytest.fail, own_id="t1", took=0.0, since=time.monotonic())
