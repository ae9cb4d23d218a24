"""The web application as tests use it: as a process of its own, or in this one, and its events as read."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import jwt
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from inturn.embedded.ports import free_port
from inturn.session.state import utcnow
from inturn.settings import Settings
from producer.web import create_app
from tests.nodes import ProcessContainer, clean_environment
from tests.waiting import wait_until

SECRET = "a secret of thirty-two bytes, or more"
KEYS = "backend:0123456789abcdef-backend,other:0123456789abcdef-other"
BACKEND = {"Authorization": "Bearer 0123456789abcdef-backend"}


AnyClient = httpx.Client | TestClient


class Web(NamedTuple):
    """A web process, and a client of it."""

    process: ProcessContainer
    url: str
    client: httpx.Client

    def figures(self) -> dict[str, float]:
        """What Prometheus would read."""
        return figures(self.client.get("/metrics").text)

    def memory(self) -> dict[str, int]:
        """Threads, and resident memory in kilobytes."""
        lines = (Path("/proc") / str(self.process.pid) / "status").read_text().splitlines()
        said = dict(line.split(":", 1) for line in lines)
        return {"threads": int(said["Threads"]), "kilobytes": int(said["VmRSS"].split()[0])}


class Event(NamedTuple):
    """A server-sent event as a browser would see it."""

    kind: str
    data: dict[str, Any]
    id: str


@contextmanager
def web_process(directory: Path, env: Mapping[str, str]) -> Iterator[Web]:
    """Start `uvicorn producer.web:app` on loopback; gives it once it answers."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "producer.web:app", "--port", str(port)]
    process = ProcessContainer(
        "web", command, directory=directory, env={**clean_environment(), **env}, prompt="Uvicorn running"
    )
    url = f"http://127.0.0.1:{port}"
    try:
        process.start()
        with httpx.Client(base_url=url, timeout=40) as client:
            yield Web(process, url, client)
    finally:
        process.remove()
        print(f"--- {process.name}\n{process.tail()}")


@contextmanager
def web_here(
    settings: Settings, *, host: str = "127.0.0.1", address: str = "127.0.0.1"
) -> Iterator[TestClient]:
    """The application in this process, without a server: it is asked for `host`, from `address`."""
    app = create_app(settings)
    with TestClient(
        app, base_url=f"http://{host}", client=(address, 1), raise_server_exceptions=False
    ) as client:
        yield client


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Serve the application with uvicorn in a thread of this process; gives its URL."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(15)


def signed(user_id: str, *, secret: str = SECRET, algorithm: str = "HS256", **claims: Any) -> dict[str, str]:
    """The header that a signed-in user sends."""
    token = jwt.encode(
        {"sub": user_id, "exp": utcnow().timestamp() + 86_400, **claims}, secret, algorithm=algorithm
    )
    return {"Authorization": f"Bearer {token}"}


def events_in(lines: Iterable[str]) -> Iterator[Event]:
    """The events in the lines of a stream; comments and those without data are left out."""
    fields: dict[str, str] = {}
    last_id = ""
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
            continue
        last_id = fields.get("id", last_id)
        if "data" in fields:
            yield Event(fields.get("event", "message"), json.loads(fields["data"]), last_id)
        fields = {}


def follow(client: AnyClient, turn_id: str, after: str = "", **headers: str) -> list[Event]:
    """All events of a turn behind this one, to the last one."""
    with client.stream("GET", events_path(turn_id), headers={"Last-Event-ID": after, **headers}) as stream:
        assert stream.status_code == 200, stream.read()
        return list(events_in(stream.iter_lines()))


def events_path(turn_id: str) -> str:
    return f"/turns/{quote(turn_id, safe='')}/events"


def text_of(events: Iterable[Event], before: str = "") -> str:
    """What a reader shows that has `before` already."""
    for event in events:
        if event.kind == "piece":
            before = event.data["text"] if event.data["restarts"] else before + event.data["text"]
    return before


def figures(text: str) -> dict[str, float]:
    """Prometheus' format, read: the figures by their names with labels."""
    lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}
