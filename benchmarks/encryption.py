"""What encryption costs: one committed turn in an encrypted store, to one in the same store as it is.

A turn is what the worker does to the store, as in `benchmarks.history`: `load` with a window of 50 messages,
then `commit` of two messages and the turn's record. The two kinds of turns are taken one after the other, in
changing order, so that what disturbs the machine disturbs both. Run it with
`python -m benchmarks.encryption`, or with names of stores; the table goes to standard error, one line of JSON
to standard output.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table

from benchmarks.history import WARM_UP, Sessions, machine, take_turn
from benchmarks.stores import STORES, Store
from inturn.keyring import KeyRing, create_key
from inturn.persistence import EncryptedAdapter, PersistenceAdapter

SIZE = 100
"""Messages a session has."""
WINDOW = 50
DEFAULT = ("memory", "sqlite", "postgresql")

Kind = Literal["plain", "encrypted"]


@dataclass(frozen=True)
class Result:
    """One store; times are microseconds, medians of all rounds.

    `ratio` is an encrypted turn to a plain one of the same moment: the median over all rounds. `added` is
    the median of what the one takes longer than the other.
    """

    store: str
    server: str
    plain: float
    encrypted: float
    load: float
    commit: float
    added: float
    ratio: float


def measure(store: Store, rounds: int) -> Result:
    """Take turns of both kinds, in changing order."""
    keys = KeyRing.read_text(create_key("benchmark"))
    adapters: dict[Kind, PersistenceAdapter] = {
        "plain": store.adapter,
        "encrypted": EncryptedAdapter(store.adapter, keys),
    }
    turns = rounds + WARM_UP
    sessions = {kind: Sessions(adapter, SIZE, turns) for kind, adapter in adapters.items()}
    times: dict[Kind, list[tuple[float, float]]] = {"plain": [], "encrypted": []}
    gc.collect()
    gc.disable()
    try:
        for number in range(turns):
            for kind in sorted(adapters, reverse=bool(number % 2)):
                session_id = sessions[kind].take()
                adapters[kind].load(session_id, last_messages=WINDOW)
                took = take_turn(adapters[kind], session_id, WINDOW)
                if number >= WARM_UP:
                    times[kind].append(took)
    finally:
        gc.enable()
    plain, encrypted = ([load + commit for load, commit in times[kind]] for kind in ("plain", "encrypted"))
    pairs = list(zip(plain, encrypted, strict=True))
    loads, commits = zip(*times["encrypted"], strict=True)
    return Result(
        store.name,
        store.server,
        round(statistics.median(plain), 1),
        round(statistics.median(encrypted), 1),
        round(statistics.median(loads), 1),
        round(statistics.median(commits), 1),
        round(statistics.median(second - first for first, second in pairs), 1),
        round(statistics.median(second / first for first, second in pairs), 3),
    )


def report(results: Sequence[Result]) -> Table:
    """A table for people."""
    table = Table(title="One committed turn, in ms (median)", title_justify="left", box=None)
    for name in ("store", "plain", "encrypted", "added", "ratio"):
        table.add_column(name, justify="left" if name == "store" else "right", no_wrap=True)
    for result in results:
        times = (result.plain, result.encrypted, result.added)
        table.add_row(result.store, *(f"{each / 1000:.2f}" for each in times), f"{result.ratio:.2f}")
    return table


def main() -> None:
    """Run it; the exit code is 0 whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encryption", description=__doc__)
    parser.add_argument("stores", nargs="*", help=f"of {', '.join(STORES)}; {', '.join(DEFAULT)} without any")
    parser.add_argument("--rounds", type=int, default=400, help="turns of each kind")
    given = parser.parse_args()
    if unknown := set(given.stores) - STORES.keys():
        parser.error(f"no such store: {', '.join(sorted(unknown))}")
    console = Console(stderr=True, highlight=False)
    results = []
    for name in given.stores or DEFAULT:
        console.print(f"[dim]{name}[/]")
        with ExitStack() as stack:
            results.append(measure(stack.enter_context(STORES[name]()), given.rounds))
    console.print(report(results))
    line = {
        "benchmark": "encryption",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rounds": given.rounds,
        "machine": machine(),
        "results": [asdict(result) for result in results],
    }
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
