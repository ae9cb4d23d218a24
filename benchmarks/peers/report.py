"""Report: the runs of a benchmark as a table for people and a line of JSON."""

from __future__ import annotations

import importlib.metadata
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.history import machine
from benchmarks.peers.lab import Run
from benchmarks.peers.roster import PYTHON

_ASK = """
import importlib.metadata, json, sys
print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))
"""
_VERSIONS = ("celery", "kombu", "procrastinate", "dbos", "dramatiq", "rq")


class Report:
    """Collects runs by what was asked of them (`task`); ratios are to the peer `base` of the same task."""

    def __init__(self, benchmark: str, *, base: str | None = None) -> None:
        self._benchmark = benchmark
        self._base = base
        self._runs: dict[str, dict[str, list[Run]]] = {}
        self._console = Console(stderr=True, highlight=False)

    def add(self, task: str, run: Run) -> None:
        """Add a run, and say so."""
        self._runs.setdefault(task, {}).setdefault(run.peer, []).append(run)
        self._console.print(
            f"[dim]{task}: {run.peer} {run.per_second:.1f}/s, {run.cpu_ms:.2f} ms, "
            f"{run.verdict.violations} violations, {run.foreign:.0%} foreign[/]"
        )

    def say(self, text: str) -> None:
        """Tell people something; it is not in the line."""
        self._console.print(text)

    def show(self, columns: dict[str, Callable[[Run], float | None]] | None = None) -> None:
        """Print a table for each task, and the line."""
        for task, peers in self._runs.items():
            self._console.print(self._table(task, peers, columns or _COLUMNS))
        line = {
            "benchmark": self._benchmark,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": machine(),
            "peers": _versions(),
            "runs": [
                {"task": task, **run.line()}
                for task, peers in self._runs.items()
                for runs in peers.values()
                for run in runs
            ],
        }
        sys.stdout.write(json.dumps(line) + "\n")

    def _table(
        self, task: str, peers: dict[str, list[Run]], columns: dict[str, Callable[[Run], float | None]]
    ) -> Table:
        table = Table(title=task, title_justify="left", box=None)
        table.add_column("peer")
        for name in ("turns/s", *(["ratio"] if self._base else []), *columns, "violations", "foreign"):
            table.add_column(name, justify="right")
        for name, runs in peers.items():
            cells = [_spread([run.per_second for run in runs])]
            if self._base:
                cells.append(self._ratio(runs, peers.get(self._base, [])))
            cells += [_spread([column(run) for run in runs]) for column in columns.values()]
            violations = max(run.verdict.violations for run in runs)
            cells.append(f"[{'red' if violations else 'green'}]{violations:,}[/]")
            cells.append(f"{statistics.median(run.foreign for run in runs):.0%}")
            table.add_row(name, *cells)
        return table

    @staticmethod
    def _ratio(runs: Sequence[Run], base: Sequence[Run]) -> str:
        """The median of the ratios of the same round."""
        pairs = [one.per_second / other.per_second for one, other in zip(runs, base, strict=False)]
        return f"{statistics.median(pairs):.2f}" if pairs else ""


_COLUMNS: dict[str, Callable[[Run], float | None]] = {
    "CPU ms": lambda run: run.cpu_ms,
    "+ database": lambda run: run.database_cpu_ms,
    "+ Redis": lambda run: run.redis_cpu_ms,
    "MB": lambda run: run.rss_mb,
    "enqueued/s": lambda run: run.enqueued_per_second,
}


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    middle = statistics.median(known)
    digits = 0 if middle >= 100 else 2
    if len(known) == 1:
        return f"{middle:,.{digits}f}"
    return f"{middle:,.{digits}f} ({min(known):,.{digits}f}–{max(known):,.{digits}f})"


def _versions() -> dict[str, Any]:
    """Of the peers, as the lock file names them; Celery's is of this environment, which is the same."""
    done = subprocess.run([PYTHON, "-c", _ASK, *_VERSIONS], capture_output=True, text=True)
    if done.returncode:
        return {name: importlib.metadata.version(name) for name in ("celery", "kombu")}
    found: dict[str, Any] = json.loads(done.stdout)
    return found
