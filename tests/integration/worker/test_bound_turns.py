"""Turns that are bound to a user: a worker refuses them in another's session, and touches nothing of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery import Celery

from inturn.client import Client, TurnHandle
from inturn.errors import SessionAccessError
from inturn.persistence import PersistenceAdapter
from inturn.session.state import create_message, create_session
from tests.agents import let_go, read_journal
from tests.integration.worker.conftest import StartWorker
from tests.waiting import wait_until

pytestmark = pytest.mark.process

SECRET = "what only bob may read"


@pytest.fixture(autouse=True)
def others(store: PersistenceAdapter) -> None:
    for session_id, user_id in (("bobs", "bob"), ("nobodys", None)):
        session = create_session(session_id, user_id=user_id, data={"note": SECRET})
        store.commit(session, [create_message(session_id, "user", SECRET)], expected_version=0)


def bound_turns(client: Client, session_id: str) -> list[TurnHandle]:
    return [
        client.respond(session_id, "what did bob say?", user_id="ann", bound=True),
        client.respond(session_id, "what did bob say?", user_id="ann", bound=True, stream=True),
        client.save_session(session_id, data={"note": "mine"}, user_id="ann", bound=True),
    ]


def test_anothers_session_is_neither_read_nor_written(
    start_worker: StartWorker,
    client: Client,
    store: PersistenceAdapter,
    celery_setup_app: Celery,
    journal: Path,
) -> None:
    before = [store.load(session_id, last_messages=10) for session_id in ("bobs", "nobodys")]
    start_worker()
    turns = [*bound_turns(client, "bobs"), *bound_turns(client, "nobodys")]
    bare = {"session_id": "bobs", "message": "what did bob say?", "user_id": "ann", "bound": True}
    celery_setup_app.send_task("respond", kwargs=bare, queue="turns", task_id="bobs:bare")

    for turn in (*turns, client.handle("bobs", "bare")):
        with pytest.raises(SessionAccessError) as refused:
            turn.get(timeout=60)
        assert refused.value.session_id == turn.session_id
        assert str(refused.value) == f"the user that the turn is bound to has no session {turn.session_id!r}"
        with pytest.raises(SessionAccessError):
            assert [piece.text for piece in turn.stream(timeout=30)] in ([], [""])
        assert turn.status() == "failed"
        with pytest.raises(SessionAccessError) as told:
            celery_setup_app.AsyncResult(turn.turn_id).get(timeout=30)
        assert str(told.value) == str(refused.value)
        assert vars(told.value) == vars(refused.value)
    assert [store.load(session_id, last_messages=10) for session_id in ("bobs", "nobodys")] == before
    assert read_journal(journal) == []
    assert client.dead.find() == []


def test_whatever_is_not_bound_to_another_goes_on_beside_it(
    start_worker: StartWorker, client: Client, store: PersistenceAdapter, journal: Path
) -> None:
    bound = client.respond("bobs", "bound", user_id="ann", bound=True, overlap="merge")
    unbound = client.respond("bobs", "unbound", user_id="ann", overlap="merge")
    bobs = client.respond("bobs", "hello", user_id="bob", bound=True)
    anns = [client.respond("anns", text, user_id="ann", bound=True) for text in ("one", "two")]
    start_worker()

    assert [turn.get(timeout=60).message for turn in (unbound, bobs, *anns)] == [
        f"you said: {text}" for text in ("unbound", "hello", "one", "two")
    ]
    with pytest.raises(SessionAccessError):
        bound.get(timeout=5)
    assert "bound" not in [call.text for call in read_journal(journal)]
    found = store.load("anns")
    assert found is not None
    assert found.session.user_id == "ann"


def test_it_interrupts_nobody(start_worker: StartWorker, client: Client, journal: Path) -> None:
    start_worker()
    running = client.respond("bobs", "pause", user_id="bob", stream=True)
    wait_until(lambda: read_journal(journal))

    refused = client.respond("bobs", "stop!", user_id="ann", bound=True, overlap="interrupt")
    let_go(journal)

    assert running.get(timeout=60).finish_reason == "stop"
    with pytest.raises(SessionAccessError):
        refused.get(timeout=60)
