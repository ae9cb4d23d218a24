"""Any mixture of policies, repeated calls, lost answers and lapsed times, against a model of one mailbox."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from inturn.turns import Begun, Finished, Head, Kicked, Lease, Mailbox, Offered, Overlap
from inturn.turns.keys import Keys
from inturn.turns.lease import create_token
from inturn.turns.overlap import ENQUEUE
from tests.integration.turns.test_overlap import REJECT, head

SHARES = [500, 3000, 6000]
LONG_QUIET_MS = 60_000
MOST_WAITING = 9


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
            self.session = f"s{next(numbers)}"
            self.model = Model()
            self.gone: list[tuple[Lease, str]] = []
            """Leases that somebody else has had since, with the turn they had in hand."""

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
                wanted = Finished("next", head=model.hand_out())
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

        @precondition(lambda self: self.model.live)
        @rule()
        def renew(self) -> None:
            assert self.model.owner is not None
            mailbox.renew_all([self.model.owner])
            assert not self.model.owner.lost
            assert self.model.owner.stop == self.model.stop

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
                        self.let_go()
            for _ in range(times):
                assert mailbox.cancel(self.session, turn_id) == wanted

        @rule()
        def time_passes_and_a_sweep_finds_what_waits(self) -> None:
            """As if all leases had lapsed, all sleep were over, and nobody had typed for long."""
            model = self.model
            _, _, _, state, *_ = keys.of_session(self.session)
            fields: Any = redis.hgetall(state)
            for name, value in fields.items():
                if name in (b"until", b"sleep"):
                    redis.hset(state, name, 1)
                elif name.startswith(b"join:"):
                    redis.hset(state, name, value.rpartition(b" ")[0] + b" 1")
            index = keys.of_session(self.session)[0]
            redis.zadd(index, {self.session: 1}, xx=True)
            for turn in model.waiting:
                turn.fresh = False
            crashed = model.owner is not None
            model.live = model.asleep = False
            if model.waiting:
                assert list(mailbox.sweep()) == [Kicked(self.session, model.waiting[0].id, crashed)]
                if crashed:
                    self.let_go()
            assert list(mailbox.sweep()) == []

        def let_go(self) -> None:
            """The owner is none any more; whether it hears of it is another matter."""
            assert self.model.owner is not None
            self.model.owner, self.model.live = None, False

        @invariant()
        def a_session_is_in_the_index_exactly_while_something_waits(self) -> None:
            assert mailbox.waiting([self.session]) == ({self.session} if self.model.waiting else set())
            assert mailbox.queue(self.session) == [turn.id for turn in self.model.waiting]

        @invariant()
        def the_bucket_counts_what_waits(self) -> None:
            depth = redis.get(keys.of_session(self.session)[5])
            assert int(depth or 0) == len(self.model.waiting), "the sessions before this one are idle"

        @invariant()
        def what_runs_is_told(self) -> None:
            for place, turn in enumerate(self.model.waiting):
                running = self.model.live and place < (self.model.begun or 0)
                wanted = ("running", 0) if running else ("waiting", place)
                assert mailbox.look(self.session, turn.id) == wanted

        def teardown(self) -> None:
            model = self.model
            while model.waiting:
                self.time_passes_and_a_sweep_finds_what_waits()
                self.begin("any", None, 1)
                self.finish(False, 1)
            kept = [turn_id for turn_id in model.accepted if turn_id not in model.dropped]
            assert model.ran == kept, "each turn that was not cancelled ran once, in its place"
            _, queue, payloads, state, done, *_ = keys.of_session(self.session)
            assert not redis.exists(queue, payloads)
            for key in (state, done):
                assert redis.ttl(key) != -1
            left = set(redis.hkeys(state))
            assert left <= {b"fence", b"last", b"reply", b"wakes"}, "nothing is left of a turn"

    return Machine


def test_any_mixture_of_policies_does_what_the_model_does(
    make_mailbox: Callable[..., Mailbox], redis_client: Redis, key_prefix: str
) -> None:
    # Time passes by rule only, however slow the machine is.
    mailbox = make_mailbox(
        max_waiting=MOST_WAITING, lease_seconds=600, grace_seconds=600, retry_max_seconds=600
    )
    run_state_machine_as_test(
        machine(mailbox, redis_client, Keys(key_prefix)),
        settings=settings(
            max_examples=100,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
