"""What becomes of a result when something beside its store is away."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from celery import Celery

from inturn.contract import Response, TurnResult
from inturn.embedded.valkey import EmbeddedValkey
from inturn.settings import load_settings
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
