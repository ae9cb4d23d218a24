"""The order of tests for several processes, so that none of them has long ones left when the others are done.

Tests of processes mostly wait, the others mostly compute. Half of the processes begin with the former, those
marked `long` before the rest; the other half begins with the latter. Whoever has nothing left takes over the
end of what somebody else has (`--dist worksteal`).
"""

from __future__ import annotations

from itertools import groupby

import pytest


def deal(items: list[pytest.Item], processes: int) -> list[pytest.Item]:
    """The same tests in the order in which xdist cuts them into a piece for each process."""
    waiting = [item for item in items if _waits(item)]
    rest = [item for item in items if not _waits(item)]
    sizes = _sizes(len(items), processes)
    pieces: list[list[pytest.Item]] = [[] for _ in sizes]
    takers = pieces[: max(1, processes // 2)]
    for number, item in enumerate(item for item in waiting if item.get_closest_marker("long")):
        takers[number % len(takers)].append(item)
    short = [item for item in waiting if not item.get_closest_marker("long")]
    # Tests of one module stay together: they may share what is set up for it.
    for _, module in groupby(short, key=lambda item: item.location[0]):
        min(takers, key=len).extend(module)
    for piece, size in zip(pieces, sizes, strict=True):
        rest = piece[size:] + rest
        del piece[size:]
    for piece, size in reversed(list(zip(pieces, sizes, strict=True))):
        missing = size - len(piece)
        piece += rest[:missing]
        del rest[:missing]
    return [item for piece in pieces for item in piece]


def _waits(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in ("process", "long"))


def _sizes(total: int, processes: int) -> list[int]:
    """How many tests each process is given at first."""
    sizes = []
    for left in range(processes, 0, -1):
        sizes.append(total // left)
        total -= sizes[-1]
    return sizes
