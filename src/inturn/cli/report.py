"""What a replay ends with, for people: figures, one transcript, a table of sessions, the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from inturn.cli.replay import ReplayReport
from inturn.persistence.adapter import MAX_PAGE, MessageQuery, PersistenceAdapter
from inturn.session.state import SessionState

WHO = {"user": "[cyan]user[/]", "assistant": "[green] bot[/]", "tool": "[dim]tool[/]"}


def print_figures(console: Console, report: ReplayReport) -> None:
    """Print how many, how fast, and what went wrong outside the history."""
    rate = report.answered / report.seconds if report.seconds else 0.0
    console.print(
        f"{report.lines} lines: {report.turns} turns, {report.repeated} repeated deliveries; "
        f"{report.answered} answered in {report.seconds:.1f} s ({rate:.0f}/s)"
    )
    if report.latency is not None:
        console.print(
            f"reply after: median {report.latency.p50 * 1000:.0f} ms, "
            f"95th percentile {report.latency.p95 * 1000:.0f} ms, longest {report.latency.max * 1000:.0f} ms"
        )
    if report.known:
        console.print(f"{report.known} of the turns had been accepted by an earlier replay")
    if report.failed:
        console.print(f"[yellow]{report.failed} turns were recorded as failed[/]")
    if report.unanswered:
        console.print(f"[red]{report.unanswered} turns have no result yet[/]")
    for refusal in report.refused[:10]:
        console.print(f"[red]line {refusal.line} was refused: {escape(refusal.reason)}[/]")


def print_verdict(console: Console, report: ReplayReport) -> None:
    """Print the checker's line, with a few offenders of each kind."""
    style = "bold green" if report.ok else "bold red"
    console.print(report.verdict.explain(), style=style, markup=False)


def print_transcript(console: Console, adapter: PersistenceAdapter, session_id: str) -> None:
    """Print the history of one session."""
    page = adapter.find_messages(MessageQuery(session_id=session_id, limit=MAX_PAGE))
    lines = []
    for message in page.items:
        who = WHO.get(message.role, "[dim]note[/]")
        lines.append(f"{who}  {escape(message.content)}")
    panel = Panel("\n".join(lines), title=f"session {escape(session_id)}", expand=False)
    console.print(panel, soft_wrap=False)


def print_sessions(
    console: Console, sessions: Sequence[SessionState], fields: Sequence[str], *, most: int = 16
) -> None:
    """Print what was collected, a session a line."""
    table = Table(title=f"What was collected ({min(most, len(sessions))} of {len(sessions)} sessions)")
    table.add_column("session", no_wrap=True)
    for field in fields:
        table.add_column(field.replace("_", " "), no_wrap=True, max_width=14)
    for session in sessions[:most]:
        values = [_short(session.data.get(field)) for field in fields]
        table.add_row(escape(session.id), *map(escape, values))
    console.print(table, soft_wrap=False)


def _short(value: object) -> str:
    """A collected value as a table shows it: 19:00:00 says no more than 19:00."""
    text = "" if value is None else str(value)
    return text.removesuffix(":00") if text.count(":") == 2 else text
