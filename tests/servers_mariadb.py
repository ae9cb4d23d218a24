"""A MariaDB for tests: the one that `MARIADB_URL` names, else one started from an installed `mariadbd`."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql

from inturn.embedded.ports import free_port
from inturn.embedded.tether import tethered
from tests.waiting import wait_until


def why_no_mariadb() -> str | None:
    """Why there is none to be had; None if there is."""
    if os.environ.get("MARIADB_URL") or (_program("mariadbd") and _program("mariadb-install-db")):
        return None
    return (
        "needs MARIADB_URL, such as mariadb+pymysql://user:password@host/database, or an installed mariadbd"
    )


@contextmanager
def mariadb() -> Iterator[str]:
    """Give a URL of SQLAlchemy, of a database in which tests may create tables."""
    if url := os.environ.get("MARIADB_URL"):
        yield url
        return
    # Not below pytest's directory: the path of a Unix socket must be short.
    with (
        tempfile.TemporaryDirectory(prefix="inturn-mariadb-") as directory,
        _own_server(Path(directory)) as port,
    ):
        yield f"mariadb+pymysql://root@127.0.0.1:{port}/inturn"


@contextmanager
def _own_server(directory: Path) -> Iterator[int]:
    # As root, mariadbd asks to be told that this is meant.
    user = ["--user=root"] if os.geteuid() == 0 else []
    data, port = directory / "data", free_port()
    install = [_program("mariadb-install-db"), "--no-defaults", *user, f"--datadir={data}", "--skip-test-db"]
    subprocess.run([*install, "--auth-root-authentication-method=normal"], check=True, capture_output=True)
    server = [
        *(_program("mariadbd"), "--no-defaults", *user, f"--datadir={data}", f"--socket={directory}/socket"),
        *("--bind-address=127.0.0.1", f"--port={port}", f"--pid-file={directory}/pid"),
        # The character set of old: nothing may depend on the server's own.
        *("--character-set-server=latin1", "--innodb-flush-log-at-trx-commit=0", "--max-connections=300"),
    ]
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen(tethered(server), stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process,
    ):
        try:
            wait_until(lambda: _answers(port), what="MariaDB to answer", timeout=60)
            yield port
        finally:
            process.terminate()
            process.wait(60)


def _answers(port: int) -> bool:
    try:
        with pymysql.connect(host="127.0.0.1", port=port, user="root") as connection:
            connection.cursor().execute("CREATE DATABASE IF NOT EXISTS inturn")
    except pymysql.Error:
        return False
    return True


def _program(name: str) -> str:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin") or ""
