"""What came of a run: violations by kind, recovery times, deliveries."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from inturn.contract import TurnResult
from inturn.session.state import Message
from inturn.testing.history import KINDS, Accepted, Verdict, check_history

OF_THE_RUN = ("unanswered", "stale", "delivered twice", "not delivered", "delivered out of order")
"""The kinds of violation beside those of the history checker."""


class Stranded(NamedTuple):
    """Sessions that were in a process's hands when it died (or was paused, or ended without handing over)."""

    pid: int
    at: float
    how: str


@dataclass(slots=True)
class Recovery:
    """Seconds from a death until somebody else has taken the session up."""

    times: list[float] = field(default_factory=list)
    waited_for_server: list[float] = field(default_factory=list)
    """Those during which Valkey was away or PostgreSQL was: they wait for it, too."""

    @staticmethod
    def figures(times: Sequence[float]) -> dict[str, float]:
        """Number, median, 99th percentile (nearest rank) and maximum."""
        if not times:
            return {"sessions": 0}
        ordered = sorted(times)
        p50, p99 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.99))
        return {
            "sessions": len(ordered),
            "p50": round(p50, 2),
            "p99": round(p99, 2),
            "max": round(ordered[-1], 2),
        }


def judge_history(
    accepted: Iterable[Accepted],
    messages: Iterable[Message],
    results: Iterable[TurnResult],
    journal: Sequence[Sequence[Any]],
) -> tuple[Verdict, list[str]]:
    """The history checker's verdict, and the turns that a stale owner wrote.

    Messages of a process whose clock was stepped are given the time that it really was. A turn is stale
    if an owner with a lower fence committed it behind one of an owner with a higher fence: what is in the
    store must have been written by owners in the order of their leases.
    """
    fences: dict[str, int] = {}
    times: dict[str, datetime] = {}
    for event, _, _, *facts in journal:
        if event == "commit":
            _, fence, ids, true = facts
            fences.update({message_id: fence for message_id in ids if fence is not None})
            times.update({message_id: datetime.fromisoformat(time) for message_id, time in true.items()})
    stored = [
        message.model_copy(update={"created_at": times.get(message.id, message.created_at)})
        for message in messages
    ]
    highest: dict[str, int] = {}
    stale: dict[str, None] = {}
    for message in sorted(stored, key=lambda message: (message.session_id, message.sequence)):
        fence = fences.get(message.id, 0)
        if fence and fence < highest.get(message.session_id, 0) and message.turn_id is not None:
            stale[message.turn_id] = None
        highest[message.session_id] = max(fence, highest.get(message.session_id, 0))
    return check_history(accepted, stored, results), list(stale)


def measure_recovery(
    journal: Sequence[Sequence[Any]], deaths: Sequence[Stranded], outages: Sequence[tuple[float, float]]
) -> dict[str, Recovery]:
    """How long the sessions waited that a process left behind, by the way it went."""
    begins: dict[str, list[tuple[float, int]]] = defaultdict(list)
    held: dict[int, dict[str, list[tuple[float, bool]]]] = defaultdict(lambda: defaultdict(list))
    for event, pid, at, *facts in sorted(journal, key=lambda line: line[2]):
        if event in ("begin", "end"):
            held[pid][facts[0]].append((at, event == "begin"))
        if event == "begin":
            begins[facts[0]].append((at, pid))
    found: dict[str, Recovery] = defaultdict(Recovery)
    for death in deaths:
        for session_id, steps in held[death.pid].items():
            before = [began for at, began in steps if at <= death.at]
            if not before or not before[-1]:
                continue
            taken = next((at for at, pid in begins[session_id] if at > death.at and pid != death.pid), None)
            if taken is None:
                continue  # it was empty, or its owner was paused and came back in time
            waited = taken - death.at
            away = any(start < taken and death.at < end for start, end in outages)
            recovery = found[death.how]
            (recovery.waited_for_server if away else recovery.times).append(waited)
    return dict(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliveries:
    """What became of the replies that were to be sent."""

    expected: int
    once: int
    unknown: int
    """Marked as unknown: perhaps sent, and not sent again."""
    unknown_and_arrived: int
    failed: int
    violations: Mapping[str, list[str]]


def judge_deliveries(
    replies: Sequence[tuple[str, str, str]], taken: Sequence[tuple[str, str]], ended: Mapping[str, str]
) -> Deliveries:
    """Compare replies that were committed with what arrived.

    `replies` are (session, turn ID, text) in order, `taken` (to, text) in the order of arrival;
    `ended` names the deliveries that ended as `unknown` or `failed`.
    """
    arrived = Counter(taken)
    wanted = Counter((session_id, text) for session_id, _, text in replies)
    violations: dict[str, list[str]] = {kind: [] for kind in OF_THE_RUN[2:]}
    once = arrived_unknown = 0
    for session_id, turn_id, text in replies:
        place = session_id, text
        state = ended.get(turn_id)
        if arrived[place] > wanted[place]:
            violations["delivered twice"].append(turn_id)
        elif arrived[place] == wanted[place]:
            once += state is None
            arrived_unknown += state is not None
        elif state is None and wanted[place] == 1:
            violations["not delivered"].append(turn_id)
    numbers = {(session_id, text): number for number, (session_id, _, text) in enumerate(replies)}
    furthest: dict[str, int] = {}
    for place in taken:
        number = numbers.get(place, -1)
        if number < furthest.get(place[0], -1) and arrived[place] == wanted[place] == 1:
            violations["delivered out of order"].append(f"{place[0]}: {place[1]}")
        furthest[place[0]] = max(number, furthest.get(place[0], -1))
    return Deliveries(
        expected=len(replies),
        once=once,
        unknown=sum(state == "unknown" for state in ended.values()),
        unknown_and_arrived=arrived_unknown,
        failed=sum(state == "failed" for state in ended.values()),
        violations=violations,
    )


def count_violations(
    verdict: Verdict, stale: Sequence[str], unanswered: Sequence[str], deliveries: Deliveries
) -> tuple[dict[str, int], dict[str, list[str]]]:
    """All kinds with their numbers, zero included, and some offenders of each that there is."""
    found: dict[str, Sequence[str]] = {"unanswered": unanswered, "stale": stale, **deliveries.violations}
    counts = {kind.replace("_", " "): int(getattr(verdict, kind)) for kind in KINDS}
    counts |= {kind: len(found[kind]) for kind in OF_THE_RUN}
    examples = {kind.replace("_", " "): list(some) for kind, some in verdict.examples.items()}
    examples |= {kind: list(some[:20]) for kind, some in found.items() if some}
    return counts, examples
