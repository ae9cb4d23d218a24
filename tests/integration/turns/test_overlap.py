"""What becomes of a turn that comes while its session is busy: the scripts, on a real server."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest

from inturn.turns import Begun, Head, Lease, Mailbox, Overlap
from inturn.turns.lease import create_token
from inturn.turns.overlap import ENQUEUE, MOST_MERGED
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


def head(*turns: str, attempts: int = 1, waiting: int | None = None, behind: Sequence[str] = ()) -> Head:
    """A head with the turns that are one with it; every payload is its turn's ID."""
    first, *others = turns
    merged = tuple((turn, turn) for turn in others)
    return Head(first, first, attempts, waiting or len(turns), merged, tuple(behind))


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

    assert mailbox.finish(lease, "t1", go_on=True).head == head("t2", waiting=4, behind=["t3", "t4", "t5"])
    assert mailbox.finish(lease, "t2", go_on=True).head == head("t3", "t4", "t5")


def test_what_comes_behind_those_that_are_one_is_told(mailbox: Mailbox) -> None:
    offer(mailbox, ENQUEUE, "t1")
    lease, _ = begin(mailbox)
    offer(mailbox, MERGE, "t2", "t3")
    later = [f"later {number}" for number in range(10)]
    offer(mailbox, ENQUEUE, *later)

    found = mailbox.finish(lease, "t1", go_on=True).head

    assert found == head("t2", "t3", waiting=12, behind=later[:8])


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
