"""How long does a webhook wait for its answer? Signed events of Slack, 200 in flight, over loopback.

Each is a mention in a thread, signed as Slack signs it, and answered once its turn is in its mailbox. Valkey,
the web process (`uvicorn producer.web:app`) and, with `--worker`, a worker are started for it and are
processes of their own, as is the client, which is this one. Beside the times it counts what has come of the
events: each must be accepted, and be one turn. Run it with
`python -m benchmarks.webhooks`, perhaps `--worker`; the table goes to standard error, one line of JSON to
standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from benchmarks.history import machine
from inturn.embedded.valkey import EmbeddedValkey
from inturn.persistence import open_adapter
from inturn.settings import load_settings
from inturn.turns import Mailbox
from inturn.turns.connection import connect
from tests.nodes import clean_environment, worker_container
from tests.servers_slack import BOT_TOKEN, SIGNING_SECRET, SlackStub, signed_headers
from tests.waiting import wait_until
from tests.web import web_process

GOAL = 3.0
"""Seconds after which Slack sends an event again: the 99th percentile must be below."""
PER_CONVERSATION = 10


@dataclass(frozen=True)
class Result:
    """What came of the events; times in milliseconds, from the connection to the answer's last byte.

    `turns` are those that wait (without a worker) or were committed (with one), `doubled` those of them that
    are there more than once.
    """

    events: int
    in_flight: int
    worker: bool
    accepted: int
    turns: int
    doubled: int
    p50: float
    p99: float
    longest: float
    per_second: float


class Slack:
    """Sends events, `in_flight` at a time, each by a connection of its own."""

    def __init__(self, url: str, in_flight: int) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname or "", place.port or 0
        self._in_flight = in_flight
        self.seconds: list[float] = []
        self.answers: Counter[int] = Counter()

    async def send(self, events: Iterator[bytes]) -> None:
        """Send all, and note the time and the status of each answer."""
        await asyncio.gather(*(self._sender(events) for _ in range(self._in_flight)))

    async def _sender(self, events: Iterator[bytes]) -> None:
        for body in events:
            headers = "".join(f"{name}: {value}\r\n" for name, value in signed_headers(body).items())
            head = f"POST /channels/slack HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(body)}\r\n"
            began = time.perf_counter()
            reader, writer = await asyncio.open_connection(self._host, self._port)
            writer.write(f"{head}Connection: close\r\n{headers}\r\n".encode() + body)
            answer = (await reader.read()).decode()
            self.seconds.append(time.perf_counter() - began)
            self.answers[int(answer.split(" ", 2)[1])] += 1
            writer.close()


def event(number: int) -> bytes:
    """A mention in the thread of its conversation."""
    channel, ts = f"C{number // PER_CONVERSATION:06}", f"1700000000.{number:06}"
    thread = f"1600000000.{number // PER_CONVERSATION:06}"
    inner = {"type": "app_mention", "channel": channel, "user": "U1", "ts": ts, "thread_ts": thread}
    envelope = {
        "type": "event_callback",
        "event_id": f"Ev{number}",
        "team_id": "T1",
        "authorizations": [{"user_id": "UBOT", "is_bot": True}],
        "event": {**inner, "text": f"<@UBOT> a table for two, please, number {number}"},
    }
    return json.dumps(envelope).encode()


def measure(events: int, in_flight: int, *, worker: bool) -> Result:
    """Start everything, send the events, and count."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inturn-benchmark-")))
        valkey = stack.enter_context(EmbeddedValkey(directory / "valkey"))
        slack = stack.enter_context(SlackStub())
        database = f"sqlite:///{directory / 'sessions.db'}"
        env = {
            "REDIS_URL": valkey.url,
            "DATABASE_URL": database,
            "SLACK_BOT_TOKEN": BOT_TOKEN,
            "SLACK_SIGNING_SECRET": SIGNING_SECRET,
            "INTURN_SLACK_BASE_URL": slack.url,
            "INTURN_AGENT": "tests.agents:agent",
        }
        if worker:
            container = worker_container(
                directory, {**clean_environment(), **env}, pool="threads", concurrency=8
            )
            stack.callback(container.remove)
            container.start()
        web = stack.enter_context(web_process(directory, env))
        client = Slack(web.url, in_flight)
        began = time.perf_counter()
        asyncio.run(client.send(map(event, range(events))))
        took = time.perf_counter() - began
        settings = load_settings(redis_url=valkey.url, database_url=database)
        with connect(settings) as redis:
            mailbox = Mailbox(redis, settings)
            if worker:
                wait_until(lambda: mailbox.depth() == 0, timeout=600, what="all turns to be committed")
                turns = _committed(database, events)
            else:
                turns = Counter(item.turn_id for item in mailbox.items())
    percentiles = statistics.quantiles(client.seconds, n=100)
    return Result(
        events=events,
        in_flight=in_flight,
        worker=worker,
        accepted=client.answers[200],
        turns=len(turns),
        doubled=sum(count > 1 for count in turns.values()),
        p50=round(percentiles[49] * 1000, 1),
        p99=round(percentiles[98] * 1000, 1),
        longest=round(max(client.seconds) * 1000, 1),
        per_second=round(events / took, 1),
    )


def _committed(database: str, events: int) -> Counter[str | None]:
    """How often each turn's message is in the history of its session."""
    found: Counter[str | None] = Counter()
    with open_adapter(database) as adapter:
        for conversation in range(-(-events // PER_CONVERSATION)):
            session_id = f"slack:T1:C{conversation:06}:1600000000.{conversation:06}"
            loaded = adapter.load(session_id, last_messages=4 * PER_CONVERSATION)
            messages = () if loaded is None else loaded.messages
            found.update(message.turn_id for message in messages if message.role == "user")
    return found


def report(result: Result) -> Table:
    """A table for people."""
    title = f"{result.events:,} events of Slack, {result.in_flight} in flight"
    table = Table(title=title, title_justify="left", box=None)
    for name in ("worker", "accepted", "turns", "doubled", "p50 ms", "p99 ms", "longest ms", "requests/s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row(
        "yes" if result.worker else "no",
        f"{result.accepted:,}",
        f"{result.turns:,}",
        str(result.doubled),
        f"{result.p50:,.0f}",
        f"[{'green' if result.p99 <= GOAL * 1000 else 'red'}]{result.p99:,.0f}[/]",
        f"{result.longest:,.0f}",
        f"{result.per_second:,.0f}",
    )
    return table


def main() -> None:
    """Run it; the exit code is 1 if an event was not accepted, or is not one turn."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.webhooks", description=__doc__)
    parser.add_argument("--events", type=int, default=5_000, help="events sent")
    parser.add_argument(
        "--in-flight", type=int, default=200, help="requests that wait for their answer at once"
    )
    parser.add_argument("--worker", action="store_true", help="with a worker that runs the turns meanwhile")
    given = parser.parse_args()
    with contextlib.redirect_stdout(io.StringIO()):  # there the web process leaves its log
        result = measure(given.events, given.in_flight, worker=given.worker)
    Console(stderr=True, highlight=False).print(report(result))
    line = {
        "benchmark": "webhooks",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "results": [asdict(result)],
    }
    sys.stdout.write(json.dumps(line) + "\n")
    whole = (result.accepted, result.turns, result.doubled) == (result.events, result.events, 0)
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()
