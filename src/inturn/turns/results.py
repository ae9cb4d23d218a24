"""Results: how turns have ended, as Celery's result backend has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from inturn.contract import Response, TurnFault, TurnResult
from inturn.envelopes import Envelopes
from inturn.settings import Settings
from inturn.turns.connection import redis_errors

if TYPE_CHECKING:
    from celery import Celery


class Kept(NamedTuple):
    """A result as it is stored while its turn leaves the mailbox: for `ms` milliseconds; 0: for ever."""

    key: str
    value: str
    ms: int


class Results:
    """The results of turns.

    Raises `MailboxUnavailableError` where Redis cannot be reached, `EncryptionKeyError` for what was sealed
    with a key that is not here.
    """

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._envelopes = Envelopes.of(settings)

    def find(self, turn_ids: list[str]) -> dict[str, TurnResult]:
        """Those of the turns that have ended and are remembered, by turn ID; one round trip for 500."""
        # Asked for anew: an application that is given may have one for each thread.
        backend: Any = self._app.backend
        found: dict[str, TurnResult] = {}
        for start in range(0, len(turn_ids), 500):
            some = turn_ids[start : start + 500]
            with redis_errors():
                values = backend.mget([backend.get_key_for_task(turn_id) for turn_id in some])
            for turn_id, value in zip(some, values, strict=True):
                if value is not None:
                    found[turn_id] = self._result(turn_id, backend.decode_result(value))
        return found

    def _result(self, turn_id: str, meta: Mapping[str, Any]) -> TurnResult:
        if meta["status"] == "SUCCESS":
            return TurnResult.model_validate(self._envelopes.open_result(turn_id, meta["result"]))
        error = meta["result"]
        return TurnResult(
            kind="respond",
            session_id="",
            turn_id=turn_id,
            state="failed",
            response=Response(message="", session_id="", turn_id=turn_id, finish_reason="failed"),
            error=TurnFault(type=type(error).__name__, message=str(error)),
        )
