"""What becomes of a turn that comes while its session is busy: the scripts, on a real server.

The last test lets any mixture of policies, repeated calls, lost answers and lapsed times run against a model.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
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

from inturn.errors import ConfigurationError, InvalidInputError
from inturn.settings import Settings, load_settings
from inturn.turns import Begun, Finished, Head, Kicked, Lease, Mailbox, Offered, Overlap
from inturn.turns.keys import Keys
from inturn.turns.lease import create_token
from inturn.turns.overlap import ENQUEUE, MOST_MERGED, overlap_of
from inturn.turns.payloads import encode_payload, respond_payload
from tests.waiting import wait_until

pytestmark = pytest.mark.leaves_keys("*")  # tests of single scripts end in the middle of a turn's life

MERGE = Overlap("merge", "ada", 500)
INTERRUPT = Overlap("interrupt", "ada", 500)
REJECT = Overlap("reject")
QUIET_MS = 300
QUIET = Overlap("merge", "ada", 500, QUIET_MS)


def begin(mailbox: Mailbox, turn: str = "any", token: str | None = None) -> tuple[Lease, Head]:
    begun = mailbox.begin("s", turn, token or create_token())
    assert begun.outcome == "ok"
    assert begun.lease is not None
    assert begun.head is not None
    return begun.lease, begun.head


def head(*turns: str, attempts: int = 1, waiting: int | None = None) -> Head:
    """A head with the turns that are one with it; every payload is its turn's ID."""
    first, *others = turns
    return Head(first, first, attempts, waiting or len(turns), tuple((turn, turn) for turn in others))


def offer(mailbox: Mailbox, overlap: Overlap, *turns: str) -> None:
    for turn in turns:
        assert mailbox.offer("s", turn, turn, overlap).outcome == "new"


# merge


def test_messages_that_wait_next_to_each_other_are_handed_out_as_one(mailbox: Mailbox) -> None:
    offer(mailbox, MERGE, "t1")
    lease, first = begin(mailbox)
    offer(mailbox, MERGE, "t2", "t3", "t4")

    assert first == head("t1"), "a turn that runs is not changed"
    assert mailbox.finish(lease, "t1", go_on=True).head == head("t2", "t3", "t4")
    assert mailbox.finish(lease, "t2", go_on=True).outcome == "empty"


@pytest.mark.parametrize(
    "between", [ENQUEUE, Overlap("merge", "grace", 500)], ids=["another policy", "another user"]
)
def test_nothing_is_merged_over_what_stands_between(mailbox: Mailbox, between: Overlap) -> None:
    offer(mailbox, ENQUEUE, "t0")
    offer(mailbox, MERGE, "t1", "t2")
    offer(mailbox, between, "t3")
    offer(mailbox, MERGE, "t4", "t5")
    lease, seen = begin(mailbox)
    heads = [seen]
    while (finished := mailbox.finish(lease, heads[-1].turn_id, go_on=True)).head is not None:
        heads.append(finished.head)

    assert [each.turn_id for each in heads] == ["t0", "t1", "t3", "t4"]
    assert [len(each.merged) for each in heads] == [0, 1, 0, 1]


def test_together_they_are_no_more_than_one_message_may_be(mailbox: Mailbox) -> None:
    offer(mailbox, Overlap("merge", "ada", 4000), "t1", "t2")
    offer(mailbox, Overlap("merge", "ada", 2001), "t3")

    _, seen = begin(mailbox)

    assert seen == head("t1", "t2", waiting=3)


def test_no_more_than_twenty_become_one(mailbox: Mailbox) -> None:
    offer(mailbox, MERGE, *(f"t{number}" for number in range(MOST_MERGED + 1)))

    _, seen = begin(mailbox)

    assert len(seen.merged) == MOST_MERGED - 1


def test_the_next_owner_is_given_the_same_turns_whatever_has_come_meanwhile(
    make_mailbox: Callable[..., Mailbox],
) -> None:
    mailbox = make_mailbox(lease_seconds=0.05, renew_seconds=0.02)
    offer(mailbox, MERGE, "t1", "t2")
    assert begin(mailbox)[1] == head("t1", "t2")
    offer(mailbox, MERGE, "t3")

    wait_until(lambda: list(mailbox.sweep()))
    lease, second = begin(mailbox)

    assert second == head("t1", "t2", attempts=2, waiting=3)
    assert mailbox.finish(lease, "t1", go_on=True).head == head("t3")


def test_an_attempt_that_does_not_count_keeps_the_turns_together_too(mailbox: Mailbox) -> None:
    offer(mailbox, MERGE, "t1", "t2")
    lease, _ = begin(mailbox)
    assert mailbox.release(lease, delay=0.001, counts=False)
    offer(mailbox, MERGE, "t3")

    seen = wait_until(lambda: mailbox.begin("s", "t1", create_token()).head)

    assert seen == head("t1", "t2", waiting=3)


def test_each_merged_turn_is_known_running_and_then_done(mailbox: Mailbox) -> None:
    offer(mailbox, MERGE, "t1", "t2")
    lease, _ = begin(mailbox)
    offer(mailbox, MERGE, "t3")

    assert [mailbox.look("s", turn) for turn in ("t1", "t2", "t3")] == [
        ("running", 0),
        ("running", 0),
        ("waiting", 2),
    ]
    assert mailbox.offer("s", "t2", "t2", MERGE) == ("known", 1, False)
    mailbox.finish(lease, "t1", go_on=True)
    assert mailbox.offer("s", "t1", "t1", MERGE).outcome == "done"
    assert mailbox.offer("s", "t2", "t2", MERGE).outcome == "done"


def test_a_merged_turn_that_waits_can_be_dropped_and_one_that_has_begun_stops_them_all(
    mailbox: Mailbox,
) -> None:
    offer(mailbox, MERGE, "t1", "t2", "t3")
    assert mailbox.cancel("s", "t2") == "dropped"
    lease, seen = begin(mailbox)
    assert seen == head("t1", "t3")

    assert mailbox.cancel("s", "t3") == "signalled"
    mailbox.renew_all([lease])
    assert lease.stop == "t1"


def test_a_merged_turn_that_sleeps_after_a_failure_is_stopped_and_taken_at_once(mailbox: Mailbox) -> None:
    offer(mailbox, MERGE, "t1", "t2")
    lease, _ = begin(mailbox)
    mailbox.release(lease, delay=60)
    assert mailbox.begin("s", "t1", create_token()).outcome == "busy"

    assert mailbox.cancel("s", "t2") == "signalled"

    assert list(mailbox.sweep()) == [("s", "t1", False)]
    lease, seen = begin(mailbox)
    assert (lease.stop, seen) == ("t1", head("t1", "t2", attempts=2))


# quiet


def test_a_quiet_session_is_due_only_after_its_last_message(mailbox: Mailbox) -> None:
    assert mailbox.offer("s", "t1", "t1", QUIET) == ("new", 0, False)
    assert mailbox.begin("s", "t1", create_token()).outcome == "busy"
    assert mailbox.offer("s", "t2", "t2", QUIET) == ("new", 1, False)
    assert mailbox.offer("s", "t1", "t1", QUIET) == ("known", 0, False)
    assert list(mailbox.sweep()) == []

    assert wait_until(lambda: list(mailbox.sweep())) == [("s", "t1", False)]
    assert begin(mailbox)[1] == head("t1", "t2")


def test_a_message_that_comes_once_the_session_was_woken_is_waited_for_too(mailbox: Mailbox) -> None:
    offer(mailbox, QUIET, "t1")
    wait_until(lambda: list(mailbox.sweep()))
    offer(mailbox, QUIET, "t2")

    assert mailbox.begin("s", "t1", create_token()).outcome == "busy"
    assert wait_until(lambda: list(mailbox.sweep())) == [("s", "t1", False)]
    assert begin(mailbox)[1] == head("t1", "t2")


def test_who_types_for_ever_is_answered_after_five_quiet_times(mailbox: Mailbox) -> None:
    brief = Overlap("merge", "ada", 1, 40)
    numbers = itertools.count(1)

    def types_on() -> Head | None:
        offer(mailbox, brief, f"t{next(numbers)}")
        return mailbox.begin("s", "t1", create_token()).head

    seen = wait_until(types_on, timeout=10)

    assert seen is not None
    assert seen.turn_id == "t1"


def test_a_wait_for_more_ends_where_no_more_can_join(mailbox: Mailbox) -> None:
    offer(mailbox, QUIET, "t1")

    assert mailbox.offer("s", "t2", "t2", ENQUEUE) == ("new", 1, True)
    assert begin(mailbox)[1] == head("t1", waiting=2)


def test_a_full_turn_waits_for_no_more(mailbox: Mailbox) -> None:
    assert mailbox.offer("s", "t1", "t1", Overlap("merge", "ada", 9600, QUIET_MS)) == ("new", 0, True)


def test_an_owner_leaves_a_session_whose_next_turn_is_held_back(mailbox: Mailbox) -> None:
    offer(mailbox, ENQUEUE, "t1")
    lease, _ = begin(mailbox)
    offer(mailbox, QUIET, "t2")

    assert mailbox.finish(lease, "t1", go_on=True) == ("quiet", None, None)
    assert mailbox.finish(lease, "t1", go_on=True) == ("quiet", None, None), "a replay answers the same"
    offer(mailbox, QUIET, "t3")
    assert mailbox.begin("s", "t2", create_token()).outcome == "busy"
    assert wait_until(lambda: list(mailbox.sweep())) == [("s", "t2", False)]
    assert begin(mailbox)[1] == head("t2", "t3")


def test_a_turn_that_sleeps_after_a_failure_is_not_woken_by_a_message(mailbox: Mailbox) -> None:
    offer(mailbox, MERGE, "t1")
    lease, _ = begin(mailbox)
    mailbox.release(lease, delay=60)

    assert mailbox.offer("s", "t2", "t2", QUIET) == ("new", 1, False)
    assert list(mailbox.sweep()) == []
    assert mailbox.begin("s", "t1", create_token()).outcome == "busy"


# interrupt


def test_what_interrupts_stops_the_turn_that_runs_and_waits_behind_it(mailbox: Mailbox) -> None:
    offer(mailbox, ENQUEUE, "t1")
    lease, _ = begin(mailbox)

    assert mailbox.offer("s", "t2", "t2", INTERRUPT) == ("new", 1, False)

    mailbox.renew_all([lease])
    assert lease.stop == "t1"
    assert mailbox.finish(lease, "t1", go_on=True).head == head("t2")
    mailbox.renew_all([lease])
    assert lease.stop is None


def test_what_interrupts_is_answered_with_the_same_users_messages_before_it_and_after_all_others(
    mailbox: Mailbox,
) -> None:
    offer(mailbox, ENQUEUE, "t1", "t2")
    lease, _ = begin(mailbox)
    offer(mailbox, MERGE, "t3")
    offer(mailbox, INTERRUPT, "t4", "t5")

    assert mailbox.finish(lease, "t1", go_on=True).head == head("t2", waiting=4)
    assert mailbox.finish(lease, "t2", go_on=True).head == head("t3", "t4", "t5")


def test_a_replayed_interruption_stops_nothing_more(mailbox: Mailbox) -> None:
    offer(mailbox, ENQUEUE, "t1")
    lease, _ = begin(mailbox)
    offer(mailbox, INTERRUPT, "t2")
    mailbox.finish(lease, "t1", go_on=True)

    assert mailbox.offer("s", "t2", "t2", INTERRUPT) == ("known", 0, False)
    mailbox.renew_all([lease])
    assert lease.stop is None


def test_a_turn_that_sleeps_after_a_failure_is_interrupted_at_once(mailbox: Mailbox) -> None:
    offer(mailbox, ENQUEUE, "t1")
    lease, _ = begin(mailbox)
    mailbox.release(lease, delay=60)

    assert mailbox.offer("s", "t2", "t2", INTERRUPT) == ("new", 1, True)

    lease, seen = begin(mailbox)
    assert (lease.stop, seen) == ("t1", head("t1", attempts=2, waiting=2))


def test_what_comes_with_its_message_interrupts_too(mailbox: Mailbox) -> None:
    offer(mailbox, ENQUEUE, "t1")
    lease, _ = begin(mailbox)

    assert mailbox.begin("s", "t2", create_token(), payload="t2", overlap=INTERRUPT).outcome == "busy"

    mailbox.renew_all([lease])
    assert lease.stop == "t1"


def test_nothing_is_stopped_where_nothing_has_begun(mailbox: Mailbox) -> None:
    offer(mailbox, ENQUEUE, "t1")
    offer(mailbox, INTERRUPT, "t2")

    lease, seen = begin(mailbox)

    assert (lease.stop, seen) == (None, head("t1", waiting=2))


# reject


def test_a_busy_session_rejects_and_an_idle_one_does_not(mailbox: Mailbox) -> None:
    assert mailbox.offer("s", "t1", "t1", REJECT) == ("new", 0, True)
    assert mailbox.offer("s", "t2", "t2", REJECT) == ("rejected", 1, False)
    lease, _ = begin(mailbox)
    assert mailbox.offer("s", "t2", "t2", REJECT) == ("rejected", 1, False)
    assert mailbox.begin("s", "t2", create_token(), payload="t2", overlap=REJECT) == Begun(
        "rejected", waiting=1
    )
    assert mailbox.look("s", "t2").state == "unknown"
    mailbox.finish(lease, "t1", go_on=True)
    assert mailbox.offer("s", "t2", "t2", REJECT) == ("new", 0, True)


def test_a_known_turn_is_never_rejected(mailbox: Mailbox) -> None:
    offer(mailbox, REJECT, "t1")

    assert mailbox.offer("s", "t1", "t1", REJECT).outcome == "known"
    lease, _ = begin(mailbox)
    assert mailbox.offer("s", "t1", "t1", REJECT).outcome == "known"
    mailbox.finish(lease, "t1", go_on=True)
    offer(mailbox, ENQUEUE, "t2")
    assert mailbox.offer("s", "t1", "t1", REJECT).outcome == "done"


# What a message's policy is


def plan(own: Settings, *, policy: Any = None, quiet: Any = None, **given: Any) -> Overlap:
    payload = respond_payload(own, "s", given.pop("message", "hello"), **given)
    return overlap_of(own, payload, encode_payload(own, payload), policy=policy, quiet=quiet)


def test_the_call_decides_before_the_channel_and_the_channel_before_all_others() -> None:
    own = load_settings(overlap="reject, sms=merge, slack=interrupt", quiet_seconds="1, sms=2.5")

    assert plan(own).policy == "reject"
    assert plan(own, channel="slack").policy == "interrupt"
    assert plan(own, channel="slack", policy="merge").quiet_ms == 1000
    sms = plan(own, channel="sms")
    assert (sms.policy, sms.quiet_ms) == ("merge", 2500)
    assert plan(own, channel="sms", policy="enqueue") == ENQUEUE
    assert plan(own, channel="sms", quiet=0).quiet_ms == 0
    assert plan(load_settings()) == ENQUEUE


def test_messages_of_one_user_at_one_place_are_of_one_group() -> None:
    own = load_settings(overlap="merge")
    given: dict[str, Any] = {
        "user_id": "ada",
        "channel": "slack",
        "address": {"channel": "C1", "thread": "1"},
    }
    group = plan(own, **given).group

    assert plan(own, **given, policy="interrupt", message="stop").group == group
    assert plan(own, **{**given, "address": {"thread": "1", "channel": "C1"}}).group == group
    for other in (
        {"user_id": "grace"},
        {"channel": "web"},
        {"address": {"channel": "C2"}},
        {"user_id": None},
    ):
        assert plan(own, **{**given, **other}).group != group


@pytest.mark.parametrize(
    ("given", "share"),
    [
        ({"message": "hi"}, 500),
        ({"message": "x" * 49}, 5000),
        ({"message": "x" * 100}, 10_000),
        ({"images": ["https://example.org/a.png"] * 4}, 4000),
    ],
)
def test_a_share_is_the_part_of_what_one_message_may_be(given: dict[str, Any], share: int) -> None:
    own = load_settings(overlap="merge", max_message_chars=100, max_payload_bytes=10_000)

    assert plan(own, **given).share == share
    assert 9000 < plan(own, **given, metadata={"note": "x" * 9000}).share <= 10_000


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"policy": "drop"}, "no such overlap: 'drop'; use enqueue, merge, interrupt, reject"),
        ({"policy": {"$ne": 1}}, "no such overlap"),
        ({"policy": "merge", "quiet": -1}, "quiet must be seconds from 0 to 60"),
        ({"policy": "merge", "quiet": 61}, "from 0 to 60, not 61"),
        ({"policy": "merge", "quiet": True}, "quiet must be"),
        ({"policy": "merge", "quiet": float("nan")}, "quiet must be"),
        ({"policy": "enqueue", "quiet": 2}, "quiet goes with overlap='merge', not with 'enqueue'"),
        ({"quiet": 2}, "quiet goes with overlap='merge'"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        plan(load_settings(), **given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"overlap": "sometimes"}, "INTURN_OVERLAP|overlap must be one of enqueue, merge.*'sometimes'"),
        ({"overlap": "enqueue, sms=drop"}, r"channel 'sms'.*'drop'"),
        ({"overlap": "merge, enqueue"}, "one thing for each channel"),
        ({"overlap": "sms=merge, sms=reject"}, "one thing for each channel"),
        ({"quiet_seconds": "soon"}, "quiet_seconds must be from 0 to 60, not 'soon'"),
        ({"quiet_seconds": "0, sms=90"}, r"channel 'sms'.*'90'"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        load_settings(**given)


# Any mixture

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
            _, _, _, state, _ = keys.of_session(self.session)
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
            _, queue, payloads, state, done = keys.of_session(self.session)
            assert not redis.exists(queue, payloads)
            for key in (state, done):
                assert redis.ttl(key) != -1
            left = set(redis.hkeys(state))
            assert left <= {b"fence", b"last", b"reply", b"wakes"}, "nothing is left of a turn"

    return Machine


def test_any_mixture_of_policies_does_what_the_model_does(
    make_mailbox: Callable[..., Mailbox], redis_client: Redis, key_prefix: str
) -> None:
    mailbox = make_mailbox(max_waiting=MOST_WAITING)
    run_state_machine_as_test(
        machine(mailbox, redis_client, Keys(key_prefix)),
        settings=settings(
            max_examples=100,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
