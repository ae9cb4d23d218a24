"""A model of one mailbox in a few lines, and the machine that does the same to it and to real ones."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any
from zlib import crc32

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from redis import Redis

from inturn.turns import Begun, Finished, Head, Kicked, Lease, Mailbox, Offered, Overlap
from inturn.turns.keys import BUCKETS, Keys
from inturn.turns.lease import create_token
from inturn.turns.overlap import ENQUEUE
from tests.integration.turns.test_overlap import REJECT, head

SHARES = [500, 3000, 6000]
LONG_QUIET_MS = 60_000
MOST_WAITING = 9
BEHIND = 8
"""The most turns behind a head that `finish` tells of."""
STILL: dict[str, Any] = {
    "max_waiting": MOST_WAITING,
    "lease_seconds": 600,
    "grace_seconds": 600,
    "retry_max_seconds": 600,
}
"""Time passes by rule only, however slow the machine is."""


@dataclass
class Turn:
    """A turn as the model has it; `fresh`: no time has passed since it came."""

    id: str
    overlap: Overlap
    fresh: bool = True


@dataclass
class Model:
    """One mailbox, in a few lines: what the scripts must do."""

    waiting: list[Turn] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)
    ran: list[str] = field(default_factory=list)
    together: list[tuple[str, ...]] = field(default_factory=list)
    begun: int | None = None
    """How many turns the head was first handed out with."""
    attempts: int = 0
    owner: Lease | None = None
    live: bool = False
    asleep: bool = False
    stop: str | None = None

    @property
    def run(self) -> tuple[int, bool]:
        """How many turns would be handed out now, and whether another could still join them."""
        first = self.waiting[0].overlap
        if not first.group:
            return 1, False
        count, share = 0, 0
        for turn in self.waiting:
            if turn.overlap.group != first.group or share + turn.overlap.share > 10_000:
                return count, False
            count, share = count + 1, share + turn.overlap.share
        return count, share + 500 <= 10_000

    @property
    def quiet(self) -> bool:
        if self.begun is not None or not self.waiting:
            return False
        _, is_open = self.run
        last = self.waiting[-1]
        return is_open and last.overlap.quiet_ms > 0 and last.fresh and self.waiting[0].fresh

    def offer(self, turn_id: str, overlap: Overlap) -> Offered:
        ids = [turn.id for turn in self.waiting]
        if turn_id in ids:
            ahead = ids.index(turn_id)
            return Offered("known", ahead, ahead == 0 and not (self.live or self.asleep or self.quiet))
        if turn_id in self.accepted:
            return Offered("done", 0, False)
        if ids and overlap.policy == "reject":
            return Offered("rejected", len(ids), False)
        if len(ids) >= MOST_WAITING:
            return Offered("full", len(ids), False)
        was_quiet = self.quiet and not self.live
        self.waiting.append(Turn(turn_id, overlap))
        self.accepted.append(turn_id)
        publish = (not ids or was_quiet) and not self.quiet
        if overlap.policy == "interrupt" and self.begun is not None:
            self.stop = self.waiting[0].id
            publish = not self.live
            self.asleep = self.asleep and self.live
        return Offered("new", len(ids), publish)

    def hand_out(self) -> Head:
        self.begun = self.begun or self.run[0]
        self.attempts += 1
        ids = [turn.id for turn in self.waiting]
        assert ids
        return head(*ids[: self.begun], attempts=self.attempts, waiting=len(ids))

    def drop_head(self, count: int) -> None:
        self.waiting = self.waiting[count:]
        self.begun, self.attempts, self.stop = None, 0, None


@dataclass
class Side:
    """One of the two sessions."""

    session: str
    model: Model = field(default_factory=Model)
    gone: list[tuple[Lease, str]] = field(default_factory=list)
    """Leases that somebody else has had since, with the turn they had in hand."""


def twins(number: int) -> list[str]:
    """Two sessions of one bucket."""
    first = f"s{number}"
    others = (f"s{number}-{other}" for other in itertools.count())
    bucket = crc32(first.encode()) % BUCKETS
    return [first, next(other for other in others if crc32(other.encode()) % BUCKETS == bucket)]


def machine(mailbox: Mailbox, redis: Redis, keys: Keys) -> type[RuleBasedStateMachine]:
    """The rules, for one server; every example has a session of its own."""
    numbers = itertools.count()
    overlaps = st.one_of(
        st.just(ENQUEUE),
        st.just(REJECT),
        st.builds(
            Overlap,
            st.just("merge"),
            st.sampled_from(["ada", "grace"]),
            st.sampled_from(SHARES),
            st.sampled_from([0, LONG_QUIET_MS]),
        ),
        st.builds(Overlap, st.just("interrupt"), st.sampled_from(["ada", "grace"]), st.just(500)),
    )
    turn_ids = st.integers(0, 11).map(lambda number: f"t{number}")
    times = st.integers(1, 2)

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            number = next(numbers)
            self.sides = [Side(session) for session in twins(number)]
            self.side = self.sides[0]

        @property
        def session(self) -> str:
            return self.side.session

        @property
        def model(self) -> Model:
            return self.side.model

        @property
        def gone(self) -> list[tuple[Lease, str]]:
            return self.side.gone

        @rule()
        def turn_to_the_other_session(self) -> None:
            self.side = self.sides[self.side is self.sides[0]]

        @rule(turn_id=turn_ids, overlap=overlaps, times=times)
        def offer(self, turn_id: str, overlap: Overlap, times: int) -> None:
            for _ in range(times):
                wanted = self.model.offer(turn_id, overlap)
                assert mailbox.offer(self.session, turn_id, turn_id, overlap) == wanted

        @rule(turn_id=turn_ids, overlap=st.none() | overlaps, times=times)
        def begin(self, turn_id: str, overlap: Overlap | None, times: int) -> None:
            """With an `overlap` the message brings its turn along, as a bare `send_task` does."""
            model, token = self.model, create_token()

            def call() -> Begun:
                if overlap is None:
                    return mailbox.begin(self.session, turn_id, token)
                return mailbox.begin(self.session, turn_id, token, payload=turn_id, overlap=overlap)

            offered = None if overlap is None else model.offer(turn_id, overlap)
            begun = call()
            if offered is not None and offered.outcome in ("rejected", "full"):
                assert begun == Begun(offered.outcome, waiting=offered.ahead)
            elif not model.waiting:
                assert begun.outcome == ("done" if turn_id in model.accepted else "empty")
            elif model.live or model.asleep or model.quiet:
                assert begun.outcome == "busy"
            else:
                if model.owner is not None:
                    self.gone.append((model.owner, model.waiting[0].id))
                assert begun.head == model.hand_out()
                assert begun.lease is not None
                assert begun.lease.stop == model.stop
                model.owner, model.live = begun.lease, True
                if times == 2:
                    again = call()
                    assert (again.lease, again.head) == (begun.lease, begun.head)

        @precondition(lambda self: self.model.owner is not None)
        @rule(go_on=st.booleans(), times=times)
        def finish(self, go_on: bool, times: int) -> None:
            model, lease = self.model, self.model.owner
            assert lease is not None
            assert model.begun is not None
            turn_id = model.waiting[0].id
            ended = tuple(turn.id for turn in model.waiting[: model.begun])
            model.ran += ended
            model.together.append(ended)
            model.drop_head(model.begun)
            if not model.waiting:
                wanted = Finished("empty")
            elif model.quiet:
                wanted = Finished("quiet")
            elif go_on:
                handed = model.hand_out()
                assert model.begun is not None
                behind = tuple(turn.id for turn in model.waiting[model.begun :][:BEHIND])
                wanted = Finished("next", head=replace(handed, behind=behind))
            else:
                wanted = Finished("yield", publish=model.waiting[0].id)
            if wanted.outcome == "next":
                model.live = True
            else:
                model.owner, model.live = None, False
            for _ in range(times):
                assert mailbox.finish(lease, turn_id, go_on=go_on) == wanted

        @precondition(lambda self: self.model.owner is not None)
        @rule(counts=st.booleans(), times=times)
        def release(self, counts: bool, times: int) -> None:
            model, lease = self.model, self.model.owner
            assert lease is not None
            model.owner, model.live, model.asleep = None, False, True
            model.attempts -= not counts
            for _ in range(times):
                assert mailbox.release(lease, delay=60, counts=counts)

        @precondition(lambda self: self.gone)
        @rule(data=st.data())
        def a_stale_owner_changes_nothing(self, data: st.DataObject) -> None:
            lease, turn_id = data.draw(st.sampled_from(self.gone))
            assert mailbox.finish(lease, turn_id, go_on=True).outcome == "lost"
            assert not mailbox.release(lease, delay=60)
            mailbox.renew_all([lease])
            assert lease.lost

        @precondition(lambda self: self.model.owner is not None)
        @rule(times=times)
        def renew(self, times: int) -> None:
            """A lease that has lapsed is not revived, though nobody has taken it over yet."""
            model, owner = self.model, self.model.owner
            assert owner is not None
            held = Lease(owner.session_id, owner.token, owner.fence)
            for _ in range(times):
                mailbox.renew_all([held])
                assert held.lost != model.live
            assert not model.live or held.stop == model.stop

        @precondition(lambda self: self.model.live)
        @rule()
        def the_lease_lapses(self) -> None:
            """Its owner has crashed, or is slow: nothing is released, and the next one to begin gets it."""
            state = keys.of_session(self.session)[3]
            redis.hset(state, "until", 1)
            redis.zadd(keys.of_session(self.session)[0], {self.session: 1}, xx=True)
            self.model.live = False

        @precondition(lambda self: self.model.owner is None and self.model.asleep)
        @rule()
        def the_wait_for_the_next_try_is_over(self) -> None:
            redis.hset(keys.of_session(self.session)[3], "sleep", 1)
            self.model.asleep = False

        @rule(turn_id=turn_ids, times=times)
        def cancel(self, turn_id: str, times: int) -> None:
            model = self.model
            ids = [turn.id for turn in model.waiting]
            if turn_id not in ids:
                wanted = "dropped" if turn_id in model.dropped else "unknown"
            elif ids.index(turn_id) < (model.begun or 0) and (model.live or (model.begun or 0) > 1):
                wanted = "signalled"
                model.stop = ids[0]
                model.asleep = model.asleep and model.live
            else:
                wanted = "dropped"
                place = ids.index(turn_id)
                del model.waiting[place]
                model.dropped.add(turn_id)
                if place == 0:
                    model.begun, model.attempts, model.stop, model.asleep = None, 0, None, False
                    if model.owner is not None:
                        self.gone.append((model.owner, turn_id))
                        model.owner = None
            for _ in range(times):
                assert mailbox.cancel(self.session, turn_id) == wanted

        @rule()
        def time_passes_and_a_sweep_finds_what_waits(self) -> None:
            """As if all leases had lapsed, all sleep were over, and nobody had typed for long."""
            wanted = []
            for side in self.sides:
                active, _, _, state, *_ = keys.of_session(side.session)
                fields: Any = redis.hgetall(state)
                for name, value in fields.items():
                    if name in ("until", "sleep"):
                        redis.hset(state, name, 1)
                    elif name.startswith("join:"):
                        redis.hset(state, name, value.rpartition(" ")[0] + " 1")
                redis.zadd(active, {side.session: 1}, xx=True)
                model = side.model
                for turn in model.waiting:
                    turn.fresh = False
                crashed = model.owner is not None
                model.live = model.asleep = False
                if model.waiting:
                    wanted.append(Kicked(side.session, model.waiting[0].id, crashed))
                    model.owner = None
            assert sorted(mailbox.sweep()) == sorted(wanted)
            assert list(mailbox.sweep()) == []

        @invariant()
        def a_session_is_in_the_index_exactly_while_something_waits(self) -> None:
            wanted = {side.session for side in self.sides if side.model.waiting}
            assert mailbox.waiting([side.session for side in self.sides]) == wanted
            for side in self.sides:
                assert mailbox.queue(side.session) == [turn.id for turn in side.model.waiting]

        @invariant()
        def nobody_owns_what_is_empty(self) -> None:
            for side in self.sides:
                if not side.model.waiting:
                    assert redis.hget(keys.of_session(side.session)[3], "owner") is None

        @invariant()
        def the_bucket_counts_what_waits(self) -> None:
            depth: Any = redis.get(keys.of_session(self.session)[5])
            waiting = sum(len(side.model.waiting) for side in self.sides)
            assert int(depth or 0) == waiting, "the sessions before these are idle"

        @invariant()
        def what_runs_is_told(self) -> None:
            for side in self.sides:
                asked = [(side.session, turn.id) for turn in side.model.waiting]
                for place, view in enumerate(mailbox.look_all(asked)):
                    running = side.model.live and place < (side.model.begun or 0)
                    assert view == (("running", 0) if running else ("waiting", place))

        def teardown(self) -> None:
            for side in self.sides:
                self.side, model = side, side.model
                while model.waiting:
                    self.time_passes_and_a_sweep_finds_what_waits()
                    self.begin("any", None, 1)
                    self.finish(False, 1)
                kept = [turn_id for turn_id in model.accepted if turn_id not in model.dropped]
                assert model.ran == kept, "each turn that was not cancelled ran once, in its place"
                _, queue, payloads, state, done, *_ = keys.of_session(self.session)
                assert not redis.exists(queue)
                assert not redis.exists(payloads)
                for key in (state, done):
                    assert redis.ttl(key) != -1
                left: Any = redis.hkeys(state)
                known = {"fence", "last", "reply", "wakes"}
                assert set(left) <= known, "nothing is left of a turn"

    return Machine
