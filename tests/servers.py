"""The servers the tests talk to: one that runs already, named by the environment, or an embedded one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inturn.embedded.postgres import EmbeddedPostgres


@contextmanager
def postgres(tmp_dir: Path) -> Iterator[str]:
    """Give the URL of a PostgreSQL: `DATABASE_URL` if it names one, else one that runs in `tmp_dir`."""
    url = os.environ.get("DATABASE_URL", "")
    if url.startswith(("postgresql://", "postgres://")):
        yield url
    else:
        with own_postgres(tmp_dir) as server:
            yield server.url


@contextmanager
def own_postgres(tmp_dir: Path) -> Iterator[EmbeddedPostgres]:
    """Give an embedded PostgreSQL that the test may stop, kill and start again."""
    with tempfile.TemporaryDirectory(prefix="inturn-postgres-") as everybodys:
        # As root the server runs as `nobody`, to whom pytest's directories are closed.
        directory = Path(everybodys) if os.geteuid() == 0 else tmp_dir
        directory.chmod(0o711)
        with EmbeddedPostgres(directory / "postgres", fsync=False) as server:
            yield server
