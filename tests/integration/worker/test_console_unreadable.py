"""The console over a store of which not all can be read: it is told, closes nothing, and can be erased."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from inturn.client import Client
from inturn.keyring import KeyRing, create_key
from inturn.persistence import EncryptedAdapter, PersistenceAdapter
from inturn.session import create_session
from inturn.session.state import create_message
from tests.console import OPERATORS, act, sign_in
from tests.integration.worker.conftest import WebHere

pytestmark = pytest.mark.process

OLD, NEW = create_key("old"), create_key("new")
MARKER = "Zwetschgenkuchen"


@pytest.fixture
def web(here: WebHere, store: PersistenceAdapter, tmp_path: Path) -> TestClient:
    """A console without the key `old`: session `s` is sealed with it, and of `t` the first message."""
    sealed = EncryptedAdapter(store, KeyRing.read_text(OLD))
    said = create_message("s", "user", MARKER)
    sealed.commit(create_session("s", user_id="ann", data={"cake": MARKER}), [said], expected_version=0)
    sealed.commit(create_session("t"), [create_message("t", "user", MARKER)], expected_version=0)
    both = EncryptedAdapter(store, KeyRing.read_text(f"{NEW}\n{OLD}\n"))
    found = both.load("t")
    assert found is not None
    both.commit(found.session, [create_message("t", "assistant", "hello")], expected_version=1)
    both.commit(create_session("u"), [create_message("u", "user", "as ever")], expected_version=0)
    web = here(console_users=OPERATORS, encryption_keys=NEW, audit_log=tmp_path / "audit")
    sign_in(web)
    return web


def test_the_list_tells_which_session_cannot_be_read_and_why(web: TestClient) -> None:
    answered = web.get("/console/sessions")

    assert answered.status_code == 200
    for session in "stu":
        assert f'href="/console/sessions/{session}"' in answered.text
    assert answered.text.count("cannot be read") == 1
    assert "key &#39;old&#39;" in answered.text
    assert "ann" in answered.text


@pytest.mark.parametrize("session", ["s", "t"])
def test_the_page_of_a_session_tells_why_it_or_what_was_said_cannot_be_read(
    session: str, web: TestClient
) -> None:
    answered = web.get(f"/console/sessions/{session}")

    assert answered.status_code == 200
    assert "It cannot be read: session" in answered.text
    assert "key &#39;old&#39;" in answered.text
    assert MARKER not in answered.text
    assert f"/console/act/erase?session={session}" in answered.text


@pytest.mark.parametrize(("session", "kinds"), [("s", "unreadable end"), ("t", "session unreadable end")])
def test_an_export_goes_on_to_its_end(session: str, kinds: str, web: TestClient) -> None:
    answered = act(web, f"/console/act/export?session={session}")

    lines = [json.loads(line) for line in answered.text.splitlines()]
    assert [line["type"] for line in lines] == kinds.split()
    assert "'old'" in lines[-2]["reason"]


def test_an_operator_erases_what_nobody_can_read(web: TestClient, store: PersistenceAdapter) -> None:
    answered = act(web, "/console/act/erase?session=s")

    assert answered.headers["location"] == "/console/sessions?note=erased"
    assert store.load("s") is None
    assert web.get("/console/sessions/s").status_code == 404
    assert store.load("t") is not None


def test_what_cannot_be_read_is_not_erased_while_a_turn_of_it_waits(
    web: TestClient, store: PersistenceAdapter, client: Client
) -> None:
    client.respond("s", "hello")

    assert act(web, "/console/act/erase?session=s").status_code == 409
    assert store.load("s") is not None
