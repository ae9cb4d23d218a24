"""Lease: the right of one owner to drive one session."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass, field


def create_token() -> str:
    """Make an owner's token, `host:process:random`: the same token again is the same acquisition."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"


@dataclass(slots=True)
class Lease:
    """A lease that was granted.

    `fence` grows with each new owner of the session. `lost` becomes true once a renewal was refused: the
    work in hand is void, and only the store's version check decides whether it may still be committed.
    `stop` names the turn that somebody asked to stop.
    """

    session_id: str
    token: str
    fence: int
    lost: bool = field(default=False, compare=False)
    stop: str | None = field(default=None, compare=False)
