"""Turns that hang: no slot and no session waits for them, and healthy ones are never hit."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from inturn.client import Client
from inturn.errors import TurnFailedError, TurnTimeLimitError
from inturn.persistence import MessageQuery, PersistenceAdapter
from tests.integration.worker.conftest import StartWorker
from tests.waiting import wait_until
from worker.time_limit import TimeLimit, check_abandoned

POOLS = ["threads", "gevent", "prefork"]


@pytest.fixture
def worker_env(worker_env: dict[str, str], fast: dict[str, str]) -> dict[str, str]:
    return {
        **worker_env,
        **fast,
        "INTURN_AGENT": "tests.hanging_agents:agent",
        "INTURN_TURN_SECONDS": "1",
        "INTURN_MAX_ATTEMPTS": "2",
    }


@pytest.mark.process
@pytest.mark.parametrize("pool", POOLS)
def test_turns_that_hang_are_given_up_and_everything_else_goes_on(
    pool: str, start_worker: StartWorker, client: Client, store: PersistenceAdapter, journal: Path
) -> None:
    # Two slots, and more tries that hang. A loop on gevent would stop all its greenlets, and no time is over.
    hangs = ["nap", "sleep", "socket"] if pool == "gevent" else ["nap", "sleep", "socket", "loop"]
    node = start_worker(pool=pool, concurrency=2)

    hung = {how: client.respond(f"s-{how}", f"hang {how}") for how in hangs}
    following = {how: client.respond(f"s-{how}", "next") for how in hangs}
    others = [client.respond(f"other-{number}", "hello") for number in range(4)]

    for how, handle in hung.items():
        with pytest.raises(TurnFailedError, match="TurnTimeLimitError"):
            handle.get(timeout=60)
        assert following[how].get(timeout=60).message == "you said: next"
        rows = store.find_messages(MessageQuery(session_id=f"s-{how}")).items
        assert [row.content for row in rows] == [
            f"hang {how}",
            "Sorry, that took too long.",
            "next",
            "you said: next",
        ]
    assert [handle.get(timeout=60).message for handle in others] == ["you said: hello"] * 4

    tries = journal.read_text().splitlines()
    assert {how: tries.count(f"began hang {how}") for how in hangs} == dict.fromkeys(hangs, 2)
    # What is at work in Python is ended; on gevent so is all that waits.
    ended = hangs if pool == "gevent" else ["nap", "loop"]
    wait_until(
        lambda: all(journal.read_text().count(f"Abandoned in hang {how}") == 2 for how in ended),
        what="what hangs to be ended",
    )
    assert node.logs().count("turn left to itself") == 2 * len(hangs)
    assert "hanging_agents" in node.logs(), "the log says where it hung"


@pytest.mark.process
@pytest.mark.parametrize("pool", POOLS)
def test_a_reply_that_hangs_half_way_is_made_anew(
    pool: str, start_worker: StartWorker, client: Client, store: PersistenceAdapter
) -> None:
    start_worker(pool=pool, concurrency=2)

    handle = client.respond("s", "hang socket once", stream=True)
    following = client.respond("s", "next")

    assert "".join(piece.text for piece in handle.stream(timeout=60)).endswith("you said: hang socket once")
    assert handle.get(timeout=60).message == "you said: hang socket once"
    assert following.get(timeout=60).message == "you said: next"
    rows = store.find_messages(MessageQuery(session_id="s")).items
    assert [row.role for row in rows] == ["user", "assistant"] * 2


@pytest.mark.process
def test_a_tool_that_was_at_work_is_not_called_again(
    start_worker: StartWorker, client: Client, journal: Path
) -> None:
    hold = Path(f"{journal}.hold")
    hold.touch()
    node = start_worker(concurrency=2, INTURN_AGENT="tests.tool_agents:agent")

    handle = client.respond("s", "pay hold")

    assert "whether it took effect is not known" in handle.get(timeout=60).message
    hold.unlink()
    assert client.respond("s", "next").get(timeout=60).message == "you said: next"
    assert journal.read_text().splitlines() == ["pay hold"]
    assert node.logs().count("turn left to itself") == 1


@pytest.mark.process
def test_healthy_turns_are_never_hit(start_worker: StartWorker, client: Client) -> None:
    node = start_worker(concurrency=4, INTURN_AGENT="tests.agents:agent", INTURN_TURN_SECONDS="30")
    handles = [client.respond(f"s{number % 7}", f"{number} sleep 0.01") for number in range(100)]

    assert len(dict(client.collect(handles, timeout=60))) == 100
    assert "left to itself" not in node.logs()


def test_what_ends_at_the_limit_either_ends_or_is_left() -> None:
    limit = TimeLimit(0.02)
    came: set[str] = set()

    def work(seconds: float) -> str:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            check_abandoned()
        return "ended"

    for number in range(60):
        try:
            came.add(limit.run(lambda: work(0.0195 + (number % 5) * 0.0003)))  # noqa: B023 - called at once
        except TurnTimeLimitError:
            came.add("left")
        # Whatever became of that one, the next is not hit by what was meant for it.
        assert TimeLimit.run(limit, lambda: "well") == "well"

    assert came <= {"ended", "left"}
    wait_until(lambda: limit.left == 0, what="all that was left to end")


def test_what_it_raises_and_what_it_gives_come_through() -> None:
    limit = TimeLimit(30)
    assert limit.run(lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        limit.run(lambda: 1 / 0)
    assert TimeLimit(0).run(threading.get_ident) == threading.get_ident(), "no limit: no other thread"


def test_a_process_in_which_too_much_hangs_asks_for_its_end() -> None:
    asked, go = threading.Event(), threading.Event()
    # What waits for a lock is out of reach of any exception, as a read from a socket is.
    limit = TimeLimit(0.01, most_left=2, overflow=asked.set)

    def leave_one() -> None:
        with pytest.raises(TurnTimeLimitError):
            limit.run(go.wait)

    try:
        for left in (1, 2):
            leave_one()
            assert limit.left == left
        assert not asked.is_set()
        leave_one()
        wait_until(asked.is_set, what="the process to ask")
    finally:
        go.set()
    wait_until(lambda: limit.left == 0, what="all that was left to end")
