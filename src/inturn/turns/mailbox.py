"""Mailbox: the waiting turns of every session, and the leases, as typed calls of the Lua scripts.

Each method is one script and one round trip (`renew_all` and `sweep` are pipelines, for each node of a
cluster); the contract of a script stands at the head of its file in `lua/`. Every call may be repeated:
redis-py itself repeats a call whose answer was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from inturn.envelopes import Envelopes
from inturn.errors import MailboxError
from inturn.settings import Settings
from inturn.turns.batch import Call, cluster_of, send
from inturn.turns.connection import redis_errors
from inturn.turns.keys import Keys
from inturn.turns.lease import Lease
from inturn.turns.overlap import ENQUEUE, Overlap
from inturn.turns.pressure import Pressure
from inturn.turns.scripts import Scripts

if TYPE_CHECKING:
    from redis import Redis

    from inturn.turns.results import Kept

_NAMES = (
    *("offer", "begin", "renew", "finish", "release", "due", "kick", "unkick", "cancel", "look"),
    "restore",
)

MOST_DONE = 1000
"""IDs of finished turns that a session's mailbox knows."""
LONGEST_WAIT_MS = 600_000
"""The longest time between two wake-ups of a session that nobody begins."""


class Offered(NamedTuple):
    """What became of an offer.

    `ahead` counts the turns before this one (`full`, `rejected`: all that wait; `shut`: about how many wait
    in all sessions together, which are too many). `publish`: the session needs a message.
    """

    outcome: Literal["new", "known", "done", "full", "rejected", "shut"]
    ahead: int
    publish: bool


@dataclass(frozen=True, slots=True)
class Head:
    """The turn at the head of a mailbox, handed out to the owner of its lease.

    `attempts` counts how often it was handed out, this time included; `waiting` counts the turns in the
    mailbox, this one included. `merged` are the turns behind it that are one with it, as (ID, payload) in
    order: they are finished with it, and they are the same however often it is handed out. `behind` are the
    IDs of those that come next, as far as `finish` tells of them: more may come, or some be cancelled.
    """

    turn_id: str
    payload: str
    attempts: int
    waiting: int
    merged: tuple[tuple[str, str], ...] = ()
    behind: tuple[str, ...] = ()

    @property
    def turn_ids(self) -> list[str]:
        """The IDs of all turns that are handed out, in order."""
        return [self.turn_id, *(turn_id for turn_id, _ in self.merged)]


class Begun(NamedTuple):
    """`ok` with a lease and the head, or why there is none."""

    outcome: Literal["ok", "busy", "done", "empty", "full", "rejected", "shut"]
    lease: Lease | None = None
    head: Head | None = None
    waiting: int = 0


class Finished(NamedTuple):
    """`next` with the next head; `yield` with the ID of the turn to publish; `empty`, `quiet` or `lost`."""

    outcome: Literal["next", "empty", "quiet", "yield", "lost"]
    head: Head | None = None
    publish: str | None = None


class Kicked(NamedTuple):
    """What a sweep may wake: the turn to publish, and whether an owner's lease had lapsed."""

    session_id: str
    turn_id: str
    crashed: bool


class TurnView(NamedTuple):
    """Where a turn stands, as far as the mailbox knows."""

    state: Literal["running", "waiting", "done", "unknown"]
    ahead: int


class Item(NamedTuple):
    """What lies in a mailbox: `attempts` counts how often it was handed out, `running`: it is so now."""

    session_id: str
    turn_id: str
    payload: str
    attempts: int
    running: bool


class Mailbox:
    """All mailboxes and leases on one Redis (or Valkey) server or cluster.

    `prefix` is that of the keys, instead of the settings', for what is no turn: it has no limit in all, and
    nothing that was said, so it is not sealed either.
    Raises `MailboxUnavailableError` where Redis cannot be reached, `MailboxError` where it refuses.
    """

    def __init__(self, redis: Redis, settings: Settings, *, prefix: str | None = None) -> None:
        self._redis = redis
        self._keys = Keys(prefix or settings.key_prefix)
        self._envelopes = Envelopes.of(settings) if prefix is None else Envelopes.none()
        self._scripts = Scripts(redis, *_NAMES, common="common")
        self._buckets_together = cluster_of(redis) is None
        self._lease_ms = _ms(settings.lease_seconds)
        self._grace_ms = _ms(settings.grace_seconds)
        self._done_ms = _ms(settings.done_seconds)
        self._most = settings.max_waiting
        most_in_all = settings.max_waiting_total if prefix is None else None
        self.pressure = Pressure(redis, self._keys, settings, most=most_in_all)

    def offer(self, session_id: str, turn_id: str, payload: str, overlap: Overlap = ENQUEUE) -> Offered:
        """Append a turn unless its ID is known, or a limit or its policy has it refused."""
        self.pressure.look_now_and_then()
        outcome, ahead, publish = self._run(
            "offer",
            session_id,
            turn_id,
            self._envelopes.seal(session_id, payload),
            self._grace_ms,
            self._most,
            *_args(overlap),
        )
        return Offered(outcome, ahead, bool(publish))

    def begin(
        self, session_id: str, turn_id: str, token: str, *, payload: str = "", overlap: Overlap = ENQUEUE
    ) -> Begun:
        """Take the session's lease and its head; a `payload` offers the turn first if it is unknown."""
        reply = self._run(
            "begin",
            session_id,
            turn_id,
            self._envelopes.seal(session_id, payload),
            token,
            self._lease_ms,
            self._grace_ms,
            self._most,
            *_args(overlap),
        )
        if reply[0] == "ok":
            _, fence, head, text, attempts, waiting, stop, merged = reply
            lease = Lease(session_id, token, fence, stop=stop or None)
            return Begun("ok", lease, self._head(session_id, head, text, attempts, waiting, merged), waiting)
        return Begun(reply[0], waiting=reply[1] if len(reply) > 1 else 0)

    def finish(
        self,
        lease: Lease,
        turn_id: str,
        *,
        go_on: bool,
        hand_over: bool = False,
        results: Sequence[Kept] = (),
    ) -> Finished:
        """Take the turn off the mailbox; then, in the same step, hand out the next, release or yield.

        So are `results` stored, unless the lease was lost; a cluster has them elsewhere, and takes none.
        Those that were merged into it go with it. `quiet`: what waits is held back, for more may come.
        `hand_over` makes a session that yields due at once, for the next sweep of any other process.
        """
        reply = self._scripts.run(
            "finish",
            [*self._keys.of_session(lease.session_id), *(kept.key for kept in results)],
            lease.session_id,
            lease.token,
            turn_id,
            int(go_on),
            self._lease_ms,
            0 if hand_over else self._grace_ms,
            self._done_ms,
            MOST_DONE,
            *(part for kept in results for part in (kept.value, kept.ms)),
        )
        if reply[0] == "next":
            return Finished("next", head=self._head(lease.session_id, *reply[1:]))
        return Finished(reply[0], publish=reply[1] if reply[0] == "yield" else None)

    def release(self, lease: Lease, *, delay: float, counts: bool = True) -> bool:
        """Give the lease back and let the session sleep for `delay` seconds; False: the lease was lost.

        `counts=False` takes this attempt back, for failures that say nothing about the turn.
        """
        reply = self._run("release", lease.session_id, lease.token, _ms(delay), int(counts))
        return bool(reply == "released")

    def renew_all(self, leases: Sequence[Lease]) -> None:
        """Make all these leases last longer; marks those that are lost, and the turns to stop.

        Where a node of a cluster is away, those of the others are renewed before that is raised.
        """
        if not leases:
            return
        calls = [
            (
                "renew",
                self._keys.of_session(lease.session_id),
                (lease.session_id, lease.token, self._lease_ms),
            )
            for lease in leases
        ]
        failure: MailboxError | None = None
        for lease, reply in zip(leases, self._scripts.pipeline_each(calls), strict=True):
            if isinstance(reply, MailboxError):
                failure = reply
                continue
            kept, stop = reply
            lease.lost = lease.lost or not kept
            lease.stop = stop or None
        if failure is not None:
            raise failure

    def sweep(self, *, limit: int = 100, backlog: Callable[[], bool] = lambda: False) -> Iterator[Kicked]:
        """Claim the overdue sessions, `limit` of each bucket at a time, until none is left.

        `backlog` is asked once, and only if some are overdue: do many messages wait in the broker? Then
        sessions that were woken before are left alone for a while. What is yielded has been claimed by this
        call alone and wants its message published. Where a node of a cluster is away, that is raised once
        the buckets of the others are done.
        """
        buckets: list[str] = self._keys.indexes
        many: int | None = None
        failure: MailboxError | None = None
        while buckets:
            found = self._due(buckets, limit)
            failure = next((due for due in found if isinstance(due, MailboxError)), failure)
            found = [[] if isinstance(due, MailboxError) else due for due in found]
            sessions = [session for due in found for session in due]
            if not sessions:
                break
            if many is None:
                many = int(backlog())
            args = (self._grace_ms, LONGEST_WAIT_MS, many)
            kicks = [("kick", self._keys.of_session(session), (session, *args)) for session in sessions]
            for session, reply in zip(sessions, self._scripts.pipeline_each(kicks), strict=True):
                if isinstance(reply, MailboxError):
                    failure = reply
                elif reply[0] == "wake":
                    yield Kicked(session, reply[1], bool(reply[2]))
            buckets = (
                []
                if failure
                else [index for index, due in zip(buckets, found, strict=True) if len(due) == limit]
            )
        if failure is not None:
            raise failure

    def depth(self) -> int:
        """How many turns wait or run, in all sessions together."""
        return self.pressure.depth()

    def unkick(self, kicked: Kicked, *, delay: float) -> None:
        """Give back a claim of `sweep` whose message could not be sent; due again in `delay` seconds."""
        self._run("unkick", kicked.session_id, _ms(delay))

    def cancel(self, session_id: str, turn_id: str) -> Literal["dropped", "signalled", "unknown"]:
        """Drop a waiting turn, or signal a running one to stop between two pieces of its reply."""
        reply: Literal["dropped", "signalled", "unknown"] = self._run(
            "cancel", session_id, turn_id, self._done_ms, MOST_DONE
        )
        return reply

    def restore(self, session_id: str, turns: Sequence[tuple[str, str, Overlap]]) -> list[str] | None:
        """Put accepted turns, as (ID, payload, overlap) in their order, where they belong in the mailbox.

        Gives the IDs of those that are done and so were not put back; None: somebody holds the lease, and
        nothing was changed.
        """
        args: list[str | int] = []
        for turn_id, payload, overlap in turns:
            sealed = self._envelopes.seal(session_id, payload)
            args += [turn_id, sealed, overlap.group, overlap.share, overlap.quiet_ms]
        reply = self._run("restore", session_id, *args)
        return list(reply[1]) if reply[0] == "ok" else None

    def look(self, session_id: str, turn_id: str) -> TurnView:
        """Tell where a turn stands."""
        return TurnView(*self._scripts.run("look", self._keys.of_session(session_id), turn_id))

    def look_all(self, turns: Sequence[tuple[str, str]]) -> list[TurnView]:
        """Tell where many turns stand, each as (session ID, turn ID), in one round trip."""
        calls = [("look", self._keys.of_session(session_id), (turn_id,)) for session_id, turn_id in turns]
        return [TurnView(*reply) for reply in self._scripts.pipeline(calls)]

    def head_payload(self, session_id: str) -> str | None:
        """The payload of the turn at the head of a session's mailbox; None: it is empty."""
        _, queue, payloads, *_ = self._keys.of_session(session_id)
        while True:
            with redis_errors():
                turn_id: Any = self._redis.lindex(queue, 0)
                payload: Any = None if turn_id is None else self._redis.hget(payloads, turn_id)
            if turn_id is None:
                return None
            if payload is not None:
                return self._envelopes.open(session_id, str(payload))

    def waiting(self, session_ids: Iterable[str]) -> set[str]:
        """Which of these sessions have a turn that waits or runs."""
        ids = list(session_ids)
        indexes = [self._keys.of_session(session_id)[0] for session_id in ids]
        with redis_errors():
            scores = send(
                self._redis,
                [
                    Call(index, ("ZSCORE", index, session_id))
                    for index, session_id in zip(indexes, ids, strict=True)
                ],
            )
        return {session_id for session_id, score in zip(ids, scores, strict=True) if score is not None}

    def queue(self, session_id: str) -> list[str]:
        """The IDs of the session's turns that wait or run, in order."""
        with redis_errors():
            found: Any = self._redis.lrange(self._keys.of_session(session_id)[1], 0, -1)
        return list(found)

    def items(self, session_id: str | None = None) -> Iterator[Item]:
        """All that waits or runs, or that of one session; by session, in order, as it is found meanwhile."""
        if session_id is not None:
            yield from self._items([session_id])
            return
        for index in self._keys.indexes:
            with redis_errors():
                ids: Any = self._redis.zrange(index, 0, -1)
            for start in range(0, len(ids), 100):
                yield from self._items(ids[start : start + 100])

    def owners(self) -> dict[str, str]:
        """The sessions with a turn that runs, or whose owner died and was not yet missed: ID -> token."""
        with redis_errors():
            calls = [Call(index, ("ZRANGE", index, 0, -1)) for index in self._keys.indexes]
            ids = [session_id for some in send(self._redis, calls) for session_id in some]
            states = [self._keys.of_session(session_id)[3] for session_id in ids]
            owners = send(self._redis, [Call(state, ("HGET", state, "owner")) for state in states])
            found = zip(ids, owners, strict=True)
        return {session_id: owner for session_id, owner in found if owner is not None}

    def _items(self, session_ids: Sequence[str]) -> Iterator[Item]:
        if not session_ids:
            return
        calls = []
        for session_id in session_ids:
            _, queue, payloads, state, *_ = self._keys.of_session(session_id)
            calls.append(Call(queue, ("LRANGE", queue, 0, -1)))
            calls.append(Call(payloads, ("HGETALL", payloads)))
            calls.append(Call(state, ("HGETALL", state)))
        # All are of one bucket: the clock of its node made the leases.
        calls.append(Call(self._keys.of_session(session_ids[0])[0], ("TIME",)))
        with redis_errors():
            *found, (seconds, microseconds) = send(self._redis, calls)
        now = seconds * 1000 + microseconds / 1000
        for session_id, *lists in zip(session_ids, found[::3], found[1::3], found[2::3], strict=True):
            queue, payloads, state = lists
            live = "owner" in state and float(state.get("until", 0)) > now
            for place, turn_id in enumerate(queue):
                if turn_id in payloads:  # else it went while we looked
                    attempts = int(state.get(f"att:{turn_id}", 0))
                    payload = self._envelopes.open(session_id, payloads[turn_id])
                    yield Item(session_id, turn_id, payload, attempts, live and place == 0)

    def _due(self, buckets: Sequence[str], limit: int) -> list[Any]:
        """The overdue sessions of each bucket, or the error that came for it; one call where that can be."""
        from redis.exceptions import ClusterCrossSlotError

        if self._buckets_together:
            [reply] = self._scripts.pipeline_each([("due", buckets, (limit,))])
            if not isinstance(reply, MailboxError):
                return list(reply)
            if not isinstance(reply.__cause__, ClusterCrossSlotError):
                return [reply] * len(buckets)
            self._buckets_together = False  # a proxy in front of several servers
        replies = self._scripts.pipeline_each([("due", [index], (limit,)) for index in buckets])
        return [reply if isinstance(reply, MailboxError) else reply[0] for reply in replies]

    def _head(
        self,
        session_id: str,
        turn_id: str,
        text: str,
        attempts: int,
        waiting: int,
        merged: Sequence[str],
        behind: Sequence[str] = (),
    ) -> Head:
        opened = [self._envelopes.open(session_id, each) for each in (text, *merged[1::2])]
        others = tuple(zip(merged[::2], opened[1:], strict=True))
        return Head(turn_id, opened[0], attempts, waiting, others, tuple(behind))

    def _run(self, name: str, session_id: str, *args: str | int) -> Any:
        return self._scripts.run(name, self._keys.of_session(session_id), session_id, *args)


def _args(overlap: Overlap) -> tuple[str | int, ...]:
    return overlap.policy, overlap.group, overlap.share, overlap.quiet_ms


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
