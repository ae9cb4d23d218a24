"""How much one caller may ask, and what browsers are told."""

from __future__ import annotations

import pytest
from pytest_celery import RedisTestBroker
from starlette.testclient import TestClient

from tests.integration.worker.conftest import StartWeb, WebHere
from tests.waiting import wait_until
from tests.web import BACKEND, KEYS, SECRET, signed

pytestmark = pytest.mark.process

SITE = "https://chat.example.com"


class TestRateLimits:
    def test_a_caller_who_asks_too_often_is_told_when_to_come_again(self, here: WebHere) -> None:
        client = here(rate_limit="3/4 seconds")
        codes = [client.get("/turns/s:1").status_code for _ in range(4)]
        refused = client.get("/turns/s:1")

        assert codes == [200, 200, 200, 429]
        assert refused.json()["type"] == "urn:inturn:problem:rate-limit"
        assert 1 <= int(refused.headers["Retry-After"]) <= 4
        wait_until(lambda: client.get("/turns/s:1").status_code == 200)

    def test_it_is_counted_by_caller_over_all_processes(self, here: WebHere) -> None:
        set_up = {"api_keys": KEYS, "jwt_secret": SECRET, "rate_limit": "2/minute"}
        one, another = here(**set_up), here(**set_up)
        other_key = {"Authorization": "Bearer 0123456789abcdef-other"}

        def asked(client: TestClient, headers: dict[str, str]) -> int:
            return client.get("/turns/s:1", headers=headers).status_code

        assert [asked(one, BACKEND), asked(another, BACKEND), asked(one, BACKEND)] == [200, 200, 429]
        assert asked(another, BACKEND) == 429
        assert asked(one, other_key) == 200
        assert [asked(one, signed("ada")) for _ in range(3)] == [404, 404, 429]
        assert asked(one, signed("ada/2")) == asked(one, signed("bob")) == 404

    def test_who_is_not_known_is_not_counted_and_gets_no_further(self, here: WebHere) -> None:
        client = here(api_keys=KEYS, rate_limit="1/minute")

        assert [client.get("/turns/s:1").status_code for _ in range(3)] == [401] * 3
        assert client.get("/healthz").status_code == 200

    def test_while_redis_is_away_reading_what_needs_none_goes_on(
        self, start_web: StartWeb, celery_broker: RedisTestBroker
    ) -> None:
        web = start_web(INTURN_RATE_LIMIT="1000/minute")
        web.client.get("/sessions/s")
        celery_broker.container.kill("SIGKILL")

        answer = web.client.get("/sessions/s")

        assert answer.status_code == 503  # not the limit's answer: the session's own question found it away
        assert b"a request was not counted" in web.process.logs()


class TestBrowsers:
    def test_no_page_of_another_site_may_use_the_api_by_default(self, here: WebHere) -> None:
        client = here()
        asked = {"Origin": SITE, "Access-Control-Request-Method": "POST"}

        assert client.options("/sessions/s/turns", headers=asked).status_code == 405
        answer = client.get("/turns/s:1", headers={"Origin": SITE})
        assert "Access-Control-Allow-Origin" not in answer.headers

    def test_pages_of_the_sites_that_are_named_may(self, here: WebHere) -> None:
        client = here(cors_origins=f"{SITE}, https://other.example.com", api_keys=KEYS)
        asked = {
            "Origin": SITE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type, idempotency-key, prefer",
        }
        allowed = client.options("/sessions/s/turns", headers=asked)
        refused = client.options("/sessions/s/turns", headers={**asked, "Origin": "https://evil.example.com"})
        problem = client.get("/turns/s:1", headers={"Origin": SITE})

        assert allowed.status_code == 200
        assert allowed.headers["Access-Control-Allow-Origin"] == SITE
        assert refused.status_code == 400
        assert problem.status_code == 401
        assert problem.headers["Access-Control-Allow-Origin"] == SITE, (
            "a page must be able to read errors too"
        )
        assert "Access-Control-Allow-Credentials" not in problem.headers

    def test_every_answer_tells_browsers_to_make_nothing_of_it(self, here: WebHere) -> None:
        client = here()
        for path, code in [("/healthz", 200), ("/turns/s:1", 200), ("/nothing", 404), ("/turns/x", 422)]:
            answer = client.get(path)
            assert answer.status_code == code
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["Referrer-Policy"] == "no-referrer"

    def test_the_page_of_the_documentation_may_load_what_it_needs(self, here: WebHere) -> None:
        assert "Content-Security-Policy" not in here().get("/docs").headers


def test_the_description_says_how_to_sign_in_and_what_may_go_wrong(here: WebHere) -> None:
    description = here().get("/openapi.json").json()

    assert description["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for path, operations in description["paths"].items():
        if path in ("/healthz", "/readyz"):
            continue
        for operation in operations.values():
            assert operation["security"] == [{"bearer": []}]
            assert {"401", "403", "404", "422", "429", "503"} <= operation["responses"].keys()
            assert "application/problem+json" in operation["responses"]["404"]["content"]


def test_figures_count_requests_by_their_route_and_not_by_what_was_asked_for(here: WebHere) -> None:
    client = here()
    for number in range(3):
        client.get(f"/turns/s:{number}")
        client.get(f"/nothing/{number}")
        client.request(f"BREW{number}", "/turns/s:1")
    text = client.get("/metrics").text

    assert 'route="/turns/{turn_id}",status="200"} 3.0' in text
    assert 'method="GET",route="none",status="404"} 3.0' in text
    assert "BREW" not in text
    assert "process_resident_memory_bytes" in text


def test_a_request_that_nobody_has_thought_of_is_answered_and_its_words_stay_out_of_the_log(
    here: WebHere, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said = "what nobody may know"

    def broken(*_: object, **__: object) -> None:
        raise ValueError(f"cannot parse {said!r}")

    client = here()
    monkeypatch.setattr("inturn.client.Client.respond", broken)

    answer = client.post("/sessions/s/turns", json={"message": said})

    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    log = capfd.readouterr().err
    assert "request failed" in log
    assert "ValueError" in log
    assert said not in log + answer.text
