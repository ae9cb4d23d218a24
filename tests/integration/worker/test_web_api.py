"""The whole web API, asked what its description allows and what it does not: schemathesis thinks it up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_schema_conformance,
    status_code_conformance,
)

from inturn.persistence import PersistenceAdapter
from inturn.session import create_session
from inturn.session.state import create_message
from inturn.settings import load_settings
from producer import events, users
from producer.web import create_app
from tests.web import BACKEND, KEYS, SECRET, served

pytestmark = pytest.mark.process

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    ignored_auth,
]
api = schemathesis.openapi.from_dict(create_app(load_settings()).openapi())


@pytest.fixture
def url(
    broker_url: str, store_url: str, store: PersistenceAdapter, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The API with a session and a turn in it, under the IDs that its description gives as examples."""
    monkeypatch.setattr(events, "LONGEST_STREAM", 0.05)
    monkeypatch.setattr(users, "LONGEST_WAIT", 0.05)
    lines = [create_message("user-123", "user", f"line {number}") for number in range(3)]
    store.commit(create_session("user-123"), lines, expected_version=0)
    given = load_settings(redis_url=broker_url, database_url=store_url, api_keys=KEYS, jwt_secret=SECRET)
    with served(create_app(given)) as url:
        headers = {**BACKEND, "Idempotency-Key": "event-1"}
        httpx.post(f"{url}/sessions/user-123/turns", json={"message": "hello"}, headers=headers)
        yield url


@api.parametrize()
@settings(
    max_examples=20,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@pytest.mark.long
def test_nothing_breaks_it_and_every_answer_is_as_described(case: Any, url: str) -> None:
    # There is no worker here that could erase a user: that is answered with 503, as described.
    needs_worker = case.operation.label == "DELETE /users/{user_id}"
    checks = CHECKS[1:] if needs_worker else CHECKS
    case.call_and_validate(base_url=url, headers=BACKEND, checks=checks)
