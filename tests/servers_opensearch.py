"""The OpenSearch the tests talk to: a real one, named by the environment, or a re-implementation of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from osmem_server import resolve_binary


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
