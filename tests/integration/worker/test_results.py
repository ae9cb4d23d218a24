"""What becomes of a result when something beside its store is away."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery

from inturn.client import Client
from inturn.contract import Response, TurnFault, TurnResult
from inturn.embedded.valkey import EmbeddedValkey
from inturn.errors import SessionAccessError, TurnFailedError
from inturn.settings import load_settings
from worker.erased import erased
from worker.results import Results


def test_a_result_is_stored_although_no_monitor_can_be_told(tmp_path: Path, redis_url: str) -> None:
    response = Response(message="hello", session_id="s", turn_id="s:test-results")
    result = TurnResult(kind="respond", session_id="s", turn_id=response.turn_id, response=response)
    with (
        EmbeddedValkey(tmp_path / "broker") as broker,
        Celery(broker=broker.url, backend=redis_url, set_as_current=False) as app,
        app.connection_for_write() as connection,
    ):
        dispatcher = app.events.Dispatcher(connection, buffer_while_offline=False)
        results = Results(app, load_settings(redis_url=redis_url))
        results.consumer = SimpleNamespace(event_dispatcher=dispatcher)
        broker.stop()

        results.store(result, own=False, runtime=0.1)

        stored = app.AsyncResult(result.turn_id)
        assert stored.get(timeout=5)["response"]["message"] == "hello"
        stored.forget()


def test_a_reply_that_is_stored_already_gives_way_to_that_its_user_was_erased(redis_url: str) -> None:
    turn_id = "s:test-results-erased"
    response = Response(message="what was said", session_id="s", turn_id=turn_id)
    result = TurnResult(kind="respond", session_id="s", turn_id=turn_id, response=response)
    with Celery(broker=redis_url, backend=redis_url, set_as_current=False) as app:
        results = Results(app, load_settings(redis_url=redis_url))
        results.store(result, own=False, runtime=0.1)
        assert app.AsyncResult(turn_id).state == "SUCCESS"

        [late] = erased("s", [turn_id], 1)
        results.store(late, own=False, runtime=0.1)

        stored = app.AsyncResult(turn_id)
        assert stored.state == "FAILURE"
        assert "what was said" not in repr(stored.result)
        assert "SessionErasedError" in str(stored.result)
        stored.forget()


def test_a_turn_that_reached_for_anothers_session_failed_and_was_not_refused(redis_url: str) -> None:
    turn_id = "s:test-results-reached"
    result = TurnResult(
        kind="respond",
        session_id="s",
        turn_id=turn_id,
        state="failed",
        response=Response(message="sorry", session_id="s", turn_id=turn_id, finish_reason="failed"),
        # What one of its hooks has raised.
        error=TurnFault(type="SessionAccessError", message=str(SessionAccessError("bobs", "ann"))),
    )
    settings = load_settings(redis_url=redis_url)
    with (
        Celery(broker=redis_url, backend=redis_url, set_as_current=False) as app,
        Client(settings, app=app) as client,
    ):
        Results(app, settings).store(result, own=False, runtime=0.1)

        with pytest.raises(TurnFailedError, match="user 'ann' has no session 'bobs'"):
            client.handle("s", turn_id).get(timeout=5)
        with pytest.raises(TurnFailedError, match="user 'ann' has no session 'bobs'"):
            app.AsyncResult(turn_id).get(timeout=5)
        app.AsyncResult(turn_id).forget()
