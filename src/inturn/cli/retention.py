"""`inturn retention`: what the last runs have done, and one more."""

from __future__ import annotations

import time
from collections.abc import Callable

from inturn.cli.ages import ago
from inturn.cli.exits import DONE, TIMED_OUT
from inturn.cli.local import local_settings
from inturn.cli.output import fail, out, print_json, spinner
from inturn.client import Client
from inturn.retention import RetentionReport
from inturn.session.state import utcnow
from inturn.settings import Settings
from inturn.turns.connection import connect
from inturn.turns.retention_runs import RetentionRuns

POLL_SECONDS = 0.3


def run_list(last: int, *, as_json: bool) -> int:
    """Print the run that is not done yet, and the last reports. Returns the exit code."""
    settings = local_settings()
    with connect(settings) as redis:
        runs = RetentionRuns(redis, settings)
        current, reports = runs.unfinished(), runs.reports()[:last]
    if current is not None:
        reports.insert(0, current.report)
    if as_json:
        for report in reports:
            print_json(report.model_dump(mode="json"))
    elif reports:
        _print(reports)
    else:
        out().print("retention has not run yet; beat asks for it, or `inturn retention run`")
    return DONE


def run_now(timeout: float, *, dry_run: bool, as_json: bool) -> int:
    """Have a worker run it, to its end, and print the report. Returns the exit code."""
    settings = local_settings()
    with spinner("waiting for a worker") as tell:
        report = _run(settings, timeout, dry_run, tell)
    if report is None:
        fail(f"no worker got on with it for {timeout:g} seconds; it goes on by itself once one does")
        return TIMED_OUT
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        _print([report])
    return DONE


def _run(
    settings: Settings, timeout: float, dry_run: bool, tell: Callable[[str], None]
) -> RetentionReport | None:
    """The report of a run once all of it is done; None if nothing happens for so many seconds."""
    with Client(settings) as client, connect(settings) as redis:
        runs = RetentionRuns(redis, settings)
        asked = utcnow()
        result = client.cleanup_sessions(dry_run=dry_run)
        heard, last = time.monotonic(), None
        while time.monotonic() - heard < timeout:
            if result.ready():
                report = RetentionReport.model_validate(result.get(timeout=timeout))
                if report.finished or dry_run:
                    return report
                # It was the first task of several, or another run was at work, whose end is as good.
                ended = next((each for each in runs.reports() if each.changed_at >= asked), None)
                if ended is not None:
                    return ended
            run = runs.unfinished()
            if run is not None and run.report.changed_at != last:
                heard, last = time.monotonic(), run.report.changed_at
                tell(f"{run.stage}: {_done(run.report)}")
            time.sleep(POLL_SECONDS)
    return None


def _done(report: RetentionReport) -> str:
    return (
        f"{sum(report.deleted.values()):,} sessions deleted, {report.abandoned:,} abandoned, "
        f"{report.skipped:,} stayed"
    )


def _print(reports: list[RetentionReport]) -> None:
    now, console = utcnow(), out()
    for report in reports:
        notes = ", dry run" * report.dry_run + ", not done yet" * (not report.finished)
        took = ago(report.changed_at, report.started_at)
        console.print(f"{ago(now, report.started_at)} ago, for {took}{notes}: {_in_words(report)}")


def _in_words(report: RetentionReport) -> str:
    counts = (
        (sum(report.deleted.values()), "deleted"),
        (report.deleted["completed"], "of them completed"),
        (report.deleted["abandoned"], "of them abandoned"),
        (report.messages, "messages in them"),
        (report.exported, "exported before"),
        (report.abandoned, "now abandoned"),
        (report.skipped, "old but stayed"),
        (report.unreadable, "could not be read"),
    )
    return ", ".join(f"{count:,} {words}" for count, words in counts if count) or "nothing was old"
