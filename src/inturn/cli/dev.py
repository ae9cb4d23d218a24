"""`inturn dev`: everything in one terminal."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from rich.text import Text

from inturn.cli.exits import DONE, FAILED
from inturn.cli.local import write_note
from inturn.cli.output import out
from inturn.cli.processes import Fleet, beat_command, web_command, worker_command
from inturn.contract import DELIVERY_QUEUE, MAINTENANCE_QUEUE, TURNS_QUEUE
from inturn.embedded.valkey import EmbeddedValkey
from inturn.settings import load_settings

COLOURS = {"worker": "cyan", "delivery": "blue", "beat": "magenta", "web": "green", "inturn": "bold"}


def run_dev(port: int, data_dir: Path, concurrency: int, *, as_json: bool) -> int:
    """Run until Ctrl-C, or until a process ends by itself, which is an error. Returns the exit code."""
    console = out()

    def show(name: str, line: str) -> None:
        # In one call: each process has a thread that reads it.
        if as_json:
            console.out(json.dumps({"process": name, "line": line}), highlight=False)
        else:
            console.print(Text.assemble((f"{name:>8} | ", COLOURS[name]), line))

    data_dir.mkdir(parents=True, exist_ok=True)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with ExitStack() as stack:
        redis_url = _named("REDIS_URL")
        if redis_url is None:
            redis_url = stack.enter_context(EmbeddedValkey(data_dir / "valkey")).url
        database_url = _named("DATABASE_URL") or f"sqlite:///{data_dir.resolve() / 'inturn.db'}"
        settings = load_settings(redis_url=redis_url, database_url=database_url)
        write_note(data_dir, redis_url, database_url)
        fleet = stack.enter_context(
            Fleet({"INTURN_REDIS_URL": redis_url, "INTURN_DATABASE_URL": database_url}, show, patience=60.0)
        )
        fleet.start("worker", *worker_command("dev", concurrency, (TURNS_QUEUE, MAINTENANCE_QUEUE, "celery")))
        fleet.start("delivery", *worker_command("dev-delivery", 8, (DELIVERY_QUEUE,)))
        fleet.start("beat", *beat_command(data_dir / "beat-schedule"))
        fleet.start("web", *web_command(port))
        show("inturn", f"agent {settings.agent}; data in {data_dir}")
        here = f"http://127.0.0.1:{port}"
        show("inturn", f"talk at {here}/chat, or in another terminal: inturn chat; API at {here}/docs")
        show("inturn", "Ctrl-C stops everything; turns in hand are finished first")
        while not stopped.wait(0.2):
            if ended := fleet.ended():
                time.sleep(0.2)  # let its last words through
                for name, code in ended.items():
                    show("inturn", f"{name} has ended with exit code {code}; stopping the others")
                return FAILED
        show("inturn", "stopping")
    show("inturn", "stopped")
    return DONE


def _named(variable: str) -> str | None:
    """What the environment names, by either name, in the order in which the settings look."""
    return os.environ.get(f"INTURN_{variable}") or os.environ.get(variable) or None
