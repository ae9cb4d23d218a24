"""A server whose answers a test writes itself, for what no double of OpenAI can be made to say."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

PATIENCE = 10.0
"""The most seconds that a server waits for anything."""


class Line:
    """One request, and the line to the client that made it."""

    def __init__(self, handler: BaseHTTPRequestHandler, over: threading.Event) -> None:
        self._handler = handler
        self._over = over
        self.path = handler.path
        self.port: int = handler.client_address[1]
        """Tells the client's connections apart."""
        self.is_complete = False
        """Whether the answer has come to its end; if not, the connection is closed over it."""
        self.body: dict[str, Any] = json.loads(handler.rfile.read(int(handler.headers["content-length"])))

    def says(
        self, body: str, content_type: str = "application/json", status: int = 200, **headers: str
    ) -> None:
        """Answer with a whole body."""
        self._head(status, content_type, {"content-length": str(len(body.encode())), **headers})
        self._handler.wfile.write(body.encode())
        self.is_complete = True

    def breaks_off(self, status: int = 200) -> None:
        """Answer with a body that ends before it is whole."""
        self._head(status, "application/json", {"content-length": "100"})
        self._handler.wfile.write(b"{")

    def streams(self, content_type: str = "text/event-stream") -> None:
        """Begin a stream. It breaks off when the function that answers returns before `ends`."""
        self._head(200, content_type, {"transfer-encoding": "chunked"})

    def event(self, data: Any) -> None:
        """Send one event of a stream."""
        kind = f"event: {data['type']}\n" if isinstance(data, dict) and "type" in data else ""
        self.raw(f"{kind}data: {data if isinstance(data, str) else json.dumps(data)}\n\n")

    def raw(self, text: str) -> None:
        """Send a part of a stream as it is."""
        self._handler.wfile.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())
        self._handler.wfile.flush()

    def ends(self) -> None:
        """End a stream as one that is complete."""
        self._handler.wfile.write(b"0\r\n\r\n")
        self.is_complete = True

    def waits(self, seconds: float = PATIENCE) -> None:
        """Say nothing for a while, or until the test is over."""
        self._over.wait(seconds)

    def is_closed_by_client(self) -> bool:
        """Wait until the client has closed the connection; False if it does not."""
        self._handler.connection.settimeout(PATIENCE)
        try:
            received: bytes = self._handler.connection.recv(1)
            return received == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def _head(self, status: int, content_type: str, headers: dict[str, str]) -> None:
        self._handler.send_response(status)
        for name, value in {"content-type": content_type, **headers}.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.end_headers()
        self._handler.wfile.flush()


class OwnServer:
    """A server on loopback; each request is answered by `answer`, in a thread of its own."""

    def __init__(self, answer: Callable[[Line], None]) -> None:
        over = self._over = threading.Event()
        lines = self.lines = list[Line]()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                line = Line(self, over)
                lines.append(line)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client has left
                    answer(line)
                self.close_connection = self.close_connection or not line.is_complete

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> OwnServer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
