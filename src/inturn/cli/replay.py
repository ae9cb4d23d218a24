"""Replay: recorded conversations through the queue, the time each reply took, and the checker's verdict."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from inturn.cli.conversations import Line
from inturn.contract import TurnResult
from inturn.errors import InvalidInputError, MailboxFullError, MailboxUnavailableError, OverloadedError
from inturn.persistence.adapter import PersistenceAdapter
from inturn.session.state import utcnow
from inturn.testing.history import Accepted, Verdict, check_store

if TYPE_CHECKING:
    from inturn.client import Client, TurnHandle

_ROUND = 0.02
"""Seconds between two looks at what has been accepted meanwhile."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is: `lines` in all, those `offered`, the `turns` these gave, those `answered`."""

    lines: int
    offered: int
    turns: int
    answered: int


class Latency(NamedTuple):
    """How long something took, in seconds, as the producer saw it."""

    p50: float
    p95: float
    p99: float
    max: float


class Refusal(NamedTuple):
    """A line that no repetition would help: its number, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """What came of a replay.

    `turns` were accepted, `repeated` lines were further deliveries of one of them, `known` of the turns had
    been accepted before this replay and have no latency. Every turn was `answered` (some of them as
    `failed`) or is `unanswered`: no result came in time, which the verdict may call lost. `acceptance` is
    from offering a line until it is accepted, `latency` from there until the result is seen (it is looked
    for every 20 ms); `offering` is how many of the `seconds` were over when the last line was accepted.
    """

    lines: int
    turns: int
    repeated: int
    known: int
    answered: int
    failed: int
    unanswered: int
    refused: tuple[Refusal, ...]
    seconds: float
    offering: float
    acceptance: Latency | None
    latency: Latency | None
    verdict: Verdict

    @property
    def ok(self) -> bool:
        """Whether every line was accepted and answered, and the history is without fault."""
        return self.verdict.ok and not self.unanswered and not self.refused


def replay(
    client: Client,
    adapter: PersistenceAdapter,
    lines: Iterable[Line],
    *,
    speed: float | None = None,
    producers: int = 4,
    timeout: float = 60.0,
    on_progress: Callable[[Progress], None] | None = None,
) -> ReplayReport:
    """Offer all lines, wait for the results and check the history in `adapter`.

    The lines of a session are offered in their order, each once the one before it was accepted; sessions are
    spread over `producers` threads. `speed` 1 keeps the recorded times, 2 halves them, None offers as fast
    as lines are accepted; a line without a time follows the one before it at once. `on_progress` is called
    in this thread after every change.

    `timeout` is how long, in seconds, nothing may come of trying. A line whose mailbox is full or out of
    reach is offered again under the same turn ID; after that time nothing more is offered, and its
    `MailboxFullError` or `MailboxUnavailableError` is raised. Waiting ends when all turns have a result, or
    when no other result has come for that time.
    """
    if speed is not None and not (math.isfinite(speed) and speed > 0):
        raise InvalidInputError(f"speed must be above 0, not {speed}")
    if producers < 1:
        raise InvalidInputError(f"producers must be at least 1, not {producers}")
    lines = list(lines)
    run = _Run(client, lines, speed, timeout, on_progress)
    began = time.monotonic()
    with ThreadPoolExecutor(producers, thread_name_prefix="producer") as pool:
        try:
            run.collect([pool.submit(run.offer, part) for part in partition(lines, producers)])
        finally:
            run.stopped.set()
    seconds = time.monotonic() - began
    return ReplayReport(
        lines=len(lines),
        turns=len(run.since),
        repeated=len(run.accepted) - len(run.since),
        known=len(run.known),
        answered=len(run.results),
        failed=sum(result.state == "failed" for result in run.results),
        unanswered=len(run.waiting),
        refused=tuple(sorted(run.refused)),
        seconds=seconds,
        offering=max(run.since.values(), default=began) - began,
        acceptance=measure(run.acceptances),
        latency=measure(run.latencies),
        verdict=check_store(adapter, run.accepted, run.results),
    )


def partition(lines: Iterable[Line], producers: int) -> list[list[Line]]:
    """Deal lines out to producers: a session's lines all to the same one, in their order."""
    parts: list[list[Line]] = [[] for _ in range(producers)]
    for line in lines:
        parts[crc32(line.session_id.encode()) % producers].append(line)
    return parts


def measure(latencies: Sequence[float]) -> Latency | None:
    """The latencies' percentiles by nearest rank: each is a latency that did occur. None for none."""
    if not latencies:
        return None
    ordered = sorted(latencies)
    p50, p95, p99 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.95, 0.99))
    return Latency(p50, p95, p99, ordered[-1])


class _Run:
    """The state of one replay, shared by its producers and the thread that collects."""

    def __init__(
        self,
        client: Client,
        lines: Sequence[Line],
        speed: float | None,
        timeout: float,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.stopped = threading.Event()
        self.accepted: list[Accepted] = []
        self.refused: list[Refusal] = []
        self.known: set[str] = set()
        self.since: dict[str, float] = {}
        self.waiting: dict[str, TurnHandle] = {}
        self.results: list[TurnResult] = []
        self.latencies: list[float] = []
        self.acceptances: list[float] = []
        self._client = client
        self._lines = len(lines)
        self._speed = speed
        self._timeout = timeout
        self._began = time.monotonic()
        self._first_at = min((line.at for line in lines if line.at is not None), default=0.0)
        self._on_progress = on_progress
        self._shown: Progress | None = None
        self._lock = threading.Lock()

    def offer(self, lines: Iterable[Line]) -> None:
        """Offer lines one after the other, until the end or until stopped."""
        for line in lines:
            if self._speed is not None and line.at is not None:
                due = self._began + (line.at - self._first_at) / self._speed
                self.stopped.wait(max(0.0, due - time.monotonic()))
            if self.stopped.is_set():
                return
            offered = time.monotonic()
            try:
                handle, again = self._respond(line)
            except InvalidInputError as error:
                with self._lock:
                    self.refused.append(Refusal(line.number, str(error)))
                continue
            now = time.monotonic()
            with self._lock:
                self.accepted.append(Accepted(line.session_id, handle.turn_id, line.number, utcnow()))
                if handle.turn_id not in self.since:
                    self.since[handle.turn_id] = now
                    self.acceptances.append(now - offered)
                    self.waiting[handle.turn_id] = handle
                    if not handle.accepted and not again:
                        self.known.add(handle.turn_id)

    def collect(self, offering: Iterable[Future[None]]) -> None:
        """Take in results until all lines are offered and every turn has one, or none comes any more."""
        pending = set(offering)
        latest = time.monotonic()
        while True:
            done, pending = wait(pending, timeout=0)
            for future in done:
                future.result()
            with self._lock:
                waiting = list(self.waiting.values())
            count = len(self.results)
            self._show()
            try:
                # Turns accepted meanwhile are seen in the next round; asking for many at a time costs more.
                for handle, result in self._client.collect(waiting, timeout=_ROUND + len(waiting) / 10_000):
                    self._take(handle, result)
            except MailboxUnavailableError:
                self.stopped.wait(0.5)
            if pending or len(self.results) > count:
                latest = time.monotonic()
            elif not self.waiting or time.monotonic() - latest > self._timeout:
                return
            if not waiting:
                self.stopped.wait(_ROUND)

    def _respond(self, line: Line) -> tuple[TurnHandle, bool]:
        """Offer one line until it is accepted; also tells whether that took more than one call."""
        until = time.monotonic() + self._timeout
        pause = 0.05
        again = False
        while True:
            try:
                handle = self._client.respond(
                    line.session_id, line.text, turn_id=line.turn_id, user_id=line.user_id
                )
            except (MailboxFullError, MailboxUnavailableError, OverloadedError):
                if self.stopped.is_set() or time.monotonic() > until:
                    raise
                self.stopped.wait(pause)
                pause = min(2 * pause, 2.0)
                again = True
            else:
                return handle, again

    def _take(self, handle: TurnHandle, result: TurnResult) -> None:
        with self._lock:
            del self.waiting[handle.turn_id]
            if handle.turn_id not in self.known:
                self.latencies.append(time.monotonic() - self.since[handle.turn_id])
            self.results.append(result)
        self._show()

    def _show(self) -> None:
        if self._on_progress is None:
            return
        with self._lock:
            offered = len(self.accepted) + len(self.refused)
            progress = Progress(self._lines, offered, len(self.since), len(self.results))
        if progress != self._shown:
            self._shown = progress
            self._on_progress(progress)
