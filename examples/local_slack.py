"""Slack on your own machine: what you type is sent as Slack would send it, what the bot posts is shown.

It has both sides of Slack: it signs a direct message of a user for the webhook, and stands in for the Web API
that the reply goes to. docs/quickstart.md uses it.

    python examples/local_slack.py [address of the web application]
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

REPLIED = threading.Event()


class WebAPI(BaseHTTPRequestHandler):
    """Slack's side of a reply: takes `chat.postMessage`, and answers with the message's ID."""

    def do_POST(self) -> None:
        """Show the reply, and let whoever waits for it know."""
        posted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print(f"chat.postMessage to {posted['channel']}: {posted['text']}", flush=True)
        answer = json.dumps({"ok": True, "ts": f"{time.time():.6f}"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        REPLIED.set()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of each request."""


def event(text: str) -> bytes:
    """A direct message as Slack sends it to a webhook; the message's ID is its time."""
    message = {"type": "message", "channel_type": "im", "channel": "D0LOCAL", "user": "U0YOU", "text": text}
    body = {"type": "event_callback", "team_id": "T0LOCAL", "event": {**message, "ts": f"{time.time():.6f}"}}
    return json.dumps(body).encode()


def deliver(webhook: str, body: bytes, secret: str) -> None:
    """Send an event to the webhook, signed as Slack signs: over the time and the raw body."""
    now = str(int(time.time()))
    digest = hmac.new(secret.encode(), f"v0:{now}:".encode() + body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "X-Slack-Request-Timestamp": now,
        "X-Slack-Signature": f"v0={digest}",
    }
    urllib.request.urlopen(urllib.request.Request(webhook, body, headers), timeout=30).close()  # noqa: S310


def main(address: str = "http://127.0.0.1:8000") -> int:
    """Take lines from the terminal until it ends, and show the reply to each."""
    api = urlsplit(os.environ["INTURN_SLACK_BASE_URL"])
    server = ThreadingHTTPServer((api.hostname or "127.0.0.1", api.port or 80), WebAPI)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    if sys.stdin.isatty():
        print("Write to the bot, a line each; Ctrl-D ends.")
    for line in sys.stdin:
        if not line.strip():
            continue
        REPLIED.clear()
        try:
            deliver(f"{address}/channels/slack", event(line.strip()), os.environ["SLACK_SIGNING_SECRET"])
        except urllib.error.URLError as error:
            print(f"the webhook at {address} did not take it: {error}", file=sys.stderr)
            return 1
        if not REPLIED.wait(60):
            print("no reply came within a minute; what does the log of the workers say?", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
