"""Turns in Redis: mailbox, lease, the heartbeat that renews it, the sweeper that finds what was left."""

from inturn.turns.heartbeat import Heartbeat
from inturn.turns.lease import Lease
from inturn.turns.mailbox import Begun, Finished, Head, Kicked, Mailbox, Offered, TurnView
from inturn.turns.sweeper import Sweeper

__all__ = [
    "Begun",
    "Finished",
    "Head",
    "Heartbeat",
    "Kicked",
    "Lease",
    "Mailbox",
    "Offered",
    "Sweeper",
    "TurnView",
]
