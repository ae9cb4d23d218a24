"""The console of a web process that has the rights of a producer in Redis, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.console import OPERATORS, act, sign_in
from tests.integration.worker.conftest import WebHere
from tests.integration.worker.test_console import words
from tests.integration.worker.test_redis_users import server, url_of  # noqa: F401  fixtures
from tests.roles import UrlOf

pytestmark = pytest.mark.process


def test_all_but_the_workers_can_be_seen_and_done(
    here: WebHere,
    url_of: UrlOf,  # noqa: F811
    tmp_path: Path,
) -> None:
    web = here(
        console_users=OPERATORS, redis_url=url_of("producer"), database_url=f"sqlite:///{tmp_path / 's.db'}"
    )
    sign_in(web)
    web.app.state.client.respond("s", "hello", turn_id="1")  # type: ignore[attr-defined]

    overview = words(web.get("/console").text)
    assert "1 turns wait or run" in overview
    assert "The workers cannot be asked" in overview
    assert "waiting at the head" in words(web.get("/console/sessions/s").text)
    for path in ("sessions", "dead-letters", "deliveries", "sessions/s/pulse"):
        assert web.get(f"/console/{path}").status_code == 200
    stopped = act(web, "/console/act/stop?session=s&turn=s:1")
    assert stopped.headers["location"] == "/console/sessions/s?note=dropped"
