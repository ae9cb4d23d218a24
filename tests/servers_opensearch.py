"""The OpenSearch the tests talk to: a real one, named by the environment, or a re-implementation of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from osmem_server import resolve_binary

from inturn.embedded.ports import free_port
from tests.waiting import wait_until


@contextmanager
def opensearch() -> Iterator[str]:
    """Give the URL of an OpenSearch: `OPENSEARCH_URL` if it names one, else that of an osmem-server.

    osmem-server speaks OpenSearch's protocol and keeps everything in memory; what is written is visible to
    searches at once, so only a real server shows a forgotten refresh.
    """
    named = os.environ.get("OPENSEARCH_URL", "")
    if named.startswith(("opensearch://", "opensearchs://")):
        yield named
    else:
        with own_opensearch() as (_, url):
            yield url


@contextmanager
def own_opensearch(port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Give an osmem-server that the test may kill, and its URL; it ends with this process at the latest."""
    command = [resolve_binary(None), "-addr", f"127.0.0.1:{port}", "-no-stdin-watch", "-no-ja"]
    with subprocess.Popen(
        [*command, "-parent-pid", str(os.getpid())], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            yield process, ready["url"].replace("http://", "opensearch://")
        finally:
            process.kill()


@contextmanager
def noida_db(directory: Path) -> Iterator[str]:
    """Give the URL of another re-implementation, which knows no unrefreshed document: a second opinion."""
    port = free_port()
    binary = Path(str(resources.files("noida_db"))) / "noida-db"
    binary.chmod(0o755)
    command = [str(binary), "start", "--only", "elasticsearch"]
    with subprocess.Popen(
        [*command, "--elasticsearch-port", str(port), "--data-dir", str(directory)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            wait_until(lambda: _accepts(port), what="noida-db")
            yield f"opensearch://127.0.0.1:{port}"
        finally:
            process.kill()


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
