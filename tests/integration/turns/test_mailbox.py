"""The mailbox's scripts, each against its contract, on a real server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from inturn.errors import MailboxUnavailableError
from inturn.settings import load_settings
from inturn.turns import Begun, Head, Kicked, Lease, Mailbox, Sweeper
from inturn.turns.connection import connect
from inturn.turns.lease import create_token
from inturn.turns.overlap import ENQUEUE
from inturn.turns.results import Kept
from tests.waiting import wait_until

pytestmark = pytest.mark.leaves_keys("*")  # tests of single scripts end in the middle of a turn's life


def begin(mailbox: Mailbox, session: str, turn: str, token: str | None = None) -> tuple[Lease, Head]:
    begun = mailbox.begin(session, turn, token or create_token())
    assert begun.outcome == "ok"
    assert begun.lease is not None
    assert begun.head is not None
    return begun.lease, begun.head


def test_the_first_offer_asks_for_a_message_and_the_next_do_not(mailbox: Mailbox) -> None:
    assert mailbox.offer("s", "t1", "one") == ("new", 0, True)
    assert mailbox.offer("s", "t2", "two") == ("new", 1, False)
    assert mailbox.offer("s", "t3", "three") == ("new", 2, False)


def test_a_known_turn_is_not_appended_again(mailbox: Mailbox) -> None:
    mailbox.offer("s", "t1", "one")
    mailbox.offer("s", "t2", "two")

    assert mailbox.offer("s", "t2", "two").outcome == "known"

    _, head = begin(mailbox, "s", "t1")
    assert head.waiting == 2


def test_a_known_turn_that_nobody_works_on_asks_for_its_message_again(mailbox: Mailbox) -> None:
    mailbox.offer("s", "t1", "one")

    assert mailbox.offer("s", "t1", "one") == ("known", 0, True)
    begin(mailbox, "s", "t1")
    assert mailbox.offer("s", "t1", "one") == ("known", 0, False)


def test_a_finished_turn_is_done_and_stays_so(mailbox: Mailbox) -> None:
    mailbox.offer("s", "t1", "one")
    lease, _ = begin(mailbox, "s", "t1")
    assert mailbox.finish(lease, "t1", go_on=True).outcome == "empty"

    assert mailbox.offer("s", "t1", "one") == ("done", 0, False)
    assert mailbox.begin("s", "t1", create_token()).outcome == "done"
    assert mailbox.begin("s", "t1", create_token(), payload="one").outcome == "done"


def test_a_result_is_stored_as_its_turn_leaves_the_mailbox(mailbox: Mailbox, redis_client: Redis) -> None:
    mailbox.offer("s", "t1", "one")
    lease, _ = begin(mailbox, "s", "t1")
    key = f"{mailbox._keys.retention}:result"
    listening: Any = redis_client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    with listening:
        listening.subscribe(key)

        finished = mailbox.finish(lease, "t1", go_on=True, results=[Kept(key, "first", 60_000)])
        replayed = mailbox.finish(lease, "t1", go_on=True, results=[Kept(key, "again", 60_000)])

        assert finished == replayed
        assert redis_client.get(key) == b"first"
        assert 0 < redis_client.pttl(key) <= 60_000
        heard = wait_until(listening.get_message, timeout=30, what="the result")
        assert heard["data"] == b"first"
        assert listening.get_message() is None


def test_who_has_lost_the_lease_stores_no_result(mailbox: Mailbox, redis_client: Redis) -> None:
    mailbox.offer("s", "t1", "one")
    lease, _ = begin(mailbox, "s", "t1")
    mailbox.release(lease, delay=60)
    key = f"{mailbox._keys.retention}:result"

    assert mailbox.finish(lease, "t1", go_on=True, results=[Kept(key, "late", 1000)]).outcome == "lost"

    assert redis_client.get(key) is None


def test_an_owner_before_whose_turn_another_was_put_has_lost_it(
    make_mailbox: Callable[..., Mailbox], redis_client: Redis
) -> None:
    mailbox = make_mailbox(lease_seconds=0.05, renew_seconds=0.02)
    mailbox.offer("s", "t2", "two")
    stale, _ = begin(mailbox, "s", "t2")
    accepted = [("t1", "one", ENQUEUE), ("t2", "two", ENQUEUE)]
    wait_until(lambda: mailbox.restore("s", accepted) is not None, timeout=30)
    key = f"{mailbox._keys.retention}:result"

    assert mailbox.finish(stale, "t2", go_on=True, results=[Kept(key, "late", 1000)]).outcome == "lost"

    assert redis_client.get(key) is None
    assert begin_at_last(mailbox)[1] == Head("t1", "one", attempts=1, waiting=2)


def test_a_full_mailbox_refuses_and_changes_nothing(make_mailbox: Callable[..., Mailbox]) -> None:
    mailbox = make_mailbox(max_waiting=2)
    mailbox.offer("s", "t1", "1")
    mailbox.offer("s", "t2", "2")

    assert mailbox.offer("s", "t3", "3") == ("full", 2, False)
    assert mailbox.begin("s", "t3", create_token(), payload="3") == Begun("full", waiting=2)
    assert mailbox.look("s", "t3").state == "unknown"


def test_the_head_is_handed_out_whatever_message_came(mailbox: Mailbox) -> None:
    mailbox.offer("s", "t1", "one")
    mailbox.offer("s", "t2", "two")

    _, head = begin(mailbox, "s", "t2")

    assert head == Head("t1", "one", attempts=1, waiting=2)


def test_a_held_session_is_busy_for_everybody_else(mailbox: Mailbox) -> None:
    mailbox.offer("s", "t1", "one")
    begin(mailbox, "s", "t1")

    assert mailbox.begin("s", "t1", create_token()).outcome == "busy"


def test_the_same_token_again_is_the_same_acquisition(mailbox: Mailbox) -> None:
    mailbox.offer("s", "t1", "one")
    first = begin(mailbox, "s", "t1", "token")
    again = begin(mailbox, "s", "t1", "token")

    assert again == first


def test_a_begin_with_a_payload_appends_an_unknown_turn(mailbox: Mailbox) -> None:
    begun = mailbox.begin("s", "t1", create_token(), payload="one")

    assert begun.head == Head("t1", "one", attempts=1, waiting=1)


def test_a_begin_with_a_payload_parks_while_the_session_is_busy(mailbox: Mailbox) -> None:
    mailbox.offer("s", "t1", "one")
    lease, _ = begin(mailbox, "s", "t1")

    assert mailbox.begin("s", "t2", create_token(), payload="two").outcome == "busy"
    assert mailbox.finish(lease, "t1", go_on=True).head == Head("t2", "two", attempts=1, waiting=1)


def test_an_unknown_turn_without_payload_finds_the_mailbox_empty(mailbox: Mailbox) -> None:
    assert mailbox.begin("s", "t1", create_token()).outcome == "empty"


def test_turns_come_in_the_order_of_their_offers(mailbox: Mailbox) -> None:
    for number in range(5):
        mailbox.offer("s", f"t{number}", str(number))
    lease, head = begin(mailbox, "s", "t0")
    seen = [head.turn_id]
    while (finished := mailbox.finish(lease, seen[-1], go_on=True)).head is not None:
        seen.append(finished.head.turn_id)

    assert seen == ["t0", "t1", "t2", "t3", "t4"]
    assert finished.outcome == "empty"


def test_a_replayed_finish_that_handed_out_the_next_hands_out_the_same(mailbox: Mailbox) -> None:
    mailbox.offer("s", "t1", "one")
    mailbox.offer("s", "t2", "two")
    lease, _ = begin(mailbox, "s", "t1")
    first = mailbox.finish(lease, "t1", go_on=True)

    assert mailbox.finish(lease, "t1", go_on=True) == first
    assert first.head == Head("t2", "two", attempts=1, waiting=1)


@pytest.mark.parametrize("waiting", [0, 1])
def test_a_replayed_finish_that_released_answers_the_same(mailbox: Mailbox, waiting: int) -> None:
    for number in range(1 + waiting):
        mailbox.offer("s", f"t{number}", str(number))
    lease, _ = begin(mailbox, "s", "t0")
    first = mailbox.finish(lease, "t0", go_on=False)

    assert mailbox.finish(lease, "t0", go_on=False) == first
    assert first.outcome == ("yield" if waiting else "empty")


def test_a_yield_names_the_next_turn_and_lets_anybody_in(mailbox: Mailbox) -> None:
    mailbox.offer("s", "t1", "one")
    mailbox.offer("s", "t2", "two")
    lease, _ = begin(mailbox, "s", "t1")

    assert mailbox.finish(lease, "t1", go_on=False) == ("yield", None, "t2")
    _, head = begin(mailbox, "s", "t2")
    assert head.turn_id == "t2"


def test_the_fence_grows_with_each_owner_also_when_redis_forgot(
    mailbox: Mailbox, redis_url: str, key_prefix: str
) -> None:
    fences = []
    for number in range(3):
        mailbox.offer("s", f"t{number}", "x")
        lease, _ = begin(mailbox, "s", f"t{number}")
        fences.append(lease.fence)
        mailbox.finish(lease, f"t{number}", go_on=True)
        if number == 1:
            with connect(load_settings(redis_url=redis_url)) as client:
                for key in client.scan_iter(match=f"{key_prefix}*"):
                    client.delete(key)

    assert fences == sorted(set(fences))


def test_a_lapsed_lease_is_not_revived_and_the_next_owner_gets_the_same_turn(
    make_mailbox: Callable[..., Mailbox],
) -> None:
    mailbox = make_mailbox(lease_seconds=0.05, renew_seconds=0.02)
    mailbox.offer("s", "t1", "one")
    stale, _ = begin(mailbox, "s", "t1")
    fresh, head = begin_at_last(mailbox)

    mailbox.renew_all([stale])

    assert stale.lost
    assert head == Head("t1", "one", attempts=2, waiting=1)
    assert fresh.fence > stale.fence
    assert mailbox.finish(stale, "t1", go_on=True).outcome == "lost"
    assert not mailbox.release(stale, delay=1)
    assert mailbox.look("s", "t1").state in ("running", "waiting")


def test_a_renewed_lease_outlives_its_first_term(make_mailbox: Callable[..., Mailbox]) -> None:
    mailbox = make_mailbox(lease_seconds=0.5, renew_seconds=0.1)
    mailbox.offer("s", "t1", "one")
    lease, _ = begin(mailbox, "s", "t1")
    renewals = 0
    done = threading.Event()
    threading.Timer(1.2, done.set).start()
    while not done.wait(0.1):
        mailbox.renew_all([lease])
        renewals += 1

    assert not lease.lost
    assert renewals > 5
    assert mailbox.begin("s", "t1", create_token()).outcome == "busy"


def test_released_with_a_delay_the_session_sleeps_and_keeps_its_order(
    make_mailbox: Callable[..., Mailbox],
) -> None:
    mailbox = make_mailbox()
    mailbox.offer("s", "t1", "one")
    lease, _ = begin(mailbox, "s", "t1")
    assert mailbox.release(lease, delay=0.2)
    assert mailbox.release(lease, delay=0.2), "a replay answers the same"
    mailbox.offer("s", "t2", "two")

    assert mailbox.begin("s", "t2", create_token()).outcome == "busy"
    assert wait_until(lambda: list(mailbox.sweep())) == [("s", "t1", False)]
    _, head = begin(mailbox, "s", "t1")
    assert head == Head("t1", "one", attempts=2, waiting=2)


def test_a_release_that_does_not_count_gives_the_attempt_back(mailbox: Mailbox) -> None:
    mailbox.offer("s", "t1", "one")
    lease, head = begin(mailbox, "s", "t1")
    assert head.attempts == 1
    mailbox.release(lease, delay=0.001, counts=False)

    _, head = begin_at_last(mailbox)
    assert head.attempts == 1


def test_a_sweep_wakes_a_crashed_session_once_and_urgently(make_mailbox: Callable[..., Mailbox]) -> None:
    mailbox = make_mailbox(lease_seconds=0.05, renew_seconds=0.02)
    mailbox.offer("s", "t1", "one")
    begin(mailbox, "s", "t1")

    assert wait_until(lambda: list(mailbox.sweep())) == [("s", "t1", True)]
    assert list(mailbox.sweep()) == []


def test_a_sweep_leaves_a_session_alone_while_its_lease_lives(make_mailbox: Callable[..., Mailbox]) -> None:
    mailbox = make_mailbox(grace_seconds=1)
    mailbox.offer("s", "t1", "one")
    begin(mailbox, "s", "t1")

    assert list(mailbox.sweep()) == []


def test_a_sweep_wakes_a_session_whose_message_was_lost(make_mailbox: Callable[..., Mailbox]) -> None:
    mailbox = make_mailbox(grace_seconds=0.05, sweep_seconds=0.01)
    mailbox.offer("s", "t1", "one")

    assert wait_until(lambda: list(mailbox.sweep())) == [("s", "t1", False)]


def test_many_sweepers_wake_each_session_once(make_mailbox: Callable[..., Mailbox]) -> None:
    settings = {"lease_seconds": 0.05, "renew_seconds": 0.02}
    mailbox = make_mailbox(**settings)
    for number in range(300):
        mailbox.offer(f"s{number}", "t", "x")
        begin(mailbox, f"s{number}", "t")
    woken: list[str] = []
    sweepers = [make_mailbox(**settings) for _ in range(6)]
    barrier = threading.Barrier(len(sweepers))
    last = mailbox.begin("s299", "t", create_token())
    wait_until(lambda: last.outcome == "ok" or mailbox.begin("s299", "t", create_token()).outcome == "ok")

    def sweep(own: Mailbox) -> None:
        barrier.wait()
        woken.extend(kicked.session_id for kicked in own.sweep(limit=3))

    threads = [threading.Thread(target=sweep, args=(own,)) for own in sweepers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(woken) == len(set(woken))
    assert set(woken) >= {f"s{number}" for number in range(299)}


def test_a_cancelled_waiting_turn_never_runs_and_does_not_come_back(mailbox: Mailbox) -> None:
    for turn in ("t1", "t2", "t3"):
        mailbox.offer("s", turn, turn)

    assert mailbox.cancel("s", "t2") == "dropped"
    assert mailbox.offer("s", "t2", "again").outcome == "done"
    lease, _ = begin(mailbox, "s", "t1")
    assert mailbox.finish(lease, "t1", go_on=True).head == Head("t3", "t3", attempts=1, waiting=1)


def test_a_cancelled_running_turn_is_signalled_to_its_owner(mailbox: Mailbox) -> None:
    mailbox.offer("s", "t1", "one")
    lease, _ = begin(mailbox, "s", "t1")

    assert mailbox.cancel("s", "t1") == "signalled"
    mailbox.renew_all([lease])
    assert lease.stop == "t1"
    assert mailbox.cancel("s", "nobody") == "unknown"


def test_waiting_names_exactly_the_sessions_that_have_turns(mailbox: Mailbox) -> None:
    mailbox.offer("a", "t1", "x")
    mailbox.offer("b", "t1", "x")
    lease, _ = begin(mailbox, "b", "t1")
    mailbox.finish(lease, "t1", go_on=True)

    assert mailbox.waiting(["a", "b", "c"]) == {"a"}


def test_looking_tells_where_a_turn_stands(mailbox: Mailbox) -> None:
    mailbox.offer("s", "t1", "x")
    mailbox.offer("s", "t2", "x")
    assert mailbox.look("s", "t2") == ("waiting", 1)
    lease, _ = begin(mailbox, "s", "t1")
    assert mailbox.look("s", "t1") == ("running", 0)
    mailbox.finish(lease, "t1", go_on=True)
    assert mailbox.look("s", "t1") == ("done", 0)
    assert mailbox.look("s", "t9") == ("unknown", 0)


def test_many_threads_offering_and_driving_lose_and_double_nothing(
    make_mailbox: Callable[..., Mailbox],
) -> None:
    mailbox = make_mailbox()
    turns = [[f"{producer}-{number}" for number in range(50)] for producer in range(4)]
    ran: list[str] = []
    stop = threading.Event()

    def produce(own: list[str]) -> None:
        for turn in own:
            mailbox.offer("s", turn, turn)
            mailbox.offer("s", turn, turn)

    def consume() -> None:
        while not stop.is_set():
            begun = mailbox.begin("s", "any", create_token())
            head = begun.head
            while head is not None and begun.lease is not None:
                ran.append(head.turn_id)
                head = mailbox.finish(begun.lease, head.turn_id, go_on=len(ran) % 7 != 0).head

    consumers = [threading.Thread(target=consume) for _ in range(3)]
    producers = [threading.Thread(target=produce, args=(own,)) for own in turns]
    for thread in [*consumers, *producers]:
        thread.start()
    for thread in producers:
        thread.join()
    wait_until(lambda: len(ran) >= 200)
    stop.set()
    for thread in consumers:
        thread.join()

    assert sorted(ran) == sorted(turn for own in turns for turn in own)
    for own in turns:
        assert [turn for turn in ran if turn in set(own)] == own


def test_scripts_are_loaded_again_after_the_server_forgot_them(mailbox: Mailbox, redis_url: str) -> None:
    mailbox.offer("s", "t1", "x")
    with connect(load_settings(redis_url=redis_url)) as client:
        client.script_flush()

    assert mailbox.offer("s", "t2", "x").outcome == "new"
    with connect(load_settings(redis_url=redis_url)) as client:
        client.script_flush()
    assert list(mailbox.sweep()) == []


def test_a_redis_that_is_away_is_named_as_such() -> None:
    settings = load_settings(redis_url="redis://127.0.0.1:1/0")
    with connect(settings) as client, pytest.raises(MailboxUnavailableError, match="same turn ID"):
        Mailbox(client, settings).offer("s", "t", "x")


def begin_at_last(mailbox: Mailbox) -> tuple[Lease, Head]:
    begun = wait_until(
        lambda: got if (got := mailbox.begin("s", "t1", create_token())).outcome == "ok" else None
    )
    assert begun is not None
    assert begun.lease is not None
    assert begun.head is not None
    return begun.lease, begun.head


def test_a_wake_up_that_cannot_be_sent_is_given_back_with_all_after_it(
    make_mailbox: Callable[..., Mailbox],
) -> None:
    mailbox = make_mailbox(grace_seconds=0.05, sweep_seconds=0.01)
    for number in range(5):
        mailbox.offer(f"s{number}", "t1", "x")
    broken = True
    woken: list[str] = []

    def wake(kicked: Kicked) -> None:
        if broken:
            raise ConnectionError("the broker is away")
        woken.append(kicked.session_id)

    sweeper = Sweeper(mailbox, wake, 0.01)

    def fails() -> bool:
        try:
            return sweeper.sweep() > 0
        except ConnectionError:
            return True

    for _ in range(8):  # each would have doubled the wait
        wait_until(fails)
    broken = False

    wait_until(lambda: sweeper.sweep() >= 0 and len(woken) == 5, timeout=5)
    assert sorted(woken) == [f"s{number}" for number in range(5)]
