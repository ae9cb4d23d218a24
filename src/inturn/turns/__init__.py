"""Turns in Redis: mailbox, lease, streams of text, and the threads that renew, sweep and write."""

from inturn.turns.budget import ModelBudget
from inturn.turns.dead_letters import DeadLetters
from inturn.turns.deliveries import Deliveries
from inturn.turns.follower import Follower
from inturn.turns.heartbeat import Heartbeat
from inturn.turns.lease import Lease
from inturn.turns.mailbox import Begun, Finished, Head, Item, Kicked, Mailbox, Offered, TurnView
from inturn.turns.outcomes import Outcomes
from inturn.turns.overlap import Overlap
from inturn.turns.sight import Place, Sight
from inturn.turns.streams import Entry, Streams, Write
from inturn.turns.sweeper import Sweeper
from inturn.turns.writer import OpenReply, StreamWriter

__all__ = [
    "Begun",
    "DeadLetters",
    "Deliveries",
    "Entry",
    "Finished",
    "Follower",
    "Head",
    "Heartbeat",
    "Item",
    "Kicked",
    "Lease",
    "Mailbox",
    "ModelBudget",
    "Offered",
    "OpenReply",
    "Outcomes",
    "Overlap",
    "Place",
    "Sight",
    "StreamWriter",
    "Streams",
    "Sweeper",
    "TurnView",
    "Write",
]
