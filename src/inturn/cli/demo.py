"""`inturn demo`: conversations through two workers, one of them killed half way, and the proof."""

from __future__ import annotations

import shutil
import signal
import socket
import time
from datetime import datetime
from pathlib import Path

from rich.console import Console

from inturn.cli.conversations import read_conversations
from inturn.cli.exits import DONE, FAILED
from inturn.cli.output import note, out, print_json
from inturn.cli.processes import Fleet, worker_command
from inturn.cli.recorded import as_object, replay_bar
from inturn.cli.replay import Progress, replay
from inturn.cli.report import print_figures, print_sessions, print_transcript, print_verdict
from inturn.client import Client
from inturn.embedded.valkey import EmbeddedValkey
from inturn.persistence import MessageQuery, PersistenceAdapter, SessionQuery
from inturn.persistence.opening import open_store
from inturn.session.state import utcnow
from inturn.settings import load_settings
from inturn.turns import Mailbox
from inturn.turns.connection import connect

FIELDS = ("name", "party_size", "date", "time", "seating")


def run_demo(file: Path, speed: float, *, as_json: bool) -> int:
    """Run it and print what happened. Returns the exit code."""
    console = Console(quiet=True) if as_json else out()
    lines = read_conversations(file)
    folder = Path(".inturn/demo")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = (folder / "workers.log").open("w", buffering=1)

    def write(name: str, line: str) -> None:
        log.write(f"{name} | {line}\n")

    sessions = len({line.session_id for line in lines})
    console.print(
        f"[bold]inturn demo[/]: {len(lines)} messages in {sessions} sessions, {speed:g} times as fast"
    )
    with log, EmbeddedValkey(folder / "valkey") as valkey:
        # All of them, by the names that win: a worker of the demo must never meet a server that is in use.
        urls = {
            "redis_url": valkey.url,
            "broker_url": valkey.url,
            "result_backend": valkey.url,
            "database_url": f"sqlite:///{folder.resolve() / 'inturn.db'}",
        }
        settings = load_settings(**urls)
        env = {
            **{f"INTURN_{name.upper()}": url for name, url in urls.items()},
            "INTURN_AGENT": "examples.booking:agent",
            # A model takes its time; with none at all there would be nothing in hand to kill.
            "INTURN_OFFLINE_LATENCY": "0.25",
        }
        with (
            Fleet(env, write) as fleet,
            Client(settings) as client,
            connect(settings) as redis,
            open_store(settings) as adapter,
        ):
            pids = {name: fleet.start(name, *worker_command(name, 8)) for name in ("worker-1", "worker-2")}
            console.print(f"Valkey, SQLite and two workers, pids {', '.join(map(str, pids.values()))}")
            killing = _Killing(fleet, "worker-2", pids["worker-2"], Mailbox(redis, settings))
            with replay_bar("replaying") as show:

                def on_progress(state: Progress) -> None:
                    show(state)
                    killing.at_half(state)

                report = replay(client, adapter, lines, speed=speed, on_progress=on_progress)
            console.print(killing.story(adapter))
            found = adapter.find_sessions(SessionQuery(limit=1000)).items
            # One that was cut off, if there is one, and of these one that got far.
            shown = max(found, key=lambda one: (one.id in killing.stranded, one.message_count))
            print_transcript(console, adapter, shown.id)
            print_sessions(console, found, FIELDS)
            print_figures(console, report)
            print_verdict(console, report)
    console.print(f"[dim]the workers' log: {folder / 'workers.log'}[/]")
    if killing.at is None:
        note("no turn was in hand when a worker was to be killed: nothing was shown", "red")
    ok = report.ok and killing.at is not None
    if as_json:
        print_json(
            as_object(report) | {"ok": ok, "killed": killing.at is not None, "stranded": killing.stranded}
        )
    return DONE if ok else FAILED


class _Killing:
    """Kills one worker once half of the lines are answered and it has turns in hand."""

    def __init__(self, fleet: Fleet, name: str, pid: int, mailbox: Mailbox) -> None:
        self._fleet = fleet
        self._name = name
        self._owner = f"{socket.gethostname()}:{pid}:"
        self._mailbox = mailbox
        self.at: datetime | None = None
        self.stranded: list[str] = []

    def at_half(self, state: Progress) -> None:
        """Look whether it is time."""
        if self.at is not None or state.answered * 2 < state.lines:
            return
        if not self._own():
            return
        self._fleet.signal(self._name, signal.SIGKILL)
        self.at = utcnow()
        while self._name not in self._fleet.ended():
            time.sleep(0.01)
        # Only now is it certain who was left behind: the last of its turns may have ended meanwhile.
        self.stranded = self._own()

    def story(self, adapter: PersistenceAdapter) -> str:
        """Tell in one line what it did and how long the sessions stood still."""
        if self.at is None:
            return "no worker was killed"
        waits = []
        for session_id in self.stranded:
            page = adapter.find_messages(MessageQuery(session_id=session_id, limit=1000))
            after = [m.created_at for m in page.items if m.created_at > self.at and m.role == "assistant"]
            if after:
                waits.append((min(after) - self.at).total_seconds())
        return f"{self._name} was killed (SIGKILL) at half way with {len(self.stranded)} turns in hand; " + (
            f"their sessions went on after at most {max(waits):.1f} s" if waits else "none of them went on"
        )

    def _own(self) -> list[str]:
        owners = self._mailbox.owners()
        return [session_id for session_id, token in owners.items() if token.startswith(self._owner)]
