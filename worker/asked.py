"""Asked: what the turn in hand is asked to do, with the turns that were merged into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inturn.agent.said import Said
from inturn.contract import Payload, RespondPayload


@dataclass(frozen=True, slots=True)
class Asked:
    """A turn's payload, and the messages that are answered with it, in order, by their turns' IDs."""

    turn_id: str
    payload: Payload
    further: Mapping[str, RespondPayload] = field(default_factory=dict)

    @property
    def said(self) -> list[Said]:
        """The further messages, for the agent."""
        return [
            Said(payload.message, turn_id, payload.metadata, payload.images)
            for turn_id, payload in self.further.items()
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
