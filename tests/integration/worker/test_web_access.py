"""Who may use the web API, and what each may see: API keys, signed-in users, and nobody."""

from __future__ import annotations

import threading
from typing import Any

import jwt
import pytest
from starlette.testclient import TestClient

from inturn.client import Client
from inturn.ids import create_turn_id
from inturn.persistence import PersistenceAdapter
from inturn.session import create_session
from inturn.session.state import create_message, utcnow
from producer.access import Access
from tests.agents import reply_to
from tests.integration.worker.conftest import StartWeb, StartWorker, WebHere
from tests.waiting import wait_until
from tests.web import BACKEND, KEYS, SECRET, AnyClient, events_path, figures, follow, signed

pytestmark = pytest.mark.process

ADA, BOB = signed("ada"), signed("bob")
AUTH = {"api_keys": KEYS, "jwt_secret": SECRET}

EVERYTHING = [
    ("POST", "/sessions/{session}/turns"),
    ("GET", "/sessions/{session}"),
    ("GET", "/sessions/{session}/messages"),
    ("GET", "/turns/{session}:1"),
    ("GET", "/turns/{session}:1/events"),
    ("POST", "/turns/{session}:1/tickets"),
    ("DELETE", "/turns/{session}:1"),
    ("DELETE", "/sessions/{session}"),
]


@pytest.fixture
def web(here: WebHere) -> TestClient:
    return here(**AUTH)


def ask(client: AnyClient, method: str, path: str, headers: dict[str, str]) -> Any:
    body = {"message": "hello"} if path.endswith("turns") else None
    return client.request(method, path, json=body, headers=headers)


def post(client: AnyClient, session_id: str, headers: dict[str, str], *, key: str = "1", **body: Any) -> Any:
    headers = {**headers, "Idempotency-Key": key}
    return client.post(f"/sessions/{session_id}/turns", json={"message": "hello", **body}, headers=headers)


def saved(store: PersistenceAdapter, session_id: str, user_id: str | None) -> None:
    line = create_message(session_id, "user", "what only I may read")
    store.commit(create_session(session_id, user_id=user_id), [line], expected_version=0)


class TestWithoutCredentials:
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer other:0123456789abcdef-backend"},
            {"Authorization": "Bearer backend"},
            {"Authorization": "Basic 0123456789abcdef-backend"},
            {"X-API-Key": "0123456789abcdef-backend"},
            signed("ada", secret="another secret of thirty-two bytes or more"),
            signed("ada", exp=utcnow().timestamp() - 60),
            {"Authorization": f"Bearer {jwt.encode({'sub': 'ada', 'exp': 2**40}, '', algorithm='none')}"},
        ],
        ids=["none", "wrong", "named", "name", "basic", "other header", "forged", "expired", "none alg"],
    )
    def test_nothing_is_answered(self, web: TestClient, headers: dict[str, str]) -> None:
        for method, path in EVERYTHING:
            refused = ask(web, method, path.format(session="s"), headers)

            assert refused.status_code == 401, path
            assert refused.headers["WWW-Authenticate"] == "Bearer"
            assert refused.headers["Content-Type"] == "application/problem+json"

    def test_a_process_is_asked_all_the_same_whether_it_is_well(self, web: TestClient) -> None:
        assert web.get("/healthz").status_code == web.get("/readyz").status_code == 200


class TestWhereNothingIsSetUp:
    def test_requests_from_this_machine_are_answered(self, here: WebHere) -> None:
        assert post(here(), "s", {}).status_code == 202

    @pytest.mark.parametrize(
        ("host", "address", "headers"),
        [
            ("127.0.0.1", "192.0.2.7", {}),
            ("127.0.0.1", "127.0.0.1", {"X-Forwarded-For": "192.0.2.7"}),
            ("127.0.0.1", "127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}),
            ("127.0.0.1", "127.0.0.1", {"Forwarded": "for=192.0.2.7"}),
            ("chat.example.com", "127.0.0.1", {}),
        ],
        ids=["another machine", "a proxy", "a proxy that lies", "a proxy of the standard", "another name"],
    )
    def test_others_are_refused_and_told_how_to_mend_it(
        self, here: WebHere, host: str, address: str, headers: dict[str, str]
    ) -> None:
        client = here(host=host, address=address)
        for method, path in EVERYTHING:
            refused = ask(client, method, path.format(session="s"), headers)

            assert refused.status_code == 403, path
            assert "INTURN_API_KEYS" in refused.json()["detail"]
        assert client.get("/metrics", headers=headers).status_code == 403
        assert client.get("/healthz", headers=headers).status_code == 200

    def test_it_says_so_when_it_starts(self, start_web: StartWeb) -> None:
        assert b"no authentication is set up" in start_web().process.logs()


class TestOneUser:
    @pytest.mark.parametrize("owner", ["bob", None], ids=["another's", "nobody's"])
    def test_sees_what_is_anothers_as_little_as_what_is_not_there(
        self, web: TestClient, store: PersistenceAdapter, owner: str | None
    ) -> None:
        saved(store, "others", owner)
        post(web, "others", BACKEND)

        for method, path in EVERYTHING:
            refused = ask(web, method, path.format(session="others"), ADA)

            assert refused.status_code == 404, path
            if path != EVERYTHING[0][1]:  # whoever writes begins a session that is not there
                nothing = ask(web, method, path.format(session="nothing"), ADA)
                assert nothing.status_code == 404
                assert nothing.json() == refused.json()
        assert store.load("others") is not None
        assert web.get("/turns/others:1", headers=BACKEND).json()["status"] == "waiting"

    def test_is_kept_from_anothers_turn_before_its_session_is_stored(self, web: TestClient) -> None:
        assert post(web, "new", BOB).status_code == 202

        for method, path in EVERYTHING:
            assert ask(web, method, path.format(session="new"), ADA).status_code == 404, path
        assert web.get("/turns/new:1", headers=BOB).json()["status"] == "waiting"

    @pytest.mark.parametrize("user_id", ["bob", None])
    def test_is_kept_from_turns_that_came_another_way(
        self, web: TestClient, client: Client, user_id: str | None
    ) -> None:
        client.respond("new", "hello", user_id=user_id, turn_id="1")

        assert post(web, "new", ADA, key="2").status_code == 404
        assert web.get("/turns/new:1", headers=ADA).status_code == 404
        assert web.get("/sessions/new", headers=ADA).status_code == 404
        if user_id == "bob":
            assert web.get("/turns/new:1", headers=BOB).json()["status"] == "waiting"
            assert post(web, "new", BOB, key="2").json()["ahead"] == 1

    def test_begins_a_session_that_is_theirs_alone(
        self, web: TestClient, start_worker: StartWorker, store: PersistenceAdapter
    ) -> None:
        start_worker()
        accepted = web.post(
            "/sessions/s/turns", json={"message": "hello", "stream": True}, headers=ADA
        ).json()

        told = follow(web, accepted["turn_id"], **ADA)

        assert told[-1].data["reply"]["message"] == reply_to("hello")
        loaded = store.load("s")
        assert loaded is not None
        assert loaded.session.user_id == "ada"
        assert web.get("/sessions/s", headers=ADA).json()["user_id"] == "ada"
        assert len(web.get("/sessions/s/messages", headers=ADA).json()["items"]) == 2
        assert web.get(events_path(accepted["turn_id"]), headers=BOB).status_code == 404

    def test_acts_for_nobody_else(self, web: TestClient) -> None:
        assert post(web, "s", ADA, user_id="bob").status_code == 403
        assert post(web, "s", ADA, user_id="ada").status_code == 202

    def test_begins_no_session_that_could_be_a_channels(
        self, web: TestClient, store: PersistenceAdapter
    ) -> None:
        assert post(web, "sms:+15550100:+15550101", ADA).status_code == 422
        saved(store, "web:ada", "ada")
        assert post(web, "web:ada", ADA).status_code == 202

    def test_does_not_reach_another_session_by_a_key(self, web: TestClient) -> None:
        turn_id = post(web, "s", ADA, key="others:1").json()["turn_id"]

        assert turn_id == create_turn_id("s", "others:1") == "s:others:1"

    def test_sees_what_was_said_and_not_what_the_agent_did(
        self, web: TestClient, store: PersistenceAdapter
    ) -> None:
        lines = [
            create_message("s", "user", "hello"),
            create_message("s", "assistant", "", tool_calls=[{"name": "look_up"}]),
            create_message("s", "tool", "an internal figure"),
            create_message("s", "assistant", "hi", tool_calls=[{"name": "look_up"}]),
        ]
        store.commit(create_session("s", user_id="ada"), lines, expected_version=0)

        mine = web.get("/sessions/s/messages", headers=ADA).json()["items"]
        whole = web.get("/sessions/s/messages", headers=BACKEND).json()["items"]

        assert [(line["content"], line["tool_calls"]) for line in mine] == [("hello", None), ("hi", None)]
        assert [line["role"] for line in whole] == ["user", "assistant", "tool", "assistant"]

    def test_cannot_take_the_id_of_a_deleted_session_whose_replies_are_still_kept(
        self, web: TestClient, client: Client, start_worker: StartWorker
    ) -> None:
        start_worker()
        client.respond("s", "hello", user_id="ada", turn_id="1").get(timeout=30)
        wait_until(lambda: web.delete("/sessions/s", headers=ADA).status_code == 204)

        assert client.status("s", "s:1") == "done"
        assert post(web, "s", BOB, key="2").status_code == 404
        assert web.get("/turns/s:1", headers=BOB).status_code == 404
        assert post(web, "s", ADA, key="2").status_code in (200, 202), "accepted, and perhaps done already"

    @pytest.mark.parametrize("begun", ["waits", "is stored"])
    def test_does_not_get_a_session_that_another_has_begun_since_it_was_looked_for(
        self,
        web: TestClient,
        client: Client,
        store: PersistenceAdapter,
        monkeypatch: pytest.MonkeyPatch,
        begun: str,
    ) -> None:
        if begun == "waits":
            client.respond("s", "hello", user_id="bob")
        else:
            saved(store, "s", "bob")
        with monkeypatch.context() as looked_too_early:
            looked_too_early.setattr(Access, "_owner", lambda *_: None)
            assert post(web, "s", ADA).status_code == 404

        assert post(web, "s", BOB).status_code == 202
        assert post(web, "s", ADA).status_code == 404

    def test_needs_the_database_and_an_api_key_does_not(self, here: WebHere) -> None:
        web = here(**AUTH, database_url="postgresql://nobody@127.0.0.1:9/nothing")

        assert post(web, "s", ADA).status_code == 503
        assert post(web, "s", BACKEND).status_code == 202
        assert post(web, "t", BACKEND, user_id="bob").status_code == 202


def test_of_two_users_who_begin_the_same_session_one_gets_it(web: TestClient) -> None:
    for number in range(20):
        codes: dict[str, int] = {}
        together = threading.Barrier(2)

        def begin(
            user: str, number: int = number, codes: dict[str, int] = codes, at: threading.Barrier = together
        ) -> None:
            at.wait()
            codes[user] = post(web, f"new-{number}", signed(user), key=user).status_code

        threads = [threading.Thread(target=begin, args=(user,)) for user in ("ada", "bob")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(codes.values()) == [202, 404]
        loser = next(user for user, code in codes.items() if code == 404)
        assert web.get(f"/sessions/new-{number}", headers=signed(loser)).status_code == 404


class TestAnApiKey:
    def test_acts_for_any_user_who_can_read_the_reply(self, web: TestClient) -> None:
        assert post(web, "s", BACKEND, user_id="ada").status_code == 202

        assert web.get("/turns/s:1", headers=ADA).json()["status"] == "waiting"
        assert web.get("/turns/s:1", headers=BOB).status_code == 404
        assert web.get("/turns/s:1", headers=BACKEND).json()["status"] == "waiting"

    def test_is_warned_of_another_users_session(self, web: TestClient, store: PersistenceAdapter) -> None:
        saved(store, "s", "ada")

        assert post(web, "s", BACKEND, user_id="bob").status_code == 409
        assert post(web, "s", BACKEND, user_id="ada", key="2").status_code == 202
        assert post(web, "s", BACKEND, key="3").status_code == 202

    def test_reads_everything(self, web: TestClient, store: PersistenceAdapter) -> None:
        saved(store, "s", "ada")

        assert web.get("/sessions/s", headers=BACKEND).json()["user_id"] == "ada"
        assert web.get("/sessions/s/messages", headers=BACKEND).json()["items"]

    def test_opens_the_metrics(self, here: WebHere) -> None:
        web = here(address="192.0.2.7", **AUTH)
        post(web, "s", ADA)
        post(web, "s", ADA)

        assert web.get("/metrics").status_code == web.get("/metrics", headers=ADA).status_code == 403
        read = figures(web.get("/metrics", headers=BACKEND).text)
        assert read['inturn_web_turns_accepted_total{outcome="new"}'] == 1
        assert read['inturn_web_turns_accepted_total{outcome="known"}'] == 1
        assert read['inturn_web_refused_total{reason="not-for-you"}'] == 2
        template = '{method="POST",route="/sessions/{session_id}/turns",status="202"}'
        assert read[f"inturn_web_request_seconds_count{template}"] == 2


class TestATicket:
    def test_opens_the_events_of_its_turn_without_a_header(
        self, web: TestClient, start_worker: StartWorker
    ) -> None:
        start_worker()
        post(web, "s", ADA)
        issued = web.post("/turns/s:1/tickets", headers=ADA)

        with web.stream("GET", issued.json()["events"]) as stream:
            text = stream.read().decode()

        assert issued.status_code == 201
        assert "event: done" in text

    def test_opens_nothing_else(self, web: TestClient) -> None:
        post(web, "s", ADA)
        post(web, "s", ADA, key="2")
        ticket = web.post("/turns/s:1/tickets", headers=ADA).json()["events"].partition("=")[2]

        assert web.get(f"/turns/s:2/events?ticket={ticket}").status_code == 401
        assert web.get(f"/turns/s:1?ticket={ticket}").status_code == 401
        assert web.get("/turns/s:1/events?ticket=nonsense").status_code == 401
        assert web.get("/turns/s:1", headers={"Authorization": f"Bearer {ticket}"}).status_code == 401

    def test_is_not_given_to_others(self, web: TestClient) -> None:
        post(web, "s", ADA)

        assert web.post("/turns/s:1/tickets", headers=BOB).status_code == 404


def test_no_log_shows_a_key_a_token_a_ticket_or_what_was_said(start_web: StartWeb) -> None:
    web = start_web(INTURN_API_KEYS=KEYS, INTURN_JWT_SECRET=SECRET, INTURN_LOG_LEVEL="DEBUG")
    said = "nobody but me may read this"
    web.client.post("/sessions/s/turns", json={"message": said, "stream": True}, headers=ADA)
    web.client.post("/sessions/s/turns", json={"mesage": said}, headers=ADA)
    web.client.post("/sessions/s/turns", json={said: 1, "message": said * 10_000}, headers=BACKEND)
    web.client.post("/sessions/s/turns", content=said, headers=ADA)
    turn_id = post(web.client, "s", ADA).json()["turn_id"]
    address = web.client.post(f"/turns/{turn_id}/tickets", headers=ADA).json()["events"]
    with web.client.stream("GET", address) as stream:
        assert stream.status_code == 200

    log = web.process.logs().decode()
    secrets = [*KEYS.split(","), SECRET, ADA["Authorization"], address.partition("=")[2], said]
    assert not [secret for secret in secrets if secret in log or secret.rpartition(":")[2] in log]
    assert "GET /turns/s%3A1/events HTTP" in log
