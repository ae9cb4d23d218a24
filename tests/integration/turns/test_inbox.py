"""The inbox: what it keeps, in which order, on each kind of database, and how turns come back from it."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path

import psycopg
import pytest
from redis import Redis

from inturn.accepting import Acceptor, open_inbox
from inturn.embedded.ports import free_port
from inturn.errors import ConfigurationError, MailboxUnavailableError
from inturn.persistence.inbox import Inbox
from inturn.settings import Settings, load_settings
from inturn.turns import Mailbox
from inturn.turns.connection import connect
from inturn.turns.lease import create_token
from inturn.turns.overlap import ENQUEUE, Overlap
from worker.inbox import InboxKeeper

MERGE = Overlap("merge", "ada", 500, 0)


@pytest.fixture(params=["sqlite", "postgresql"])
def inbox_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'inbox.db'}"
        return
    server = request.getfixturevalue("database_url")
    name = f"inbox_{secrets.token_hex(4)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield server.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def inbox(inbox_url: str) -> Iterator[Inbox]:
    inbox = Inbox(inbox_url)
    yield inbox
    inbox.close()


def put(inbox: Inbox, session_id: str, *turn_ids: str, overlap: Overlap = ENQUEUE) -> None:
    for turn_id in turn_ids:
        assert inbox.put(session_id, turn_id, f"payload of {turn_id}", astuple(overlap))


def ids(inbox: Inbox, session_id: str) -> list[str]:
    return [turn.turn_id for turn in inbox.turns(session_id)]


def test_turns_are_kept_in_order_of_acceptance_and_once(inbox: Inbox) -> None:
    put(inbox, "s", "t2", "t1", "t3")
    put(inbox, "other", "t1")
    assert not inbox.put("s", "t1", "another payload", astuple(MERGE))

    assert ids(inbox, "s") == ["t2", "t1", "t3"]
    turn = inbox.turns("s")[1]
    assert (turn.payload, Overlap(*turn.overlap)) == ("payload of t1", ENQUEUE)
    assert inbox.count("s") == 3
    assert inbox.has("s", "t3")
    assert inbox.remove("s", ["t1", "unknown"]) == 1
    assert inbox.remove("s", []) == 0
    assert ids(inbox, "s") == ["t2", "t3"]
    assert ids(inbox, "other") == ["t1"]
    put(inbox, "s", "t1")
    assert ids(inbox, "s") == ["t2", "t3", "t1"], "who comes again is the last"
    assert inbox.remove_session("s") == 3
    assert inbox.among(["s", "other", "none"]) == {"other"}


def test_what_is_next_is_told_of_single_and_merged_turns(inbox: Inbox) -> None:
    put(inbox, "s", "a", "b", "c")
    assert inbox.is_next("s", ["a"])
    assert inbox.is_next("s", ["a", "b"])
    assert not inbox.is_next("s", ["b"])
    assert not inbox.is_next("s", ["a", "c"]), "b belongs between them"
    assert inbox.is_next("s", ["somebody else's"]), "of it nothing is known here"
    assert inbox.is_next("none", ["a"])


def test_ids_of_any_length_and_any_text_are_told_apart(inbox: Inbox) -> None:
    long = "x" * 3000
    put(inbox, "s", long + "1", long + "2", "日本語", "'; DROP TABLE agent_inbox; --")
    assert ids(inbox, "s") == [long + "1", long + "2", "日本語", "'; DROP TABLE agent_inbox; --"]
    assert inbox.remove("s", [long + "1"]) == 1
    assert not inbox.has("s", long + "1")
    assert inbox.has("s", long + "2")


def test_large_payloads_are_read_a_few_at_a_time(inbox: Inbox) -> None:
    for number in range(6):
        inbox.put("s", f"t{number}", "x" * 1_500_000, astuple(ENQUEUE))
    assert ids(inbox, "s") == ["t0", "t1"]


def test_sessions_are_paged_up_to_a_place(inbox: Inbox) -> None:
    put(inbox, "b", "t1", "t2")
    put(inbox, "a", "t1")
    newest = inbox.newest()
    put(inbox, "c", "t1")
    put(inbox, "a", "t2")
    assert inbox.sessions(newest) == ["a", "b"]
    assert inbox.sessions(newest, limit=1) == ["a"]
    assert inbox.sessions(newest, after="a", limit=1) == ["b"]
    assert inbox.sessions(newest, after="b") == []


def test_many_processes_may_begin_at_once(inbox_url: str) -> None:
    inboxes = [Inbox(inbox_url) for _ in range(8)]
    failures: list[BaseException] = []

    def begin(inbox: Inbox, number: int) -> None:
        try:
            inbox.put("s", f"t{number}", "", astuple(ENQUEUE))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=begin, args=(inbox, number)) for number, inbox in enumerate(inboxes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert inboxes[0].count("s") == 8
    for inbox in inboxes:
        inbox.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mongodb://127.0.0.1/db", "INTURN_INBOX_URL"),
        ("memory://", "INTURN_INBOX_URL"),
        ("redis://127.0.0.1/0", "INTURN_INBOX_URL"),
        ("sqlite:///:memory:", "outlives"),
        ("sqlite://", "outlives"),
    ],
)
def test_a_database_that_cannot_keep_it_is_refused(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        open_inbox(load_settings(inbox="database", database_url=url))
    other = load_settings(inbox="database", database_url=url, inbox_url="sqlite:///inbox.db")
    inbox = open_inbox(other)
    assert inbox is not None
    inbox.close()
    assert open_inbox(load_settings(database_url=url)) is None


class Both:
    """An inbox and a mailbox, and how often turns are taken in."""

    def __init__(self, inbox: Inbox, mailbox: Mailbox, settings: Settings) -> None:
        self.inbox = inbox
        self.mailbox = mailbox
        self.keeper = InboxKeeper(inbox, mailbox, every=60)
        self.acceptor = Acceptor(mailbox, settings)

    def offer(self, *turn_ids: str, overlap: Overlap = ENQUEUE) -> list[str]:
        return [
            self.acceptor.offer("s", turn_id, f"payload of {turn_id}", overlap).outcome
            for turn_id in turn_ids
        ]

    def lose(self, redis: Redis, prefix: str) -> None:
        redis.delete(*redis.keys(f"{prefix}*"))


@pytest.fixture
def both(
    inbox: Inbox, inbox_url: str, make_mailbox: Callable[..., Mailbox], turn_settings: Callable[..., Settings]
) -> Iterator[Both]:
    settings = turn_settings(inbox="database", database_url=inbox_url, max_waiting=5)
    both = Both(inbox, make_mailbox(max_waiting=5), settings)
    yield both
    both.acceptor.close()


def run_all(both: Both, *, most: int = 20) -> list[str]:
    """Drive the session to its end; what ran, in order. Restores as a worker does."""
    ran: list[str] = []
    for _ in range(most):
        begun = both.mailbox.begin("s", "any", create_token())
        if begun.head is None or begun.lease is None:
            break
        if not both.inbox.is_next("s", begun.head.turn_ids):
            both.mailbox.release(begun.lease, delay=0.001, counts=False)
            assert both.keeper.restore("s")
            continue
        ran += begun.head.turn_ids
        both.mailbox.finish(begun.lease, begun.head.turn_id, go_on=False)
        both.inbox.remove("s", begun.head.turn_ids)
    return ran


def test_a_turn_is_taken_in_by_both_and_leaves_both(both: Both) -> None:
    assert both.offer("a", "b", "a") == ["new", "new", "known"]
    assert ids(both.inbox, "s") == both.mailbox.queue("s") == ["a", "b"]
    assert run_all(both) == ["a", "b"]
    assert ids(both.inbox, "s") == both.mailbox.queue("s") == []
    assert both.offer("a") == ["done"]
    assert ids(both.inbox, "s") == []


def test_after_a_loss_everything_runs_in_its_order_though_new_turns_came_first(
    both: Both, redis_client: Redis, key_prefix: str
) -> None:
    both.offer("a", "b")
    both.lose(redis_client, key_prefix)
    both.offer("c")
    assert both.mailbox.queue("s") == ["c"]
    assert run_all(both) == ["a", "b", "c"]
    assert ids(both.inbox, "s") == []


def test_after_a_loss_a_session_that_nobody_drives_is_found_and_due(
    both: Both, redis_client: Redis, key_prefix: str
) -> None:
    both.offer("a", "b")
    both.lose(redis_client, key_prefix)
    assert both.keeper.look() == 0, "perhaps their producer is about to offer them"
    assert both.keeper.look() == 1
    assert [kicked.turn_id for kicked in both.mailbox.sweep()] == ["a"]
    assert both.keeper.look() == 0
    assert run_all(both) == ["a", "b"]


def test_a_turn_whose_producer_died_between_the_two_is_found(both: Both) -> None:
    put(both.inbox, "s", "a")
    both.keeper.look()
    both.keeper.look()
    assert both.mailbox.queue("s") == ["a"]
    assert both.offer("a") == ["known"]
    assert run_all(both) == ["a"]


def test_one_that_died_between_the_two_is_found_by_who_drives_what_came_later(both: Both) -> None:
    put(both.inbox, "s", "a")
    both.offer("b")
    assert run_all(both) == ["a", "b"]


def test_an_owner_that_died_before_it_took_its_turn_out_of_the_inbox_runs_nothing_twice(both: Both) -> None:
    both.offer("a")
    begun = both.mailbox.begin("s", "a", create_token())
    assert begun.lease is not None
    both.mailbox.finish(begun.lease, "a", go_on=True)
    both.offer("b")
    assert run_all(both) == ["b"]
    assert ids(both.inbox, "s") == []


def test_the_same_of_a_session_that_is_idle_since(both: Both) -> None:
    both.offer("a")
    begun = both.mailbox.begin("s", "a", create_token())
    assert begun.lease is not None
    both.mailbox.finish(begun.lease, "a", go_on=True)
    both.keeper.look()
    both.keeper.look()
    assert both.mailbox.queue("s") == []
    assert ids(both.inbox, "s") == []


def test_nothing_is_moved_under_an_owner(both: Both) -> None:
    both.offer("b")
    begun = both.mailbox.begin("s", "b", create_token())
    assert begun.lease is not None
    put(both.inbox, "s", "c")
    assert not both.keeper.restore("s")
    assert both.mailbox.queue("s") == ["b"]
    assert both.mailbox.finish(begun.lease, "b", go_on=True).outcome == "empty"


@pytest.mark.leaves_keys("*")
def test_turns_that_only_the_mailbox_has_keep_their_places(both: Both) -> None:
    mailbox = both.mailbox
    mailbox.offer("s", "x", "")
    both.offer("b")
    mailbox.offer("s", "y", "")
    put(both.inbox, "s", "c")
    assert both.keeper.restore("s")
    assert mailbox.queue("s") == ["x", "b", "c", "y"]
    assert both.keeper.restore("s")
    assert mailbox.queue("s") == ["x", "b", "c", "y"]


@pytest.mark.leaves_keys("*")
def test_a_head_that_sleeps_sleeps_on_and_one_that_is_overtaken_wakes(both: Both) -> None:
    put(both.inbox, "s", "a")
    both.offer("b")
    begun = both.mailbox.begin("s", "b", create_token())
    assert begun.lease is not None
    both.mailbox.release(begun.lease, delay=60)
    both.keeper.restore("s")
    assert both.mailbox.queue("s") == ["a", "b"]
    begun = both.mailbox.begin("s", "b", create_token())
    assert begun.head is not None
    assert begun.head.turn_id == "a", "what slept was the turn behind it"
    assert begun.lease is not None
    both.mailbox.release(begun.lease, delay=60)
    both.keeper.restore("s")
    assert both.mailbox.begin("s", "b", create_token()).outcome == "busy"
    assert list(both.mailbox.sweep()) == []


@pytest.mark.leaves_keys("*")
def test_merged_turns_come_back_as_one(both: Both, redis_client: Redis, key_prefix: str) -> None:
    both.offer("a", "b", overlap=MERGE)
    both.lose(redis_client, key_prefix)
    both.offer("c", overlap=MERGE)
    begun = both.mailbox.begin("s", "c", create_token())
    assert begun.lease is not None
    both.mailbox.release(begun.lease, delay=0.001, counts=False)
    both.keeper.restore("s")
    begun = both.mailbox.begin("s", "c", create_token())
    assert begun.head is not None
    assert begun.head.turn_ids == ["a", "b", "c"]


@pytest.mark.leaves_keys("*")
def test_what_is_refused_is_in_neither(both: Both) -> None:
    assert both.offer("a", "b", "c", "d", "e", "f") == ["new"] * 5 + ["full"]
    assert both.offer("r", overlap=Overlap("reject")) == ["rejected"]
    assert ids(both.inbox, "s") == both.mailbox.queue("s") == ["a", "b", "c", "d", "e"]
    assert both.offer("a") == ["known"]


def test_what_is_dropped_is_in_neither_wherever_it_was(
    both: Both, redis_client: Redis, key_prefix: str
) -> None:
    both.offer("a", "b")
    assert both.acceptor.cancel("s", "b") == "dropped"
    both.lose(redis_client, key_prefix)
    assert both.acceptor.state("s", "a") == "waiting"
    assert both.acceptor.cancel("s", "a") == "dropped"
    assert both.acceptor.state("s", "a") == "unknown"
    assert both.acceptor.cancel("s", "a") == "unknown"
    assert ids(both.inbox, "s") == []
    assert run_all(both) == []


def test_a_turn_that_has_ended_is_not_dropped_though_the_inbox_still_has_it(both: Both) -> None:
    both.offer("a")
    begun = both.mailbox.begin("s", "a", create_token())
    assert begun.lease is not None
    both.mailbox.finish(begun.lease, "a", go_on=True)
    assert both.acceptor.cancel("s", "a") == "unknown"


def test_while_redis_is_away_turns_are_accepted_up_to_the_limit(
    inbox_url: str,
) -> None:
    settings = load_settings(
        redis_url=f"redis://127.0.0.1:{free_port()}/0",
        inbox="database",
        database_url=inbox_url,
        max_waiting=2,
    )
    redis = connect(settings, timeout=0.5, retries=0)
    acceptor = Acceptor(Mailbox(redis, settings), settings)
    assert [acceptor.offer("s", turn_id, "").outcome for turn_id in ("a", "b", "a", "c")] == [
        *("new", "new", "known", "full")
    ]
    with pytest.raises(MailboxUnavailableError):
        acceptor.cancel("s", "a")
    acceptor.close()
    redis.close()
    inbox = Inbox(inbox_url)
    assert ids(inbox, "s") == ["a", "b"]
    inbox.close()
