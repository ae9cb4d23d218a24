"""The history checker: was every accepted turn committed exactly once, in order, and none overlapped?

It knows nothing of mailboxes, leases or workers. It takes what producers were told and what the store holds,
so it judges any run, whatever was killed, paused or cut off on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

from inturn.contract import TurnResult
from inturn.persistence.adapter import MAX_PAGE, MessageQuery, PersistenceAdapter
from inturn.session.state import MERGED_INTO, Message

EXAMPLES = 20
"""The most offenders a verdict names for each kind of violation."""

KINDS = (
    "lost",
    "duplicated",
    "out_of_order",
    "overlapping",
    "incomplete",
    "unknown",
    "gaps",
    "mismatched",
)
"""The kinds of violation, as `Verdict` names them."""


class Accepted(NamedTuple):
    """A producer was told yes: this `respond` will be done.

    `order` grows with acceptance within a session; `at` is when the producer was told. The same turn told
    again, because its event was delivered again, counts once, by its lowest `order`. A turn that was
    cancelled afterwards does not belong here.
    """

    session_id: str
    turn_id: str
    order: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `check_history` found. `str()` of it is the verdict in one line.

    `accepted` counts the turns that producers were told yes for, `committed` those that the store holds
    (known to a producer or not), `failed` those of them that were recorded as failed: they are committed too,
    and no violation. Each further number counts violations of one kind, and `examples` names up to
    `EXAMPLES` offenders of each: turn IDs, for `gaps` the session's ID with the sequence.
    """

    accepted: int
    committed: int
    failed: int = 0
    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    overlapping: int = 0
    incomplete: int = 0
    unknown: int = 0
    gaps: int = 0
    mismatched: int = 0
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def violations(self) -> dict[str, int]:
        """The kinds of which there is at least one violation, with their number."""
        return {kind: count for kind in KINDS if (count := getattr(self, kind))}

    @property
    def ok(self) -> bool:
        """Whether there is no violation of any kind."""
        return not self.violations

    def __str__(self) -> str:
        always = ("accepted", "committed", "lost", "duplicated", "out_of_order", "overlapping")
        rest = tuple(name for name in ("failed", *KINDS) if name not in always and getattr(self, name))
        parts = [f"{name.replace('_', ' ')} {getattr(self, name)}" for name in always + rest]
        return "turns " + ", ".join(parts)

    def explain(self) -> str:
        """The verdict, and below it one line per kind of violation with the offenders."""
        lines = [str(self)]
        for kind, count in self.violations.items():
            named = self.examples.get(kind, ())
            more = f" and {count - len(named)} more" if count > len(named) else ""
            lines.append(f"  {kind.replace('_', ' ')}: {', '.join(named)}{more}")
        return "\n".join(lines)


def check_history(
    accepted: Iterable[Accepted], messages: Iterable[Message], results: Iterable[TurnResult] = ()
) -> Verdict:
    """Compare what producers were told with the messages in the store.

    A turn writes one message of the user, created when the attempt that committed began, and one of the
    assistant, created when it ended; what else it writes (tool calls) stands between the two. Of turns that
    were merged each has its own message of the user, whose event names the turn that it became part of
    (`merged_into`): that turn's other messages, and its reply, are theirs too. Messages without a turn ID
    belong to no turn and count for `gaps` only. Turn IDs are global names, as `create_turn_id` makes them.

    - **lost**: a turn that was accepted and has no message in its session.
    - **duplicated**: a turn with more than one message of the user or of the assistant, or with messages in
      two sessions.
    - **out of order**: a turn whose first message stands before the first message of a turn of its session
      that was accepted earlier (each such turn counts once: going through the turns as they were accepted,
      those that stand before the furthest so far); also a turn whose reply stands before its message.
    - **overlapping**: a turn that began before another of its session had ended, or that another ran into
      (both count; to begin at the very end of another is no overlap), or whose messages stand between
      another's. Times are those of the workers' clocks, which must agree.
    - **incomplete**: a turn with messages, but none of the user or none of the assistant.
    - **unknown**: a turn in the store that no producer was told yes for.
    - **gaps**: a place where the sequences of a session do not go on with the next number, or do not
      start at 1.
    - **mismatched**: a turn for which a result in `results` differs from the stored reply: in whether the
      turn failed or, if it did not, in its text.
    """
    found: dict[str, dict[str, None]] = {kind: {} for kind in KINDS}

    def find(kind: str, *offenders: str) -> None:
        found[kind].update(dict.fromkeys(offenders))

    order: dict[tuple[str, str], int] = {}
    for record in accepted:
        key = record.session_id, record.turn_id
        order[key] = min(record.order, order.get(key, record.order))
    told_yes = {turn_id for _, turn_id in order}
    sessions: dict[str, list[Message]] = {}
    for message in messages:
        sessions.setdefault(message.session_id, []).append(message)

    first: dict[tuple[str, str], int] = {}
    home: dict[str, str] = {}
    merged: dict[str, str] = {}
    replies: dict[str, Message] = {}
    for session_id, stored in sessions.items():
        stored.sort(key=lambda message: (message.sequence, message.created_at))
        find("gaps", *_gaps(session_id, stored))
        turns = _writings(stored)
        for turn_id, writings in turns.items():
            key = session_id, turn_id
            into = _merged_into(writings[0][0])
            of_turn = [*writings[0], *_answers(turns, into)]
            of_turn.sort(key=lambda message: message.sequence)
            roles = [message.role for message in of_turn]
            first[key] = writings[0][0].sequence
            if turn_id not in told_yes:
                find("unknown", turn_id)
            if len(writings) > 1 or home.setdefault(turn_id, session_id) != session_id:
                find("duplicated", turn_id)
            if into is not None:
                merged[turn_id] = into
            if "user" not in roles or "assistant" not in roles:
                find("incomplete", turn_id)
            elif roles.index("assistant") < roles.index("user"):
                find("out_of_order", turn_id)
            for message in writings[0]:
                if message.role == "assistant":
                    replies[turn_id] = message
        spans = [_span(turn_id, writing) for turn_id, some in _as_run(turns).items() for writing in some]
        find("overlapping", *_overlaps((began, ended, turn_id) for turn_id, began, ended, _, _ in spans))
        find("overlapping", *_overlaps((low, high, turn_id) for turn_id, _, _, low, high in spans))

    furthest: dict[str, int] = {}
    for key in sorted(order, key=lambda key: order[key]):
        session_id, turn_id = key
        place = first.get(key)
        if place is None:
            find("lost", turn_id)
        elif place < furthest.get(session_id, 0):
            find("out_of_order", turn_id)
        else:
            furthest[session_id] = place

    for result in results:
        reply = replies.get(merged.get(result.turn_id, result.turn_id))
        if reply is None or result.kind != "respond":
            continue
        failed = result.state == "failed"
        if failed != _failed(reply) or not (failed or result.response.message == reply.content):
            find("mismatched", result.turn_id)

    return Verdict(
        accepted=len(order),
        committed=len(home),
        failed=sum(_failed(replies.get(merged.get(turn_id, turn_id))) for turn_id in home),
        lost=len(found["lost"]),
        duplicated=len(found["duplicated"]),
        out_of_order=len(found["out_of_order"]),
        overlapping=len(found["overlapping"]),
        incomplete=len(found["incomplete"]),
        unknown=len(found["unknown"]),
        gaps=len(found["gaps"]),
        mismatched=len(found["mismatched"]),
        examples={kind: tuple(some)[:EXAMPLES] for kind, some in found.items() if some},
    )


def check_store(
    adapter: PersistenceAdapter, accepted: Iterable[Accepted], results: Iterable[TurnResult] = ()
) -> Verdict:
    """`check_history` of every message the store holds of the sessions in `accepted`.

    The sessions must be at rest: a turn still running is told as lost.
    """
    accepted = list(accepted)
    sessions = dict.fromkeys(record.session_id for record in accepted)
    stored = (message for session_id in sessions for message in _read(adapter, session_id))
    return check_history(accepted, stored, results)


def _read(adapter: PersistenceAdapter, session_id: str) -> Iterator[Message]:
    cursor: str | None = None
    while True:
        page = adapter.find_messages(MessageQuery(session_id=session_id, cursor=cursor, limit=MAX_PAGE))
        yield from page.items
        cursor = page.cursor
        if cursor is None:
            return


def _gaps(session_id: str, stored: Iterable[Message]) -> Iterator[str]:
    before = 0
    for place, message in enumerate(stored, 1):
        if message.sequence != before + 1:
            # The place tells apart two messages with the same sequence.
            yield f"{session_id} at {message.sequence} (message {place})"
        before = message.sequence


def _writings(stored: Iterable[Message]) -> dict[str, list[list[Message]]]:
    """The messages of each turn, cut where a second message of the user or the assistant shows that the turn
    was written again. Each writing is held against the others by itself: a turn that was committed twice
    must not seem to last from its first commit to its second.
    """
    turns: dict[str, list[list[Message]]] = {}
    for message in stored:
        if message.turn_id is None:
            continue
        writings = turns.setdefault(message.turn_id, [[]])
        if message.role in ("user", "assistant") and any(message.role == old.role for old in writings[-1]):
            writings.append([])
        writings[-1].append(message)
    return turns


def _as_run(turns: Mapping[str, list[list[Message]]]) -> dict[str, list[list[Message]]]:
    """The writings of each turn that ran; those of merged turns are of the turn that took them."""
    run = {turn_id: [list(writing) for writing in writings] for turn_id, writings in turns.items()}
    for turn_id, (writing, *again) in turns.items():
        into = _merged_into(writing[0])
        if into is not None and into != turn_id and run.get(into):
            run[into][0] += writing
            run[turn_id] = again
    return run


def _answers(turns: Mapping[str, list[list[Message]]], turn_id: str | None) -> list[Message]:
    """What a turn wrote beside the user's message."""
    writings = [] if turn_id is None else turns.get(turn_id, [])
    return [message for writing in writings[:1] for message in writing if message.role != "user"]


def _merged_into(message: Message) -> str | None:
    into = (message.event or {}).get(MERGED_INTO)
    return into if isinstance(into, str) else None


def _span(turn_id: str, writing: list[Message]) -> tuple[str, datetime, datetime, int, int]:
    times = [message.created_at for message in writing]
    places = [message.sequence for message in writing]
    return turn_id, min(times), max(times), min(places), max(places)


def _overlaps(intervals: Iterable[tuple[Any, Any, str]]) -> Iterator[str]:
    """The names of half-open intervals (low, high, name) that meet another one."""
    ordered = sorted(intervals)
    for (_, high, name), (low, _, _) in pairwise(ordered):
        if low < high:
            yield name
    furthest = None
    for low, high, name in ordered:
        if furthest is not None and low < furthest:
            yield name
        furthest = high if furthest is None else max(furthest, high)


def _failed(reply: Message | None) -> bool:
    return bool(reply and reply.event and reply.event.get("failed"))
