"""`make audit`: what it finds, and that it says so where it could not look."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from inturn.embedded.ports import free_port
from tests.nodes import ROOT

ID = "PYSEC-2026-1"
HOLE: dict[str, Any] = {
    "schema_version": "1.6.0",
    "id": ID,
    "modified": "2026-11-01T00:00:00Z",
    "published": "2026-11-01T00:00:00Z",
    "summary": "a hole",
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "pydantic"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}],
        }
    ],
}


@contextmanager
def osv(*, hole: bool) -> Iterator[tuple[str, set[str]]]:
    """A database of known holes on loopback; gives its URL and the names that it was asked about."""
    asked: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            names = [query["package"]["name"] for query in queries]
            asked.update(names)
            found = {"vulns": [{"id": HOLE["id"], "modified": HOLE["modified"]}]}
            self._answer({"results": [found if hole and name == "pydantic" else {} for name in names]})

        def do_GET(self) -> None:
            self._answer(HOLE)

        def _answer(self, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def audit(url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(ROOT / "scripts" / "audit"), f"--service-url={url}"],
        env={**os.environ, "UV_HTTP_RETRIES": "0", "NO_PROXY": "127.0.0.1", "UV_OFFLINE": "0"},
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture(scope="module", autouse=True)
def needs_uv() -> None:
    """uv is there after `make setup`; where it is not, it would have to be downloaded."""
    if not (ROOT / ".cache" / "uv-venv").exists():
        found = subprocess.run(["uv", "--version"], capture_output=True, check=False)
        if found.returncode:
            pytest.skip("uv is not installed")


def test_without_a_known_hole_it_ends_well_and_has_asked_about_the_whole_lock_file() -> None:
    with osv(hole=False) as (url, asked):
        done = audit(url)

    assert done.returncode == 0, done.stderr
    assert {"pydantic", "celery", "mkdocs-material", "secantusdb"} <= asked


def test_a_known_hole_is_named() -> None:
    with osv(hole=True) as (url, _):
        done = audit(url)

    assert done.returncode == 1, done.stderr
    assert ID in done.stdout + done.stderr
    assert "pydantic" in done.stdout + done.stderr
    assert "NOT AUDITED" not in done.stderr


def test_what_nobody_could_be_asked_is_not_said_to_be_well() -> None:
    done = audit(f"http://127.0.0.1:{free_port()}")

    assert done.returncode == 2
    assert "NOT AUDITED" in done.stderr
    assert "packages in uv.lock" in done.stderr
