"""Turns in Redis: mailbox, lease, streams of text, and the threads that renew, sweep and write."""

from inturn.turns.follower import Follower
from inturn.turns.heartbeat import Heartbeat
from inturn.turns.lease import Lease
from inturn.turns.mailbox import Begun, Finished, Head, Kicked, Mailbox, Offered, TurnView
from inturn.turns.streams import Entry, Streams, Write
from inturn.turns.sweeper import Sweeper
from inturn.turns.writer import OpenReply, StreamWriter

__all__ = [
    "Begun",
    "Entry",
    "Finished",
    "Follower",
    "Head",
    "Heartbeat",
    "Kicked",
    "Lease",
    "Mailbox",
    "Offered",
    "OpenReply",
    "StreamWriter",
    "Streams",
    "Sweeper",
    "TurnView",
    "Write",
]
