"""Turnstile: places, order and patience."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from inturn.persistence.sql.turnstile import Turnstile
from tests.waiting import wait_until


def test_there_are_as_many_places_as_were_given() -> None:
    turnstile = Turnstile(2)
    assert [turnstile.enter(0.01) for _ in range(3)] == [True, True, False]
    turnstile.leave()
    assert [turnstile.enter(0.01) for _ in range(2)] == [True, False]


def test_whoever_waits_is_next() -> None:
    """Also where the one who leaves comes back at once."""
    turnstile, order = Turnstile(1), []
    turnstile.enter(1)

    def come(name: str) -> None:
        assert turnstile.enter(20)
        order.append(name)
        turnstile.leave()

    with ThreadPoolExecutor(2) as threads:
        for number, name in enumerate(("first", "second"), 1):
            threads.submit(come, name)
            wait_until(lambda number=number: len(turnstile._waiting) == number, what="it to wait")  # type: ignore[misc]
        turnstile.leave()
        come("third")
    assert order == ["first", "second", "third"]


def test_places_are_neither_lost_nor_won_among_the_impatient() -> None:
    turnstile, inside, most = Turnstile(3), set[int](), 0
    lock = threading.Lock()

    def come(number: int) -> None:
        nonlocal most
        for _ in range(200):
            if turnstile.enter(0.0001):
                with lock:
                    inside.add(number)
                    most = max(most, len(inside))
                with lock:
                    inside.discard(number)
                turnstile.leave()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(come, range(8)))
    assert most <= 3
    assert [turnstile.enter(0.01) for _ in range(4)] == [True, True, True, False]
