"""Dead letters in Redis: kept once, in order, bounded, gone with their session; and how they run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import pytest
from redis import Redis

from inturn.client import Client
from inturn.contract import DeadLetter, RespondPayload, TurnFault
from inturn.dead_turns import retry_id
from inturn.errors import InvalidInputError, MailboxFullError, OverloadedError
from inturn.ids import create_turn_id
from inturn.session.state import utcnow
from inturn.settings import Settings
from inturn.turns import DeadLetters, Mailbox
from inturn.turns.connection import connect
from inturn.turns.keys import BUCKETS, Keys
from inturn.turns.lease import create_token
from tests.waiting import wait_until

MakeLetters = Callable[..., DeadLetters]
SECRET = "my number is +49 151"


@pytest.fixture
def make_letters(turn_settings: Callable[..., Settings]) -> Iterator[MakeLetters]:
    clients = []

    def make(**overrides: object) -> DeadLetters:
        settings = turn_settings(**overrides)
        clients.append(connect(settings))
        return DeadLetters(clients[-1], settings)

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def letters(make_letters: MakeLetters) -> DeadLetters:
    return make_letters()


@pytest.fixture
def make_client(turn_settings: Callable[..., Settings]) -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def make(**overrides: object) -> Client:
        clients.append(
            Client(turn_settings(broker_url="memory://", result_backend="cache+memory://", **overrides))
        )
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def letter(session_id: str, turn_id: str, error: str = "ProviderError", **more: object) -> DeadLetter:
    fault = TurnFault(type=error, message="refused", attempts=3)
    return DeadLetter.model_validate({"session_id": session_id, "turn_id": turn_id, "error": fault, **more})


def bury(letters: DeadLetters, session_id: str, *turn_ids: str, error: str = "ProviderError") -> None:
    for turn_id in turn_ids:
        assert letters.put(letter(session_id, turn_id, error), payload(session_id, turn_id))


def payload(session_id: str, message: str) -> str:
    return RespondPayload(session_id=session_id, message=message).model_dump_json(exclude_none=True)


def names(found: Iterator[DeadLetter] | Sequence[DeadLetter]) -> list[str]:
    return [each.turn_id for each in found]


def test_a_turn_is_kept_once_and_as_it_was_first(letters: DeadLetters) -> None:
    first = letter("s: 1%", "s:e1", kind="respond", channel="slack", user_id="u", payload_bytes=9)

    assert letters.put(first, SECRET)
    assert not letters.put(letter("s: 1%", "s:e1", "Other"), "other")

    [found] = letters.letters()
    assert found.model_copy(update={"failed_at": first.failed_at}) == first
    assert letters.get("s: 1%", "s:e1") == found
    assert abs(found.failed_at - first.failed_at) < timedelta(minutes=1)
    assert letters.payload("s: 1%", "s:e1") == SECRET


def test_those_of_a_session_stay_in_order_and_apart_from_its_neighbours(letters: DeadLetters) -> None:
    neighbour = next(f"n{n}" for n in range(10_000) if Keys("x").of_dead(f"n{n}") == Keys("x").of_dead("s"))
    order = [f"s:{number}" for number in (3, 1, 2)]
    for turn_id in order:
        bury(letters, "s", turn_id)
        bury(letters, neighbour, turn_id)

    assert names(letters.letters("s")) == order
    assert len(list(letters.letters())) == 6
    assert letters.remove("s", "s:1")
    assert not letters.remove("s", "s:1")
    assert letters.get("s", "s:1") is None
    assert letters.payload("s", "s:1") is None
    assert letters.remove_session("s") == 2
    assert names(letters.letters(neighbour)) == order
    assert letters.remove_session("s") == 0


def test_many_sessions_go_together(letters: DeadLetters) -> None:
    for number in range(200):
        bury(letters, f"s{number}", f"s{number}:1")

    assert letters.remove_sessions(f"s{number}" for number in range(1, 300)) == 199
    assert names(letters.letters()) == ["s0:1"]
    assert letters.remove_sessions([]) == 0


def test_a_letter_that_is_gone_leaves_no_key(
    letters: DeadLetters, redis_client: Redis, key_prefix: str
) -> None:
    bury(letters, "s", "s:1")
    assert len(list(redis_client.scan_iter(f"{key_prefix}*"))) == 3

    letters.remove("s", "s:1")

    assert list(redis_client.scan_iter(f"{key_prefix}*")) == []


def test_the_oldest_make_room_and_all_expire(
    make_letters: MakeLetters, redis_client: Redis, key_prefix: str
) -> None:
    letters = make_letters(max_dead=5 * BUCKETS, dead_days=2)
    bury(letters, "s", *(f"s:{number}" for number in range(9)))

    assert names(letters.letters("s")) == [f"s:{number}" for number in range(4, 9)]
    keys = list(redis_client.scan_iter(f"{key_prefix}*"))
    assert [redis_client.zcard(key) if key.endswith(b"dead") else redis_client.hlen(key) for key in keys] == [
        5
    ] * 3
    assert all(86_400 < redis_client.ttl(key) <= 2 * 86_400 for key in keys)


def test_one_that_is_too_old_is_seen_no_more_and_goes_with_the_next(
    make_letters: MakeLetters, redis_client: Redis, key_prefix: str
) -> None:
    letters = make_letters(dead_days=30)
    bury(letters, "s", "s:old")
    index, facts, _ = Keys(key_prefix).of_dead("s")
    redis_client.zincrby(index, -31 * 86_400_000, "s s:old")

    assert names(letters.letters()) == []
    assert letters.get("s", "s:old") is None
    bury(letters, "s", "s:new")
    assert redis_client.hkeys(facts) == [b"s s:new"]


def test_what_was_said_is_in_no_listing(letters: DeadLetters, redis_client: Redis, key_prefix: str) -> None:
    letters.put(letter("s", "s:1"), SECRET)

    assert SECRET not in repr(list(letters.letters()))
    for key in Keys(key_prefix).of_dead("s")[:2]:
        assert SECRET.encode() not in (redis_client.dump(key) or b"")


@pytest.mark.leaves_keys("*:t:*", "*:q:*", "*:active", "*:depth")
def test_a_retry_is_a_new_turn_behind_those_that_wait_and_adds_nothing_twice(
    make_client: Callable[..., Client], letters: DeadLetters, mailbox: Mailbox
) -> None:
    client = make_client()
    waits = client.respond("s", "waits").turn_id
    bury(letters, "s", "s:1")
    [dead] = client.dead.find()
    offered = client.dead.payload(dead)

    turn = client.dead.retry(dead)

    assert turn is not None
    assert (turn.turn_id, turn.accepted, turn.ahead) == ("s:1~2", True, 1)
    assert mailbox.queue("s") == [waits, "s:1~2"]
    assert [item.payload for item in mailbox.items("s")][1] == offered
    assert client.dead.find() == []
    assert client.dead.retry(dead) is None, "somebody else may have been faster"
    # As after a death between the offer and the removal.
    bury(letters, "s", "s:1")
    again = client.dead.retry(dead)
    assert again is not None
    assert (again.turn_id, again.accepted) == ("s:1~2", False)
    assert mailbox.queue("s") == [waits, "s:1~2"]
    assert client.dead.find() == []


@pytest.mark.leaves_keys("*:t:*", "*:q:*", "*:active", "*:depth")
def test_where_a_session_is_full_its_others_stay_and_other_sessions_go_on(
    make_client: Callable[..., Client], letters: DeadLetters, mailbox: Mailbox
) -> None:
    client = make_client(max_waiting=2)
    bury(letters, "full", *(f"full:{number}" for number in range(4)))
    bury(letters, "free", "free:1")

    ended = list(client.dead.retry_all(client.dead.find()))

    kept = [each for each in ended if each.turn is None]
    assert names([each.letter for each in kept]) == ["full:2", "full:3"]
    assert {type(each.error) for each in kept} == {MailboxFullError}
    assert len(ended) == 5
    assert mailbox.queue("full") == ["full:0~2", "full:1~2"]
    assert names(client.dead.find()) == ["full:2", "full:3"]


@pytest.mark.leaves_keys("*")
def test_where_too_many_wait_in_all_the_rest_stay(
    make_client: Callable[..., Client], letters: DeadLetters, mailbox: Mailbox
) -> None:
    mailbox.offer("busy", "busy:1", "a turn")
    bury(letters, "a", "a:1")
    bury(letters, "b", "b:1")
    client = make_client(max_waiting_total=1)

    ended = list(client.dead.retry_all(client.dead.find()))

    assert [type(each.error) for each in ended] == [OverloadedError] * 2
    assert names(client.dead.find()) == ["a:1", "b:1"]


@pytest.mark.leaves_keys("*")
def test_messages_that_were_one_turn_become_one_again_and_nothing_else_with_them(
    make_client: Callable[..., Client], letters: DeadLetters, mailbox: Mailbox
) -> None:
    client = make_client(overlap="merge")
    for turn_id in ("s:1", "s:2"):
        letters.put(letter("s", turn_id, merged_into="s:1"), payload("s", turn_id))

    list(client.dead.retry_all(client.dead.find()))
    client.respond("s", "said since", turn_id="3", overlap="merge")
    begun = mailbox.begin("s", "", create_token())

    assert begun.head is not None
    assert begun.head.turn_ids == ["s:1~2", "s:2~2"]


@pytest.mark.leaves_keys("*")
def test_a_payload_that_nobody_reads_is_offered_as_it_is(
    make_client: Callable[..., Client], letters: DeadLetters, mailbox: Mailbox
) -> None:
    letters.put(letter("s", "s:1", merged_into="s:1"), "\x1b[2J nonsense")
    client = make_client()

    list(client.dead.retry_all(client.dead.find()))

    assert [item.payload for item in mailbox.items("s")] == ["\x1b[2J nonsense"]


def test_they_are_found_by_session_error_and_time(
    make_client: Callable[..., Client], letters: DeadLetters
) -> None:
    bury(letters, "a", "a:1", error="One")
    first = next(letters.letters()).failed_at
    wait_until(lambda: utcnow() - first > timedelta(milliseconds=2))
    bury(letters, "b", "b:1", "no-session-in-it", error="Other")
    dead = make_client().dead
    middle = dead.find()[1].failed_at

    assert names(dead.find()) == ["a:1", "b:1", "no-session-in-it"]
    assert names(dead.find("b")) == ["b:1", "no-session-in-it"]
    assert names(dead.find(error="One")) == ["a:1"]
    assert names(dead.find(since=middle)) == ["b:1", "no-session-in-it"]
    assert names(dead.find(until=middle)) == ["a:1"]
    for turn_id, session_id in (
        ("b:1", None),
        ("b:1", "b"),
        ("1", "b"),
        ("no-session-in-it", None),
        ("no-session-in-it", "b"),
    ):
        found = dead.get(turn_id, session_id)
        assert found is not None, turn_id
        assert found.session_id == "b"
    for turn_id, session_id in (("c:1", None), ("nowhere", None), ("b:1", "a")):
        assert dead.get(turn_id, session_id) is None


@pytest.mark.parametrize(
    ("turn_id", "expected"),
    [
        ("s:1", "s:1~2"),
        ("s:1~2", "s:1~3"),
        ("s:1~9", "s:1~10"),
        ("s:1~1", "s:1~1~2"),
        ("s:1~x", "s:1~x~2"),
        ("s:1~٣", "s:1~٣~2"),
        ("bare-uuid", "s:bare-uuid~2"),
    ],
)
def test_the_id_of_a_retry_follows_from_the_one_before(turn_id: str, expected: str) -> None:
    assert retry_id("s", turn_id) == expected


@pytest.mark.parametrize("turn_id", ["s:" + "x" * 255, "no\x00where", "y" * 1000])
def test_an_id_that_cannot_be_continued_gets_one_that_can(turn_id: str) -> None:
    with pytest.raises(InvalidInputError):
        create_turn_id("s", f"{turn_id}~2")

    first = retry_id("s", turn_id)
    assert first == retry_id("s", turn_id) != retry_id("s", f"{turn_id}z")
    assert first.endswith("~2")
    assert retry_id("s", first) == first.removesuffix("~2") + "~3"
