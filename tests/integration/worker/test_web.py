"""Turns and sessions over HTTP: the web application, a worker, and a real Redis between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_celery import RedisTestBroker
from starlette.testclient import TestClient

from inturn.persistence import PersistenceAdapter
from inturn.session import create_session
from inturn.session.state import RouteRef, StepRef, create_message
from tests.agents import read_journal
from tests.integration.worker.conftest import StartWeb, StartWorker, WebHere
from tests.waiting import wait_until
from tests.web import AnyClient, Web, follow

pytestmark = pytest.mark.process


def post(client: AnyClient, session_id: str, message: str, **headers: str) -> Any:
    return client.post(f"/sessions/{session_id}/turns", json={"message": message}, headers=headers)


def wait_for_status(client: AnyClient, turn_id: str, status: str) -> None:
    wait_until(lambda: client.get(f"/turns/{turn_id}").json()["status"] == status)


def test_a_turn_is_accepted_and_its_reply_can_be_asked_for(web: Web, start_worker: StartWorker) -> None:
    accepted = post(web.client, "s", "hello")
    assert accepted.status_code == 202
    turn = accepted.json()
    assert (turn["status"], turn["ahead"]) == ("waiting", 0)

    start_worker()
    wait_for_status(web.client, turn["turn_id"], "done")
    done = web.client.get(accepted.headers["Location"]).json()

    assert done["reply"]["message"] == "you said: hello"


def test_a_request_may_wait_for_its_reply(web: Web, start_worker: StartWorker) -> None:
    start_worker()

    answer = post(web.client, "s", "hello", Prefer="respond-async, wait=20")

    assert answer.status_code == 200
    assert answer.json()["reply"]["message"] == "you said: hello"
    assert answer.headers["Preference-Applied"] == "wait=20"


def test_a_request_waits_no_longer_than_it_wishes(web: Web) -> None:
    answer = post(web.client, "s", "hello", Prefer="wait=1")

    assert answer.status_code == 202
    assert answer.json()["status"] == "waiting"


def test_the_same_idempotency_key_adds_nothing(web: Web) -> None:
    headers = {"Idempotency-Key": "event-1"}
    first = post(web.client, "s", "hello", **headers)
    again = post(web.client, "s", "hello", **headers)
    other = post(web.client, "s", "next")

    assert first.json() == again.json()
    assert other.json()["ahead"] == 1


def test_the_same_idempotency_key_is_answered_with_the_reply_once_there_is_one(
    web: Web, start_worker: StartWorker
) -> None:
    start_worker()
    headers = {"Idempotency-Key": "event-1"}
    turn_id = post(web.client, "s", "hello", **headers).json()["turn_id"]
    wait_for_status(web.client, turn_id, "done")

    again = post(web.client, "s", "hello", **headers)

    assert (again.status_code, again.json()["reply"]["message"]) == (200, "you said: hello")


def test_a_slash_in_an_id_is_no_part_of_the_path(web: Web, start_worker: StartWorker) -> None:
    start_worker()
    accepted = post(web.client, "a%2Fb", "hello", **{"Idempotency-Key": "x/events", "Prefer": "wait=20"})

    assert accepted.json()["session_id"] == "a/b"
    assert accepted.json()["turn_id"] == "a%2Fb:x/events"
    assert web.client.get(accepted.headers["Location"]).json()["status"] == "done"
    assert web.client.get("/sessions/a%2Fb").json()["message_count"] == 2
    assert follow(web.client, accepted.json()["turn_id"])[-1].kind == "done"


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/sessions/s/turns", {"message": ""}, 422),
        ("/sessions/s/turns", {"message": "a\x00b"}, 422),
        ("/sessions/s/turns", {"message": "x" * 40_000}, 422),
        ("/sessions/s/turns", {"message": 1}, 422),
        ("/sessions/s/turns", {"text": "hello"}, 422),
        ("/sessions/s/turns", {"message": "hello", "images": ["ftp://x"]}, 422),
        ("/sessions/s/turns", {"message": "hello", "images": ["https://x"] * 11}, 422),
        ("/sessions/s/turns", {"message": "hello", "stream": "yes"}, 422),
        ("/sessions/s/turns", {"message": "hello", "user_id": "a\nb"}, 422),
        ("/sessions/%00/turns", {"message": "hello"}, 422),
        ("/sessions/%FF/turns", {"message": "hello"}, 422),
        (f"/sessions/{'x' * 300}/turns", {"message": "hello"}, 422),
    ],
)
def test_bad_input_is_refused(here: WebHere, path: str, body: dict[str, object], code: int) -> None:
    refused = here().post(path, json=body)

    assert refused.status_code == code
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.json()["type"] == "urn:inturn:problem:invalid-input"


def test_a_turn_nobody_knows_is_unknown_and_a_bare_id_is_refused(here: WebHere) -> None:
    client = here()
    assert client.get("/turns/s:nothing").json()["status"] == "unknown"
    assert client.delete("/turns/s:nothing").json()["outcome"] == "unknown"
    assert client.get("/turns/0123").status_code == 422
    assert client.get("/turns/s:").status_code == 422


def test_while_redis_is_away_nothing_is_accepted_and_the_caller_is_told_to_repeat(
    web: Web, celery_broker: RedisTestBroker
) -> None:
    assert web.client.get("/readyz").status_code == 200
    celery_broker.container.kill("SIGKILL")

    refused = post(web.client, "s", "hello", **{"Idempotency-Key": "1"})

    assert refused.status_code == 503
    assert refused.json()["turn_id"] == "s:1"
    assert "Retry-After" in refused.headers
    assert web.client.get("/readyz").status_code == 503
    celery_broker.container.restart()
    assert post(web.client, "s", "hi").json()["ahead"] == 0


def test_the_application_starts_and_accepts_turns_while_the_database_is_away(start_web: StartWeb) -> None:
    web = start_web(DATABASE_URL="postgresql://nobody@127.0.0.1:9/nothing")

    assert web.client.get("/readyz").status_code == 200
    assert post(web.client, "s", "hello").status_code == 202
    refused = web.client.get("/sessions/s")
    assert refused.status_code == 503
    assert "Retry-After" in refused.headers
    assert refused.json()["type"] == "urn:inturn:problem:store-unavailable"
    assert "postgresql://" not in refused.text


def test_a_turn_that_waits_is_dropped_and_one_that_runs_is_stopped(
    web: Web, start_worker: StartWorker, journal: Path
) -> None:
    start_worker()
    message = "slowly 0.02 count 2000"
    running = web.client.post("/sessions/s/turns", json={"message": message, "stream": True}).json()
    waiting = post(web.client, "s", "never").json()
    wait_for_status(web.client, running["turn_id"], "running")

    dropped = web.client.delete(f"/turns/{waiting['turn_id']}")
    stopped = web.client.delete(f"/turns/{running['turn_id']}")
    wait_for_status(web.client, running["turn_id"], "done")

    assert (dropped.status_code, dropped.json()["outcome"]) == (202, "dropped")
    assert (stopped.status_code, stopped.json()["outcome"]) == (202, "signalled")
    ended = web.client.get(f"/turns/{running['turn_id']}").json()
    assert ended["reply"]["finish_reason"] == "interrupted"
    history = web.client.get("/sessions/s/messages").json()["items"]
    assert [line["finish_reason"] for line in history] == [None, "interrupted"]
    assert web.client.get(f"/turns/{waiting['turn_id']}").json()["status"] == "cancelled"
    assert [call.text for call in read_journal(journal)] == [message]


def test_a_message_may_say_what_happens_if_the_session_is_busy(here: WebHere) -> None:
    client = here()
    post(client, "s", "hello")

    refused = client.post("/sessions/s/turns", json={"message": "again", "overlap": "reject"})
    wrong = client.post("/sessions/s/turns", json={"message": "again", "overlap": "push in"})
    merged = client.post("/sessions/s/turns", json={"message": "again", "overlap": "merge", "quiet": 1.5})

    assert (refused.status_code, wrong.status_code, merged.status_code) == (409, 422, 202)
    assert refused.json()["type"] == "urn:inturn:problem:session-busy"
    assert client.get("/sessions/s").json()["waiting"] == 2


def test_a_failed_turn_says_why_without_the_users_words(web: Web, start_worker: StartWorker) -> None:
    start_worker()

    answer = post(web.client, "s", "refused my secret", Prefer="wait=20")

    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    assert "ProviderError" in answer.json()["error"]
    assert "secret" not in answer.text
    history = web.client.get("/sessions/s/messages").json()["items"]
    assert [line["finish_reason"] for line in history] == [None, "failed"]


def test_a_session_shows_its_state_and_the_turns_that_wait(here: WebHere, store: PersistenceAdapter) -> None:
    session = create_session("s", user_id="ada", data={"party": 2})
    session.enter_route(RouteRef(id="booking"))
    session.enter_step(StepRef(id="name"))
    store.commit(session, [create_message("s", "user", "hello")], expected_version=0)
    client = here()
    turns = [post(client, "s", message).json()["turn_id"] for message in ("a", "b")]

    shown = client.get("/sessions/s").json()

    assert shown["user_id"] == "ada"
    assert (shown["status"], shown["route"], shown["step"]) == ("active", "booking", "name")
    assert (shown["data"], shown["message_count"], shown["version"]) == ({"party": 2}, 1, 1)
    assert (shown["waiting"], shown["turns"]) == (2, turns)
    assert client.get("/sessions/nobody").status_code == 404


def test_a_session_whose_first_turn_has_not_ended_shows_that_it_waits(here: WebHere) -> None:
    client = here()
    turn_id = post(client, "s", "hello").json()["turn_id"]

    shown = client.get("/sessions/s").json()

    assert (shown["version"], shown["waiting"], shown["turns"]) == (0, 1, [turn_id])
    assert client.get("/sessions/s/messages").json() == {"items": [], "cursor": None}


class TestMessages:
    @pytest.fixture
    def client(self, here: WebHere, store: PersistenceAdapter) -> TestClient:
        lines = [create_message("s", "user", f"line {number}") for number in range(1, 8)]
        store.commit(create_session("s"), lines, expected_version=0)
        return here()

    @pytest.mark.parametrize("order", ["oldest", "newest"])
    def test_pages_follow_each_other_by_their_cursors(self, client: AnyClient, order: str) -> None:
        seen: list[int] = []
        cursor = None
        for _ in range(4):
            asked: dict[str, str] = {"limit": "2", "order": order} | ({"cursor": cursor} if cursor else {})
            page = client.get("/sessions/s/messages", params=asked).json()
            seen += [line["sequence"] for line in page["items"]]
            cursor = page["cursor"]

        assert seen == sorted(range(1, 8), reverse=order == "newest")
        assert cursor is None

    def test_a_page_lies_between_two_sequences(self, client: AnyClient) -> None:
        page = client.get("/sessions/s/messages", params={"after": 2, "before": 6}).json()

        assert [line["content"] for line in page["items"]] == ["line 3", "line 4", "line 5"]

    @pytest.mark.parametrize(
        "asked",
        [
            {"after": -1},
            {"after": "9" * 30},
            {"before": "x"},
            {"limit": 0},
            {"limit": 100_000},
            {"order": "up"},
            {"cursor": "nonsense"},
            {"cursor": "\x00"},
            {"cursor": "é" * 300},
        ],
    )
    def test_a_page_that_cannot_be_is_refused(self, client: AnyClient, asked: dict[str, str]) -> None:
        assert client.get("/sessions/s/messages", params=asked).status_code == 422
