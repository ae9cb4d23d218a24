"""Workers over an encrypted store: what they write is sealed, and who lacks the key destroys nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from inturn.client import Client
from inturn.keyring import KeyRing, create_key
from inturn.persistence import EncryptedAdapter, PersistenceAdapter
from inturn.session import create_session
from tests.integration.worker.conftest import StartWorker
from tests.waiting import wait_until

pytestmark = pytest.mark.process

MARKER = "Zwetschgenkuchen"


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
