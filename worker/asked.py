"""Asked: what the turn in hand is asked to do, with the turns that were merged into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inturn.agent.said import Said
from inturn.contract import Payload, RespondPayload, Response, TurnFault, TurnResult
from inturn.errors import SessionAccessError
from inturn.persistence import PersistenceManager

REFUSED = "refused"
"""The finish reason of a turn that is bound to a user, in a session that is not theirs."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A turn's payload, and the messages that are answered with it, in order, by their turns' IDs."""

    turn_id: str
    payload: Payload
    further: Mapping[str, RespondPayload] = field(default_factory=dict)

    def reach(self, persistence: PersistenceManager) -> PersistenceManager:
        """What the turn may reach of what is stored: of a bound one, what is its user's."""
        user_id = self.payload.user_id
        if not self.payload.bound or user_id is None:
            return persistence
        return persistence.acting_for(user_id)

    @property
    def said(self) -> list[Said]:
        """The further messages, for the agent."""
        return [
            Said(payload.message, turn_id, payload.metadata, payload.images)
            for turn_id, payload in self.further.items()
        ]

    def refused(self, attempts: int) -> list[TurnResult]:
        """The results of a bound turn in a session that is not its user's: that it is, and nothing else."""
        payload = self.payload
        fault = TurnFault(
            type=SessionAccessError.__name__,
            message=str(SessionAccessError(payload.session_id, payload.user_id)),
            attempts=attempts,
        )
        return [
            TurnResult(
                kind=payload.kind,
                session_id=payload.session_id,
                turn_id=turn_id,
                state="failed",
                response=Response(
                    message="", session_id=payload.session_id, turn_id=turn_id, finish_reason=REFUSED
                ),
                error=fault,
            )
            for turn_id in self.turn_ids
        ]

    @property
    def turn_ids(self) -> list[str]:
        """The IDs of all turns that end with this one."""
        return [self.turn_id, *self.further]

    @property
    def streamed(self) -> list[str]:
        """The IDs of those whose readers want the reply while it is written."""
        payloads = {self.turn_id: self.payload, **self.further}
        return [
            turn_id
            for turn_id, payload in payloads.items()
            if isinstance(payload, RespondPayload) and payload.stream
        ]
