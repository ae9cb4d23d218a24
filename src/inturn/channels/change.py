"""Change: what a webhook changes in a session without asking the agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A `save_session` to enqueue for a webhook, in order with the session's turns.

    `metadata` is merged into the session's. `turn_id` names the event, as that of `Incoming` does: the same
    delivered again changes nothing more.
    """

    session_id: str
    turn_id: str
    metadata: Mapping[str, Any]
    user_id: str | None = None
