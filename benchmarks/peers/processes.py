"""What processes have used, as Linux tells it."""

from __future__ import annotations

import contextlib
import os

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(root: int) -> float:
    """Processor time of a process and all below it, those that have ended included."""
    table = _table()
    return sum(table[pid][1] for pid in _below(root, table)) / _TICKS


def resident_mb(root: int) -> float:
    """Memory of a process and all below it, in MiB; what they share is counted for each."""
    total = 0
    for pid in _below(root, _table()):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/statm") as file:
            total += int(file.read().split()[1]) * _PAGE
    return total / 2**20


def machine_seconds() -> tuple[float, float]:
    """Processor time of the whole machine: in use, and in all."""
    with open("/proc/stat") as file:
        user, nice, system, idle, waiting, *others = (int(word) for word in file.readline().split()[1:9])
    busy = user + nice + system + sum(others)
    return busy / _TICKS, (busy + idle + waiting) / _TICKS


def _table() -> dict[int, tuple[int, int]]:
    """Of each process its parent and its ticks."""
    table = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
            words = file.read().rpartition(")")[2].split()
            table[int(name)] = (int(words[1]), sum(map(int, words[11:15])))
    return table


def _below(root: int, table: dict[int, tuple[int, int]]) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in table.items():
        children.setdefault(parent, []).append(pid)
    found, left = [], [root]
    while left:
        pid = left.pop()
        if pid in table:
            found.append(pid)
            left += children.get(pid, [])
    return found
