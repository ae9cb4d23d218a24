"""The console's acts: each does what it says, for a form of its own page alone, and the audit log has it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from inturn.audit.reading import read_audit_log
from inturn.client import Client
from inturn.persistence import MessageQuery, PersistenceAdapter
from inturn.session import create_session
from inturn.session.state import Delivery, create_message
from inturn.settings import Settings
from inturn.turns.connection import connect
from inturn.turns.deliveries import Deliveries
from inturn.turns.mailbox import Item
from tests.agents import reply_to
from tests.console import ELSEWHERE, HERE, LEE, OPERATORS, act, hidden, sign_in
from tests.integration.worker.conftest import StartWorker, WebHere
from tests.waiting import wait_until

pytestmark = pytest.mark.process


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def web(here: WebHere, directory: Path) -> TestClient:
    web = here(console_users=OPERATORS, audit_log=directory)
    sign_in(web)
    return web


def history(store: PersistenceAdapter, session_id: str) -> list[str]:
    return [line.content for line in store.find_messages(MessageQuery(session_id=session_id)).items]


def status_of(store: PersistenceAdapter, session_id: str) -> str | None:
    found = store.load(session_id)
    return None if found is None else found.session.status


class TestForms:
    @pytest.fixture
    def session(self, store: PersistenceAdapter) -> str:
        store.commit(create_session("s"), [create_message("s", "user", "hello")], expected_version=0)
        return "/console/act/erase?session=s"

    def test_a_form_without_the_operators_own_token_does_nothing(
        self, web: TestClient, here: WebHere, store: PersistenceAdapter, session: str
    ) -> None:
        other = here(console_users=OPERATORS)
        sign_in(other, LEE)

        for csrf in ("", "0" * 64, "é", hidden(other.get(session))["csrf"]):
            assert act(web, session, csrf=csrf).status_code == 403
        assert history(store, "s") == ["hello"]

    def test_a_form_of_another_site_does_nothing(
        self, web: TestClient, store: PersistenceAdapter, session: str
    ) -> None:
        for origin in ({}, *({"Origin": each} for each in ELSEWHERE)):
            assert act(web, session, origin).status_code == 403
        assert history(store, "s") == ["hello"]

    def test_who_is_not_signed_in_can_do_nothing(
        self, web: TestClient, store: PersistenceAdapter, session: str
    ) -> None:
        form = hidden(web.get(session))
        web.cookies.clear()

        answered = web.post(session, data=form, headers=HERE, follow_redirects=False)
        assert (answered.status_code, answered.headers["location"]) == (303, "/console/login")
        assert history(store, "s") == ["hello"]

    def test_to_look_at_the_page_of_an_act_does_nothing(
        self, web: TestClient, store: PersistenceAdapter, session: str
    ) -> None:
        assert web.get(session).status_code == 200
        assert web.put(session).status_code == 405
        assert act(web, session, nonce="").status_code == 422
        assert act(web, session, nonce="x" * 16).status_code == 422
        assert history(store, "s") == ["hello"]

    def test_an_act_needs_what_it_is_done_to(self, web: TestClient) -> None:
        for path in ("stop?session=s", "stop?turn=s:1", "erase", "erase-user?user=", "erase-user?session=s"):
            assert web.get(f"/console/act/{path}").status_code == 422

    def test_without_the_audit_log_nothing_is_done(
        self, here: WebHere, store: PersistenceAdapter, client: Client, session: str, tmp_path: Path
    ) -> None:
        (tmp_path / "a file").touch()
        web = here(console_users=OPERATORS, audit_log=tmp_path / "a file" / "audit")
        sign_in(web)
        client.respond("t", "hello", turn_id="1")

        for path in ("/console/act/stop?session=t&turn=t:1", session, "/console/act/complete?session=s"):
            assert act(web, path).status_code == 503
        assert client.status("t", "t:1") == "waiting"
        assert history(store, "s") == ["hello"]
        for path in ("/console/sessions", "/console/sessions/s"):
            assert web.get(path).status_code == 503


class TestTurns:
    def test_a_turn_that_runs_is_stopped(
        self,
        web: TestClient,
        client: Client,
        store: PersistenceAdapter,
        start_worker: StartWorker,
    ) -> None:
        start_worker()
        turn = client.respond("s", "slowly 0.1 count 500", stream=True, turn_id="1")
        wait_until(lambda: turn.status() == "running")
        wait_until(lambda: "running" in web.get("/console/sessions/s").text)

        answered = act(web, "/console/act/stop?session=s&turn=s:1")
        assert answered.headers["location"] == "/console/sessions/s?note=signalled"
        assert "asked to stop" in web.get(answered.headers["location"]).text

        assert turn.get(60).finish_reason == "interrupted"
        wait_until(lambda: "interrupted" in web.get("/console/sessions/s").text)

    def test_a_turn_that_waits_is_dropped(self, web: TestClient, client: Client) -> None:
        client.respond("s", "hello", turn_id="1")

        answered = act(web, "/console/act/stop?session=s&turn=s:1")
        assert answered.headers["location"] == "/console/sessions/s?note=dropped"
        assert client.status("s", "s:1") == "cancelled"
        never = act(web, "/console/act/stop?session=s&turn=s:2")
        assert never.headers["location"] == "/console/sessions/s?note=unknown"

    def test_a_dead_letter_runs_again_or_is_dropped(
        self, web: TestClient, client: Client, start_worker: StartWorker, store: PersistenceAdapter
    ) -> None:
        start_worker(INTURN_MAX_ATTEMPTS="1")
        for number in (1, 2):
            client.respond("s", f"bug 1 of {number}", turn_id=str(number))
        wait_until(lambda: len(client.dead.find()) == 2)

        answered = act(web, "/console/act/retry?session=s&turn=s:1&back=dead-letters")
        assert answered.headers["location"] == "/console/dead-letters?note=retried"
        assert client.handle("s", "1~2").get(30).message == reply_to("bug 1 of 1")
        assert act(web, "/console/act/drop?session=s&turn=s:2").headers["location"].endswith("letter-dropped")
        assert client.dead.find() == []
        assert act(web, "/console/act/retry?session=s&turn=s:2").headers["location"].endswith("note=gone")
        assert act(web, "/console/act/drop?session=s&turn=s:2").headers["location"].endswith("note=gone")

    def test_a_delivery_is_asked_for_again(
        self, web: TestClient, client: Client, turn_settings: Settings
    ) -> None:
        with connect(turn_settings) as redis:
            failed = Delivery(channel="sms", state="failed")
            Deliveries(redis, turn_settings).outcomes.note("s", "s:1", failed)

        answered = act(web, "/console/act/redeliver?session=s&turn=s:1&back=deliveries")
        assert answered.headers["location"] == "/console/deliveries?note=redelivered"
        (view,) = client.deliveries()
        assert (view.turn_id, view.state) == ("s:1", "waiting")


class TestSessions:
    @pytest.mark.parametrize(
        ("name", "before", "after"),
        [
            ("complete", "active", "completed"),
            ("abandon", "active", "abandoned"),
            ("reopen", "completed", "active"),
        ],
    )
    def test_a_status_changes_as_a_turn_behind_those_that_wait(
        self,
        web: TestClient,
        client: Client,
        store: PersistenceAdapter,
        start_worker: StartWorker,
        name: str,
        before: str,
        after: str,
    ) -> None:
        session = create_session("s")
        session.set_status(before)  # type: ignore[arg-type]
        store.commit(session, [], expected_version=0)
        client.respond("s", "hello", turn_id="1")

        page = web.get(f"/console/act/{name}?session=s")
        form = hidden(page)
        for _ in range(2):  # as by a double click
            web.post(f"/console/act/{name}?session=s", data=form, headers=HERE)
        turns = [item.turn_id for item in _items(web)]
        assert turns == ["s:1", f"s:console-{form['nonce']}"]
        assert status_of(store, "s") == before

        start_worker()
        wait_until(lambda: status_of(store, "s") == after)
        assert history(store, "s") == ["hello", reply_to("hello")]

    def test_what_is_not_there_is_not_made_by_it(self, web: TestClient) -> None:
        assert act(web, "/console/act/complete?session=none").status_code == 404
        assert _items(web, "none") == []

    def test_a_session_is_erased_unless_something_of_it_waits(
        self, web: TestClient, client: Client, store: PersistenceAdapter
    ) -> None:
        store.commit(create_session("s"), [create_message("s", "user", "hello")], expected_version=0)
        client.respond("s", "wait", turn_id="1")
        refused = act(web, "/console/act/erase?session=s")
        assert (refused.status_code, "stop them first" in refused.text) == (409, True)
        assert history(store, "s") == ["hello"]

        client.cancel("s", "s:1")
        answered = act(web, "/console/act/erase?session=s")
        assert answered.headers["location"] == "/console/sessions?note=erased"
        assert store.load("s") is None

    def test_a_user_is_erased_once_their_id_was_typed(
        self, web: TestClient, store: PersistenceAdapter, start_worker: StartWorker
    ) -> None:
        start_worker()
        for number in range(3):
            line = create_message(f"s{number}", "user", "hello", user_id="ann b")
            store.commit(create_session(f"s{number}", user_id="ann b"), [line], expected_version=0)
        path = "/console/act/erase-user?user=ann%20b"

        for wrong in ("", "ann", "Ann b", " ann b"):
            refused = act(web, path, typed=wrong)
            assert (refused.status_code, "nothing was done" in refused.text) == (422, True)
        assert store.load("s0") is not None

        report = act(web, path, typed="ann b")
        assert (report.status_code, "The user is erased" in report.text) == (200, True)
        assert [store.load(f"s{number}") for number in range(3)] == [None] * 3

    def test_a_session_and_a_user_are_exported_whole(
        self, web: TestClient, client: Client, store: PersistenceAdapter
    ) -> None:
        lines = [create_message("ä/1", "user", f"line {number}") for number in range(1500)]
        store.commit(create_session("ä/1", user_id="ann"), lines, expected_version=0)
        client.respond("ä/1", "still to come", turn_id="1", user_id="ann")

        for path in ("/console/act/export?session=%C3%A4%2F1", "/console/act/export-user?user=ann"):
            answered = act(web, path)
            found = [json.loads(line) for line in answered.text.splitlines()]
            kinds = [line["type"] for line in found if line["type"] != "user"]
            assert kinds == ["session", *["message"] * 1500, "turn", "end"]
            assert found[-2]["payload"]["message"] == "still to come"
            assert "attachment" in answered.headers["content-disposition"]
            assert answered.headers["cache-control"] == "no-store"
        assert act(web, "/console/act/export?session=none").status_code == 404


def test_the_audit_log_has_every_look_and_every_act(
    web: TestClient, client: Client, store: PersistenceAdapter, directory: Path, turn_settings: Settings
) -> None:
    store.commit(create_session("s", user_id="ann"), [], expected_version=0)
    store.commit(create_session("t", user_id="ann"), [], expected_version=0)
    client.respond("s", "zebra", turn_id="1")
    with connect(turn_settings) as redis:
        Deliveries(redis, turn_settings).outcomes.note("s", "s:9", Delivery(channel="sms", state="failed"))

    def noted(do: Callable[[], object]) -> set[tuple[str, str, str]]:
        before = len(_records(directory))
        do()
        return {
            (record["actor"], record["action"], record.get("call", ""))
            for record in _records(directory)[before:]
            if record["action"] != "open"
        }

    kim = "console:kim"
    assert noted(lambda: web.get("/console")) == set()
    assert noted(lambda: web.get("/console/sessions")) == {(kim, "read", "find_sessions")}
    assert noted(lambda: web.get("/console/sessions/s")) == {
        (kim, "read", "load"),
        (kim, "read", "find_messages"),
    }
    assert noted(lambda: web.get("/console/sessions/s/pulse")) == set()
    assert noted(lambda: web.get("/console/deliveries")) == {(kim, "read", "console_deliveries")}
    assert noted(lambda: act(web, "/console/act/redeliver?session=s&turn=s:9")) == {
        (kim, "change", "console_redeliver")
    }
    assert noted(lambda: act(web, "/console/act/stop?session=s&turn=s:1")) == {
        (kim, "change", "console_stop")
    }
    assert (kim, "change", "console_complete") in noted(lambda: act(web, "/console/act/complete?session=t"))
    assert noted(lambda: act(web, "/console/act/export?session=s")) == {
        (kim, "export", "load"),
        (kim, "export", "find_messages"),
    }
    client.cancel("s", "s:1")
    client.cancel("t", next(item.turn_id for item in _items(web, "t")))
    assert (kim, "erase", "delete_sessions") in noted(lambda: act(web, "/console/act/erase?session=t"))
    (stopped,) = [each for each in read_audit_log(directory) if each.get("call") == "console_stop"]
    assert (stopped["sessions"], stopped["turn"]) == (["s"], "s:1")
    assert all("zebra" not in path.read_text() for path in directory.iterdir())


def _records(directory: Path) -> list[dict[str, Any]]:
    return list(read_audit_log(directory)) if directory.exists() else []


def _items(web: TestClient, session_id: str = "s") -> list[Item]:
    return list(web.app.state.runtime.mailbox.items(session_id))  # type: ignore[attr-defined]
