"""`inturn deliveries`: the replies that wait to go out, those that did not simply arrive, and another try."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from inturn.cli.ages import ago
from inturn.cli.local import local_settings
from inturn.cli.text import plain
from inturn.client import Client
from inturn.contract import DeliveryView
from inturn.session.state import utcnow

MOST_ROWS = 200
"""Deliveries that a table shows; `--json` has them all."""


_COLOURS = {"waiting": "yellow", "sending": "cyan", "sent": "green", "unknown": "magenta", "failed": "red"}


def run_deliveries(session_id: str | None, state: str | None, *, as_json: bool) -> int:
    """Print the deliveries, all or those in a state. Returns the exit code."""
    console = Console(highlight=False)
    with Client(local_settings()) as client:
        found = [view for view in client.deliveries(session_id) if state is None or _is(view, state)]
    if as_json:
        console.print_json(json.dumps({"deliveries": [view.model_dump(mode="json") for view in found]}))
    elif found:
        _print(console, found)
    else:
        console.print("no deliveries wait, and none needs looking at" if state is None else "none")
    return 0


def run_retry(session_id: str, turn_id: str) -> int:
    """Ask for one more try. Returns the exit code."""
    console = Console(highlight=False, soft_wrap=True)
    with Client(local_settings()) as client:
        known = client.retry_delivery(session_id, turn_id)
    console.print("asked for; it goes out behind those of its session that wait")
    if not known:
        console.print(
            "Redis remembers no such delivery that ended as unknown or failed: if the session has none "
            "either, nothing is sent",
            style="yellow",
        )
    return 0


def _is(view: DeliveryView, state: str) -> bool:
    return view.doubtful if state == "doubtful" else view.state == state


def _print(console: Console, found: Sequence[DeliveryView]) -> None:
    table = Table()
    for name in ("session", "turn", "channel", "state", "since", "tries", "error"):
        table.add_column(name, overflow="fold")
    now = utcnow()
    for view in found[:MOST_ROWS]:
        state = f"[{_COLOURS[view.state]}]{view.state}[/]" + (", doubtful" if view.doubtful else "")
        table.add_row(
            plain(view.session_id),
            plain(view.turn_id),
            plain(view.channel or ""),
            state,
            ago(now, view.since),
            str(view.attempts or ""),
            plain(view.error or ""),
        )
    console.print(table)
    if len(found) > MOST_ROWS:
        console.print(f"and {len(found) - MOST_ROWS} more; --json has them all")
