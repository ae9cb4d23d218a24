"""`make up`: the processes of the Procfile, as they are deployed, on Valkey and PostgreSQL.

REDIS_URL and DATABASE_URL name servers to use instead of embedded ones. FLOWER_BASIC_AUTH is made up where it
is not set. Ctrl-C stops everything; turns in hand are finished first.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from honcho.environ import parse_procfile
from rich.console import Console
from rich.text import Text

from inturn.cli.local import NOTE, write_note
from inturn.cli.processes import Fleet
from inturn.embedded.postgres import EmbeddedPostgres
from inturn.embedded.valkey import EmbeddedValkey
from inturn.errors import InturnError
from inturn.settings import load_settings

ROOT = Path(__file__).parent.parent
COLOURS = {"worker": "cyan", "delivery": "blue", "beat": "magenta", "web": "green", "flower": "yellow"}
METRICS = ("worker", "delivery", "beat", "web")
"""The processes that count, each at a port of its own: the first at `--metrics`, the others after it."""


def main() -> int:
    """Run until Ctrl-C, or until a process ends by itself, which is an error. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--data-dir", type=Path, default=Path(".inturn/up"), help="where the servers' data are"
    )
    parser.add_argument("--port", type=int, default=8000, help="of the web application")
    parser.add_argument("--flower-port", type=int, default=5555)
    parser.add_argument(
        "--metrics", type=int, default=9101, help="the first of the ports that Prometheus may ask"
    )
    chosen = parser.parse_args()
    try:
        return run(chosen.data_dir.resolve(), chosen.port, chosen.flower_port, chosen.metrics)
    except InturnError as error:
        sys.stderr.write(f"up: {error}\n")
        return 2


def run(data_dir: Path, port: int, flower_port: int, metrics: int) -> int:
    """The same, with all that can be chosen."""
    console = Console(highlight=False, soft_wrap=True)

    def show(name: str, line: str) -> None:
        # In one call: each process has a thread that reads it.
        console.print(Text.assemble((f"{name:>8} | ", COLOURS.get(name, "bold")), line))

    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    data_dir.mkdir(parents=True, exist_ok=True)
    given = load_settings()
    with ExitStack() as stack:
        redis_url, database_url = (url.get_secret_value() for url in (given.redis_url, given.database_url))
        if "redis_url" not in given.model_fields_set:
            redis_url = stack.enter_context(EmbeddedValkey(data_dir / "valkey")).url
        if "database_url" not in given.model_fields_set:
            database_url = stack.enter_context(EmbeddedPostgres(data_dir / "postgres")).url
        password = os.environ.get("FLOWER_BASIC_AUTH") or f"inturn:{secrets.token_urlsafe(12)}"
        env = {
            "INTURN_REDIS_URL": redis_url,
            "INTURN_DATABASE_URL": database_url,
            "PORT": str(port),
            "FLOWER_PORT": str(flower_port),
            "FLOWER_BASIC_AUTH": password,
            "FLOWER_DB": str(data_dir / "flower"),
        }
        show("up", "bringing the schema up to date")
        upgrade = [Path(sys.executable).parent / "inturn", "db", "upgrade"]
        subprocess.run(upgrade, env={**os.environ, **env}, check=True)
        NOTE.parent.mkdir(parents=True, exist_ok=True)
        write_note(NOTE.parent, redis_url, database_url)  # for `inturn chat` in another terminal
        # A warm stop takes as long as the turns in hand.
        patience = given.turn_seconds + 30 if given.turn_seconds else 3600.0
        fleet = stack.enter_context(Fleet(env, show, patience=patience))
        for name, line in parse_procfile((ROOT / "Procfile").read_text()).processes.items():
            words = shlex.split(_filled_in(line, {**os.environ, **env}))
            counted = {"INTURN_METRICS_PORT": str(metrics + METRICS.index(name))} if name in METRICS else {}
            fleet.start(name, *words, env=counted)
        here = "http://127.0.0.1"
        show(
            "up",
            f"talk at {here}:{port}/chat, or in another terminal: inturn chat; API at {here}:{port}/docs",
        )
        show("up", f"Flower at {here}:{flower_port}, as {password.replace(':', ' with the password ')}")
        for number, name in enumerate(METRICS):
            show("up", f"metrics of {name} at {here}:{metrics + number}/metrics")
        show("up", f"agent {given.agent}; data in {data_dir}")
        show("up", "Ctrl-C stops everything; turns in hand are finished first")
        while not stopped.wait(0.2):
            if ended := fleet.ended():
                time.sleep(0.2)  # let its last words through
                for name, code in ended.items():
                    show("up", f"{name} has ended with exit code {code}; stopping the others")
                return 1
        show("up", "stopping; Ctrl-C once more kills what has not ended")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        fleet.stop()
    show("up", "stopped")
    return 0


def _filled_in(line: str, env: Mapping[str, str]) -> str:
    """The line with its `${NAME:-default}` as a shell would read them."""
    return re.sub(r"\$\{(\w+):-(\w+)\}", lambda found: env.get(found[1], found[2]), line)


if __name__ == "__main__":
    sys.exit(main())
