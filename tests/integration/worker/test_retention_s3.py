"""Exports of retention in an object store: whole or not there, and nothing is deleted that is not in one."""

from __future__ import annotations

import base64
import json
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pytest
import s3fs  # type: ignore[import-untyped]

from inturn.client import Client
from inturn.embedded.ports import free_port
from inturn.embedded.tether import tethered
from inturn.errors import StoreUnavailableError
from inturn.persistence import MessageQuery, Page, PersistenceAdapter, SessionQuery
from inturn.persistence.exporting import SessionExport, read_export
from inturn.persistence.memory import MemoryAdapter
from inturn.session import create_session
from inturn.session.state import Message, create_message
from inturn.settings import Settings
from inturn.turns.connection import connect
from inturn.turns.keys import Keys
from inturn.turns.retention_runs import ALONE_SECONDS
from tests.integration.worker.conftest import StartWorker
from tests.nodes import clean_environment
from tests.waiting import wait_until

pytestmark = pytest.mark.process

PART = 5 * 2**20
PLACE = "s3://chat/exports"
IDS = ["s0", "s1", "s2"]
DYING = """
import os, signal
from worker.retention import clean_up
from worker.runtime import current_runtime

runtime, find, calls = current_runtime(), current_runtime().adapter.find_messages, []

def die_in_the_middle(query):
    calls.append(query.session_id)
    if len(set(calls)) == 3 and runtime.retention_began:
        os.kill(os.getpid(), signal.SIGKILL)
    return find(query)

import worker.retention
write = worker.retention.SessionExport.write

def begin(self, adapter, sessions):
    calls.clear()
    runtime.retention_began = True
    return write(self, adapter, sessions)

runtime.retention_began = False
worker.retention.SessionExport.write = begin
runtime.adapter.find_messages = die_in_the_middle
clean_up(runtime)
"""


class Bucket:
    """A bucket of an S3 server of this test's own."""

    def __init__(self, port: int, directory: Path) -> None:
        self._port = port
        self._log = directory / "moto.txt"
        self.env = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
            # The smallest parts that S3 takes, so that little is on its way early.
            "FSSPEC_S3": json.dumps({"default_block_size": PART}),
        }

    @contextmanager
    def served(self) -> Iterator[s3fs.S3FileSystem]:
        """Serve it while the block runs; it begins empty."""
        command = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(self._port)]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                tethered(command, on_death=signal.SIGKILL), stdout=log, stderr=log, env=clean_environment()
            )
        try:
            s3 = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
            wait_until(lambda: self._begun(s3), timeout=60, what="the S3 server")
            yield s3
        finally:
            process.kill()
            process.wait()

    def _begun(self, s3: s3fs.S3FileSystem) -> bool:
        try:
            s3.mkdir("chat")
        except Exception:  # whatever its driver raises while nobody listens
            return False
        return True


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    bucket = Bucket(free_port(), tmp_path)
    for name, value in bucket.env.items():
        monkeypatch.setenv(name, value)
    # Of the environment it was read before.
    monkeypatch.setitem(fsspec.config.conf, "s3", {"default_block_size": PART})
    return bucket


@pytest.fixture
def worker_env(worker_env: dict[str, str], bucket: Bucket) -> dict[str, str]:
    return {
        **worker_env,
        **bucket.env,
        "INTURN_RETENTION_EXPORT": PLACE,
        "INTURN_COMPLETED_DAYS": "0.000001",
        "INTURN_LEASE_SECONDS": "2",
        "INTURN_RENEW_SECONDS": "0.5",
    }


def fill(store: PersistenceAdapter) -> None:
    """Sessions of several parts of an upload each, as nothing of them can be compressed."""
    for session_id in IDS:
        lines = [
            create_message(session_id, "user", base64.b64encode(secrets.token_bytes(700_000)).decode())
            for _ in range(9)
        ]
        store.commit(create_session(session_id, status="completed"), lines, expected_version=0)


def files(s3: s3fs.S3FileSystem) -> list[str]:
    found: list[str] = s3.find("chat")
    return found


def uploads(s3: s3fs.S3FileSystem) -> list[Any]:
    """Uploads that were begun and neither ended nor given up."""
    found: list[Any] = s3.call_s3("list_multipart_uploads", Bucket="chat").get("Uploads", [])
    return found


def let_the_killed_one_be_missed(settings: Settings) -> None:
    """What keeps others from beginning lapses by itself; this takes the rest of its minute away."""
    lock = Keys(settings.key_prefix).retention_lock
    with connect(settings) as redis:
        assert 0 < redis.pttl(lock) <= ALONE_SECONDS * 1000
        redis.pexpire(lock, 1)


def test_sessions_are_read_back_and_what_breaks_off_leaves_nothing(bucket: Bucket) -> None:
    class Breaking(MemoryAdapter):
        breaks = False

        def find_messages(self, query: MessageQuery) -> Page[Message]:
            if self.breaks and query.session_id == IDS[-1]:
                raise StoreUnavailableError
            return super().find_messages(query)

    store = Breaking()
    fill(store)
    sessions = store.find_sessions(SessionQuery(order="oldest")).items
    with bucket.served() as s3:
        store.breaks = True
        with pytest.raises(StoreUnavailableError):
            SessionExport(PLACE).write(store, sessions)
        assert files(s3) == []
        assert uploads(s3) == []

        store.breaks = False
        path = SessionExport(PLACE).write(store, sessions).path

        assert files(s3) == [path.removeprefix("s3://")]
        found = list(read_export(path))
        assert [each.session for each in found] == sessions
        for each in found:
            lines = store.find_messages(MessageQuery(session_id=each.session.id)).items
            assert each.messages == lines


def test_a_killed_upload_leaves_nothing_and_nothing_is_deleted_before_one_is_whole(
    bucket: Bucket,
    worker_env: dict[str, str],
    start_worker: StartWorker,
    client: Client,
    store: PersistenceAdapter,
    turn_settings: Settings,
    tmp_path: Path,
) -> None:
    fill(store)
    # Nobody listens there.
    start_worker()
    with pytest.raises(Exception, match="INTURN_RETENTION_EXPORT"):
        client.cleanup_sessions().get(timeout=60)
    assert sum(store.load(session_id) is not None for session_id in IDS) == 3

    with bucket.served() as s3:
        killed = subprocess.run(
            [sys.executable, "-c", DYING],
            cwd=tmp_path,
            env={**clean_environment(), **worker_env},
            capture_output=True,
            timeout=100,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert uploads(s3), "it was killed too early: nothing was on its way"
        assert files(s3) == []
        assert sum(store.load(session_id) is not None for session_id in IDS) == 3

        let_the_killed_one_be_missed(turn_settings)
        wait_until(
            lambda: store.load(IDS[-1]) is None if client.cleanup_sessions().get(60) else False, timeout=90
        )
        assert all(store.load(session_id) is None for session_id in IDS)
        (path,) = files(s3)
        found = list(read_export(f"s3://{path}"))
        assert [(each.session.id, len(each.messages)) for each in found] == [(name, 9) for name in IDS]
