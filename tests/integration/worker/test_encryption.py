"""Workers over an encrypted store: what they write is sealed, and who lacks the key destroys nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from inturn.client import Client
from inturn.errors import TurnFailedError
from inturn.keyring import KeyRing, create_key
from inturn.persistence import EncryptedAdapter, PersistenceAdapter
from inturn.session import create_session
from inturn.settings import load_settings
from tests.integration.worker.conftest import StartWorker
from tests.waiting import wait_until

pytestmark = pytest.mark.process

MARKER = "Zwetschgenkuchen"
KEY = create_key("only")
SEALED = {"INTURN_ENCRYPTION_KEYS": KEY, "INTURN_ENCRYPT_REDIS": "true", "INTURN_INBOX": "database"}


@pytest.fixture
def fast(fast: dict[str, str]) -> dict[str, str]:
    return {**fast, "INTURN_MAX_ATTEMPTS": "2"}


def test_a_worker_without_the_key_leaves_session_and_turns_as_they_are(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, fast: dict[str, str], tmp_path: Path
) -> None:
    old, new = create_key("old"), create_key("new")
    file = tmp_path / "keys"
    file.write_text(f"{new}\n{old}\n")
    sealed = EncryptedAdapter(store, KeyRing.read_text(old))
    sealed.commit(create_session("s", data={"cake": MARKER}), expected_version=0)
    before = store.load("s")
    lacking = start_worker(**fast)
    handles = [client.save_session("s", data={"more": MARKER}), client.respond("s", f"a {MARKER}")]
    wait_until(lambda: lacking.logs().count("turn will be tried again") > 2, what="more tries than attempts")

    assert store.load("s") == before
    assert "EncryptionKeyError" in lacking.logs()
    assert MARKER not in lacking.logs()
    lacking.kill("SIGKILL")
    start_worker(**fast, INTURN_ENCRYPTION_KEYS=str(file))
    assert handles[0].get(timeout=30).finish_reason == "saved"
    assert handles[1].get(timeout=30).message
    found = EncryptedAdapter(store, KeyRing.read_text(file.read_text())).load("s", last_messages=10)
    assert found is not None
    assert found.session.data["more"] == MARKER
    assert found.messages[0].content == f"a {MARKER}"
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("sessions.db*"))
    assert MARKER.encode() not in stored
    assert b"v1:new:" in stored


@pytest.fixture
def sealing(broker_url: str, store_url: str) -> Iterator[Client]:
    """A client that has the keys."""
    settings = load_settings(
        redis_url=broker_url,
        database_url=store_url,
        encryption_keys=KEY,
        encrypt_redis=True,
        inbox="database",
    )
    with Client(settings) as client:
        yield client


def read_all(url: str, folder: Path) -> str:
    """Whatever is in Redis and in the files of SQLite."""
    found = [path.read_bytes() for path in folder.glob("sessions.db*")]
    with Redis.from_url(url) as client:
        reading: dict[bytes, Callable[[bytes], object]] = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"set": client.smembers,
            b"zset": lambda key: client.zrange(key, 0, -1),
            b"stream": lambda key: client.xrange(key),
        }
        for key in client.scan_iter():
            kind: Any = client.type(key)
            found.append(key + repr(reading[kind](key)).encode())
    return b"\n".join(found).decode(errors="replace")


def test_nothing_that_was_said_is_in_redis_or_in_the_inbox(
    start_worker: StartWorker, sealing: Client, broker_url: str, tmp_path: Path
) -> None:
    handles = [
        sealing.respond("s", f"{MARKER} 1"),
        sealing.respond("s", f"{MARKER} 2", overlap="merge"),
        sealing.respond("s", f"{MARKER} 3", overlap="merge"),
        sealing.save_session("s", data={"cake": MARKER}),
        sealing.respond("other", f"refused {MARKER}"),
    ]
    waiting = read_all(broker_url, tmp_path)
    assert waiting.count("v1:only:") >= 10, "each is in the mailbox and in the inbox"
    assert MARKER not in waiting

    worker = start_worker(**SEALED)
    assert MARKER in handles[0].get(timeout=30).message
    assert MARKER in handles[2].get(timeout=30).message
    assert handles[3].get(timeout=30).data["cake"] == MARKER
    with pytest.raises(TurnFailedError):
        handles[4].get(timeout=30)
    ended = read_all(broker_url, tmp_path)
    assert MARKER not in ended
    assert "celery-task-meta" in ended
    assert MARKER not in worker.logs()
    (letter,) = sealing.dead.find()
    assert MARKER in (sealing.dead.payload(letter) or "")


def test_a_turn_that_is_sealed_waits_for_a_worker_with_the_key(
    start_worker: StartWorker, sealing: Client, fast: dict[str, str]
) -> None:
    handle = sealing.respond("s", MARKER)
    lacking = start_worker(**fast, INTURN_INBOX="database")
    wait_until(lambda: lacking.logs().count("payload not opened") > 2, what="more tries than attempts")
    assert "INTURN_ENCRYPTION_KEYS" in lacking.logs()
    lacking.kill("SIGKILL")
    start_worker(**fast, **SEALED)
    assert MARKER in handle.get(timeout=30).message


def test_a_worker_with_keys_takes_what_is_not_sealed(start_worker: StartWorker, client: Client) -> None:
    handle = client.respond("s", MARKER)
    start_worker(INTURN_ENCRYPTION_KEYS=KEY)
    assert MARKER in handle.get(timeout=30).message
