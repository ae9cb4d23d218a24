"""`inturn deliveries`: the replies that wait to go out, those that did not simply arrive, and another try."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from inturn.cli.ages import ago
from inturn.cli.exits import DONE
from inturn.cli.local import local_settings
from inturn.cli.noting import note_down
from inturn.cli.output import note, out, print_json, print_table
from inturn.cli.text import plain
from inturn.client import Client
from inturn.contract import DeliveryView
from inturn.session.state import utcnow

MOST_ROWS = 200
"""Deliveries that a table shows; `--json` has them all."""

_COLOURS = {"waiting": "yellow", "sending": "cyan", "sent": "green", "unknown": "magenta", "failed": "red"}


def run_list(session_id: str | None, state: str | None, *, as_json: bool) -> int:
    """Print the deliveries, all or those in a state. Returns the exit code."""
    settings = local_settings()
    with Client(settings) as client:
        found = [view for view in client.deliveries(session_id) if state is None or _is(view, state)]
    note_down(settings, "read", "deliveries", (view.session_id for view in found))
    if as_json:
        for view in found:
            print_json(view.model_dump(mode="json"))
    elif found:
        _print(found)
    else:
        out().print("no deliveries wait, and none needs looking at" if state is None else "none")
    return DONE


def run_retry(session_id: str, turn_id: str, *, as_json: bool) -> int:
    """Ask for one more try. Returns the exit code."""
    settings = local_settings()
    note_down(settings, "change", "redeliver", [session_id], turn_id)
    with Client(settings) as client:
        known = client.retry_delivery(session_id, turn_id)
    if as_json:
        print_json({"session_id": session_id, "turn_id": turn_id, "known": known})
    else:
        out().print("asked for; it goes out behind those of its session that wait")
    if not known:
        note(
            "Redis remembers no such delivery that ended as unknown or failed: if the session has none "
            "either, nothing is sent"
        )
    return DONE


def _is(view: DeliveryView, state: str) -> bool:
    return view.doubtful if state == "doubtful" else view.state == state


def _print(found: Sequence[DeliveryView]) -> None:
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
    print_table(table)
    if len(found) > MOST_ROWS:
        note(f"and {len(found) - MOST_ROWS} more; --json has them all")
