"""repeat_on_conflict: how a change that suits any state of a session gets through among other writers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from inturn.errors import SessionConflictError
from inturn.metrics import count_conflict

T = TypeVar("T")

TRIES = 25
"""Each conflict means that another writer got through; this many in a row are no accident any more."""


def repeat_on_conflict(change: Callable[[], T]) -> T:
    """Call `change`, which loads and commits, until it meets no conflict; at most 25 times.

    The pauses between are random and grow to a quarter of a second, so that many writers of one session
    spread out instead of meeting again. Raises the last `SessionConflictError`.
    """
    for attempt in range(1, TRIES):
        try:
            return change()
        except SessionConflictError:
            count_conflict("change")
            time.sleep(random.uniform(0, min(0.25, 0.002 * 2**attempt)))
    return change()
