"""Does a turn cost more where the history is longer? One committed turn at 10 to 10,000 messages.

A turn is what the worker does to the store: `load` with the window of the newest messages and the turn's
ID, then `commit` of two messages and the turn's record. Run it with `make bench`, or
`python -m benchmarks.history sqlite postgresql --rounds 400`; the table goes to standard error, one line of
JSON to standard output.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import itertools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.stores import STORES, Store
from inturn.errors import MissingDriverError, StoreUnavailableError
from inturn.ids import create_session_id, create_turn_id
from inturn.persistence import PersistenceAdapter
from inturn.session.state import SessionState, TurnRecord, create_message, create_session

SIZES = (10, 100, 1_000, 10_000)
WINDOWS = (10, 50)
"""With 10 every size reads the same number of messages, so what grows is the cost of length alone. 50 is the
default; there the session of 10 messages reads less than the others, so 100 is what to compare with."""
GOAL = 1.1
WARM_UP = 20
COUNTED_TURNS = 15
SAID = "A table for four on Friday evening, please, and if there is one by the window, all the better. " * 2


@dataclass(frozen=True)
class Cost:
    """What a turn costs at one size: microseconds (the median, the quartiles, its two halves), and bytes."""

    size: int
    median: float
    low: float
    high: float
    load: float
    commit: float
    bytes: float | None


@dataclass(frozen=True)
class Result:
    """One store with one window.

    `ratio` is a turn in the longest session to one in that of `base` messages: the median over all rounds.
    """

    store: str
    server: str
    window: int
    measured: str
    base: int
    ratio: float
    costs: list[Cost]


class Sessions:
    """Sessions of one size; one is replaced by the next before its turns have made it noticeably longer."""

    def __init__(self, adapter: PersistenceAdapter, size: int, turns: int) -> None:
        self._each = max(1, size // 20)
        made = [make_session(adapter, size) for _ in range(-(-turns // self._each))]
        self._upcoming = itertools.chain.from_iterable(itertools.repeat(one, self._each) for one in made)

    def take(self) -> str:
        """The session of the next turn."""
        return next(self._upcoming)


def measure(store: Store, window: int, rounds: int) -> Result:
    """Take turns at all sizes, round robin in changing order, so that noise hits all alike."""
    turns = rounds + WARM_UP + (COUNTED_TURNS if store.counter else 0)
    sessions = {size: Sessions(store.adapter, size, turns) for size in SIZES}
    loads: dict[int, list[float]] = {size: [] for size in SIZES}
    commits: dict[int, list[float]] = {size: [] for size in SIZES}
    orders = itertools.cycle(itertools.permutations(SIZES))
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds + WARM_UP):
            for size in next(orders):
                session_id = sessions[size].take()
                # Whoever has been used more often would be warmer in every cache on the way.
                store.adapter.load(session_id, last_messages=window)
                load, commit = take_turn(store.adapter, session_id, window)
                if number >= WARM_UP:
                    loads[size].append(load)
                    commits[size].append(commit)
    finally:
        gc.enable()
    written = _bytes(store, sessions, window)
    costs = [_cost(size, loads[size], commits[size], written.get(size)) for size in SIZES]
    base = next(size for size in SIZES if size >= window)
    shortest, longest = (
        [load + commit for load, commit in zip(loads[size], commits[size], strict=True)]
        for size in (base, SIZES[-1])
    )
    # The turns of one round are neighbours in time, so what slows the machine down falls out of their ratio.
    ratio = statistics.median(long / short for long, short in zip(longest, shortest, strict=True))
    return Result(store.name, store.server, window, store.measured, base, round(ratio, 3), costs)


def take_turn(adapter: PersistenceAdapter, session_id: str, window: int) -> tuple[float, float]:
    """Take one turn; the microseconds of its load and of its commit."""
    turn_id = create_turn_id(session_id)
    begun = time.perf_counter_ns()
    found = adapter.load(session_id, last_messages=window, turn_id=turn_id)
    loaded = time.perf_counter_ns()
    assert found is not None
    assert len(found.messages) == min(window, found.session.message_count)
    messages = [create_message(session_id, role, SAID, turn_id=turn_id) for role in ("user", "assistant")]
    record = TurnRecord(session_id=session_id, turn_id=turn_id, result={"message": SAID})
    found.session.data["turns"] = turn_id
    ready = time.perf_counter_ns()
    adapter.commit(found.session, messages, expected_version=found.session.version, turn=record)
    return (loaded - begun) / 1000, (time.perf_counter_ns() - ready) / 1000


def _bytes(store: Store, sessions: dict[int, Sessions], window: int) -> dict[int, float]:
    """The median bytes a turn writes, by size."""
    if store.counter is None or store.counted is None:
        return {}
    counts: dict[int, list[int]] = {size: [] for size in SIZES}
    store.counted.ping()
    for _ in range(COUNTED_TURNS):
        for size in SIZES:
            session_id = sessions[size].take()
            before = store.counter()
            take_turn(store.counted, session_id, window)
            counts[size].append(store.counter() - before)
    return {size: statistics.median(some) for size, some in counts.items()}


def _cost(size: int, loads: Sequence[float], commits: Sequence[float], written: float | None) -> Cost:
    whole = [load + commit for load, commit in zip(loads, commits, strict=True)]
    low, median, high = (round(figure, 1) for figure in statistics.quantiles(whole, n=4))
    load, commit = (round(statistics.median(half), 1) for half in (loads, commits))
    return Cost(size, median, low, high, load, commit, written)


def make_session(adapter: PersistenceAdapter, size: int) -> str:
    """Make a session with so many messages; its ID."""
    session: SessionState = create_session(
        create_session_id(), user_id=create_session_id(), data={"city": "Lagos"}
    )
    for start in range(0, size, 500):
        roles = itertools.islice(itertools.cycle(("user", "assistant")), min(500, size - start))
        messages = [create_message(session.id, role, SAID, user_id=session.user_id) for role in roles]
        session = adapter.commit(session, messages, expected_version=session.version).session
    return session.id


def run(
    names: Sequence[str], windows: Sequence[int], rounds: int, show: Callable[[str], None]
) -> Iterator[Result]:
    """Measure stores one after another; one that is not installed, or goes away, is passed over."""
    for name in names:
        try:
            with ExitStack() as stack:
                store = stack.enter_context(STORES[name]())
                for window in windows:
                    show(f"{name}, window {window}")
                    yield measure(store, window, rounds)
        except (MissingDriverError, ImportError, StoreUnavailableError) as error:
            show(f"{name}: passed over: {error}")


def report(results: Sequence[Result]) -> Table:
    """A table for people."""
    table = Table(title="One committed turn, in ms (median)", title_justify="left", box=None)
    for name in ("store", "window", *(f"{size:,}" for size in SIZES), "spread", "ratio", "", "bytes"):
        table.add_column(name, justify="left" if name in ("store", "") else "right", no_wrap=True)
    for result in results:
        spread = max((cost.high - cost.low) / cost.median for cost in result.costs)
        written = result.costs[-1].bytes
        table.add_row(
            result.store,
            str(result.window),
            *(f"{cost.median / 1000:.2f}" for cost in result.costs),
            f"{spread:.0%}",
            f"[{'green' if result.ratio <= GOAL else 'red'}]{result.ratio:.2f}[/]",
            f"to {result.base}",
            "" if written is None else f"{written:,.0f} {result.measured}",
        )
    return table


def machine() -> dict[str, Any]:
    """What it ran on."""
    drivers = ("psycopg", "redis", "sqlalchemy", "pymongo", "opensearch-py", "pydantic")
    installed = {each.metadata["Name"].lower() for each in importlib.metadata.distributions()}
    return {
        "inturn": importlib.metadata.version("inturn"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpus": os.cpu_count(),
        **{name: importlib.metadata.version(name) for name in drivers if name in installed},
    }


def main() -> None:
    """Run it; the exit code is 0 whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history", description=__doc__)
    parser.add_argument("stores", nargs="*", help=f"of {', '.join(STORES)}; all without any")
    parser.add_argument("--rounds", type=int, default=200, help="turns measured at each size")
    parser.add_argument("--window", type=int, action="append", help="messages loaded; 10 and 50 without any")
    given = parser.parse_args()
    if unknown := set(given.stores) - STORES.keys():
        parser.error(f"no such store: {', '.join(sorted(unknown))}")
    console = Console(stderr=True, highlight=False)
    names = given.stores or list(STORES)
    results = list(
        run(names, given.window or WINDOWS, given.rounds, lambda text: console.print(f"[dim]{text}[/]"))
    )
    console.print(report(results))
    console.print(
        "spread: the widest quartiles of the four sizes; ratio: 10,000 messages to as few as fill a window, "
        f"turn by turn, at most {GOAL} is the goal; bytes: written by a turn at 10,000",
        style="dim",
    )
    line = {
        "benchmark": "history",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rounds": given.rounds,
        "machine": machine(),
        "results": [asdict(result) for result in results],
    }
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
