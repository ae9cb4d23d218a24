"""wait_until: what tests do instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], *, timeout: float = 20.0, what: str = "") -> T:
    """Ask `condition` again and again until it is true, and return what it said.

    After `timeout` seconds the test fails with `what` was waited for and the last answer.
    """
    deadline = time.monotonic() + timeout
    pause = 0.005
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(
                f"waited {timeout:g} s for {what or condition}; the last answer was {answer!r}"
            )
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
    return answer
