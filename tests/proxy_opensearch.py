"""Proxy: stands between adapters and OpenSearch, counts what passes, and stops it where a test says."""

from __future__ import annotations

import json
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit


class Exchange(NamedTuple):
    """One request and the size of its answer, in bytes; `step` is its part in the protocol of a commit."""

    step: str
    sent: int
    received: int


class Gate:
    """Stops the next request of a step, before it is carried out or before it is answered."""

    def __init__(self, step: str, before: Literal["request", "answer"], skip: int) -> None:
        self.step = step
        self.skip = skip
        self.before = before
        self._reached = threading.Event()
        self._opened = threading.Event()
        self._passing = True

    def wait(self) -> None:
        """Return once a request waits here."""
        assert self._reached.wait(30), f"no {self.step} came"

    def open(self, *, passing: bool = True) -> None:
        """Let it go on, or, if it is not `passing`, cut its connection."""
        self._passing = passing
        self._opened.set()

    def hold(self) -> bool:
        """Wait until the gate is opened; False: cut the connection."""
        self._reached.set()
        self._opened.wait(60)
        return self._passing


class Proxy:
    """A server that passes everything on to another; a context manager."""

    def __init__(self, url: str) -> None:
        self._upstream = urlsplit(url).netloc
        self._gates: list[Gate] = []
        self._lock = threading.Lock()
        self.exchanges: list[Exchange] = []
        self.answering_html = False
        """Whether to answer everything with a page, as a proxy does that has lost its way."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def do_POST(self) -> None:
                proxy._pass(self)

            do_GET = do_PUT = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True)
        self.url = f"opensearch://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for gate in self._gates:
            gate.open(passing=False)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def stop_at(self, step: str, *, before: Literal["request", "answer"] = "request", skip: int = 0) -> Gate:
        """Stop the next request of a step, after `skip` others.

        A step is `look`, `new`, `reserve`, `swap`, `dead`, or the end of the path.
        """
        gate = Gate(step, before, skip)
        with self._lock:
            self._gates.append(gate)
        return gate

    def taken(self) -> list[Exchange]:
        """What has passed since the last call."""
        with self._lock:
            exchanges, self.exchanges = self.exchanges, []
        return exchanges

    def _pass(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        step = _step(handler.path, body)
        with self._lock:
            gate = next((each for each in self._gates if each.step == step), None)
            if gate is not None and gate.skip:
                gate.skip -= 1
                gate = None
            elif gate is not None:
                self._gates.remove(gate)
        if gate is not None and gate.before == "request" and not gate.hold():
            handler.close_connection = True
            return
        connection = HTTPConnection(self._upstream, timeout=60)
        connection.request(handler.command, handler.path, body, dict(handler.headers))
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        with self._lock:
            self.exchanges.append(Exchange(step, len(body), len(answer)))
        if gate is not None and gate.before == "answer" and not gate.hold():
            handler.close_connection = True
            return
        kind = response.headers["Content-Type"]
        if self.answering_html:
            answer, kind = b"<html>Welcome</html>", "text/html"
        handler.send_response(response.status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer)


def _step(path: str, body: bytes) -> str:
    path = path.partition("?")[0]
    if path == "/_mget":
        return "look"
    if path != "/_bulk":
        return path.rpartition("/")[2]
    lines = body.split(b"\n", 2)
    ((action, _),) = json.loads(lines[0]).items()
    phase: str | None = json.loads(lines[1]).get("phase") if action != "delete" else None
    if phase is None:
        return "take back" if action == "delete" else "reserve"
    return {"live": "swap"}.get(phase, phase)
