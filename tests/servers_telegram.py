"""Telegram's Bot API as far as a bot that answers needs it: strict, and it refuses what a test says."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

TOKEN = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
SECRET = "webhook_secret-1"


class Telegram:
    """`messages` are those that were taken. `refusals` are answered first, each to one call.

    A refusal is a status and, for 429, the seconds to wait.
    """

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.refusals: list[tuple[int, int]] = []
        self.faults: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def env(self) -> dict[str, str]:
        """What `examples.telegram` needs to find it."""
        return {
            "INTURN_CHANNELS": "examples.telegram:channel",
            "TELEGRAM_TOKEN": TOKEN,
            "TELEGRAM_SECRET": SECRET,
            "TELEGRAM_SERVER": self.url,
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, content_type: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Do what the Bot API does with a call."""
        if path != f"/bot{TOKEN}/sendMessage":
            return self._fault(404, f"Not Found: {path}")
        if content_type != "application/json":
            return self._fault(400, f"Bad Request: {content_type}")
        call = json.loads(body)
        if set(call) != {"chat_id", "text"} or type(call["chat_id"]) is not int:
            return self._fault(400, "Bad Request: chat_id and text are wanted")
        length = len(call["text"].encode("utf-16-le")) // 2
        if not 1 <= length <= 4096:
            return self._fault(400, f"Bad Request: message is too long, {length}")
        if self.refusals:
            code, wait = self.refusals.pop(0)
            parameters = {"parameters": {"retry_after": wait}} if code == 429 else {}
            return code, {"ok": False, "error_code": code, "description": "Refused", **parameters}
        self.messages.append(call)
        return 200, {"ok": True, "result": {"message_id": 100 + len(self.messages)}}

    def _fault(self, code: int, description: str) -> tuple[int, dict[str, Any]]:
        self.faults.append(description)
        return code, {"ok": False, "error_code": code, "description": description}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        telegram = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                code, answer = telegram.answer(self.path, self.headers["Content-Type"], body)
                text = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def update(number: int, text: str, *, chat: int = 7) -> dict[str, Any]:
    """What Telegram sends to a webhook for a message in a private chat."""
    user = {"id": chat, "is_bot": False, "first_name": "Ada", "language_code": "en"}
    return {
        "update_id": number,
        "message": {
            "message_id": number % 1000,
            "from": user,
            "chat": {"id": chat, "first_name": "Ada", "type": "private"},
            "date": 1_764_000_000,
            "text": text,
        },
    }
