"""The console: who may look, and what is shown of sessions, turns, dead letters and deliveries."""

from __future__ import annotations

import re
import secrets
from html import unescape
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import pytest
from starlette.testclient import TestClient

from inturn.client import Client
from inturn.persistence import PersistenceAdapter, open_adapter
from inturn.retention import RetentionReport
from inturn.session import create_session
from inturn.session.state import Delivery, RouteRef, StepRef, create_message
from inturn.settings import Settings
from inturn.turns import Mailbox
from inturn.turns.connection import connect
from inturn.turns.deliveries import Deliveries
from inturn.turns.keys import Keys
from inturn.turns.retention_runs import RetentionRuns
from producer.console import routes
from producer.web import create_app
from tests.agents import let_go
from tests.console import ELSEWHERE, HERE, KIM, LEE, OPERATORS, act, sign_in
from tests.integration.worker.conftest import StartWorker, WebHere
from tests.servers_cluster import ValkeyCluster
from tests.waiting import wait_until

pytestmark = pytest.mark.process

PATHS = [
    "/console",
    "/console/sessions",
    "/console/sessions/s",
    "/console/sessions/s/pulse",
    "/console/open?session=s",
    "/console/dead-letters",
    "/console/dead-letters/letter?session=s&turn=s:1",
    "/console/deliveries",
    "/console/act/erase?session=s",
    "/console/nothing",
]


@pytest.fixture
def web(here: WebHere) -> TestClient:
    return here(console_users=OPERATORS)


@pytest.fixture
def console(web: TestClient) -> TestClient:
    sign_in(web)
    return web


def words(page: str) -> str:
    """What one reads on a page."""
    main = page.partition("<main")[2].partition("</main>")[0]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", main.partition(">")[2])).split())


class TestDoor:
    def test_there_is_no_console_unless_it_is_set_up(self, here: WebHere) -> None:
        web = here()
        assert {web.get(path).status_code for path in ("/console", "/console/login")} == {404}

    def test_who_is_not_signed_in_is_shown_where_to(self, web: TestClient) -> None:
        for path in PATHS:
            answered = web.get(path, follow_redirects=False)

            assert answered.status_code == 303
            where, _, wanted = answered.headers["location"].partition("?next=")
            assert (where, unquote(unquote(wanted))) == ("/console/login", path)
            assert answered.text == ""

    def test_every_path_is_among_those_that_are_tried(self) -> None:
        named = {getattr(route, "path", "") for part in routes.PARTS for route in part.routes}
        tried = {
            re.sub(r"/s(?=/|$)", "/{session_id}", path.partition("?")[0]).replace("act/erase", "act/{name}")
            for path in PATHS
        }
        open_to_all = {"/console/login", "/console/logout", "/console/static/{name}"}
        assert named - {"/console/{path:path}"} == (tried - {"/console/nothing"}) | open_to_all

    def test_one_signs_in_and_comes_to_the_page_that_was_asked_for(self, web: TestClient) -> None:
        asked = web.get("/console/sessions?status=active")
        assert "Sign in" in words(asked.text)
        wrong = web.post("/console/login", data={**KIM, "password": "no"}, headers=HERE)
        assert (wrong.status_code, "Name or password is wrong" in wrong.text) == (401, True)

        answered = sign_in(web, {**KIM, "next": "/console/sessions?status=active"})

        assert answered.headers["location"] == "/console/sessions?status=active"
        assert web.get("/console").status_code == 200

    def test_it_leads_nowhere_else(self, web: TestClient) -> None:
        hosts = ("https://example.com", "//example.com", "/console\\@example.com", "/console/\t/x")
        for address in (*hosts, "/chat", "/consoles", "x", "/console/☃", "/console/\x7f", "/console/é"):
            assert sign_in(web, {**KIM, "next": address}).headers["location"] == "/console"

    def test_whatever_an_address_asks_for_one_is_led_to_sign_in(self, web: TestClient) -> None:
        for query in ("address=x&template=y&request=z&self=1", "é=☃", f"user={'%20' * 150}"):
            answered = web.get(f"/console/sessions?{query}", follow_redirects=False)
            assert answered.status_code == 303
            assert web.get(answered.headers["location"]).status_code == 200
        answered = web.get(f"/console/sessions?cursor={'x' * 2000}")
        assert (answered.status_code, answered.request.url.query) == (200, b"")

    def test_the_cookie_is_for_the_console_alone(self, here: WebHere) -> None:
        plain, behind = (
            here(console_users=OPERATORS),
            here(console_users=OPERATORS, public_url="https://x.org"),
        )
        cookie = sign_in(plain).headers["set-cookie"]
        sealed = sign_in(behind, Origin="https://x.org").headers["set-cookie"]

        assert cookie.startswith("inturn-console=")
        assert {"httponly", "samesite=strict", "path=/"} <= set(cookie.lower().split("; "))
        assert sealed.startswith("__Host-inturn-console=")
        assert {"httponly", "samesite=strict", "path=/", "secure"} <= set(sealed.lower().split("; "))

    def test_a_cookie_that_is_made_up_opens_nothing(self, web: TestClient) -> None:
        for cookie in (b"x", "é".encode(), b'"', b"a" * 5000):
            answered = web.get("/console", headers={b"Cookie": b"inturn-console=" + cookie})
            assert "Sign in" in words(answered.text)

    def test_who_signs_out_is_out_on_this_browser_alone(self, here: WebHere) -> None:
        one, other = here(console_users=OPERATORS), here(console_users=OPERATORS)
        cookie = sign_in(one).cookies["inturn-console"]
        sign_in(other)
        csrf = re.search(r'name="csrf" value="(\w+)"', one.get("/console").text)
        assert csrf
        one.post("/console/logout", data={"csrf": csrf[1]}, headers=HERE)

        one.cookies.set("inturn-console", cookie)
        assert "Sign in" in words(one.get("/console").text)
        assert other.get("/console").request.url.path == "/console"

    def test_who_is_no_operator_any_more_is_out(self, here: WebHere) -> None:
        cookie = sign_in(here(console_users=OPERATORS)).cookies["inturn-console"]

        for users, is_in in (
            ("lee:another password", False),
            ("kim:a new password", False),
            (f"{OPERATORS},max:and another one", True),
        ):
            later = here(console_users=users)
            later.cookies.set("inturn-console", cookie)
            assert ("Sign in" not in words(later.get("/console").text)) is is_in

    def test_passwords_cannot_be_tried_for_ever(self, here: WebHere) -> None:
        web, elsewhere = here(console_users=OPERATORS), here(console_users=OPERATORS, address="127.0.0.2")
        wrong = [
            web.post("/console/login", data={**KIM, "password": str(number)}, headers=HERE)
            for number in range(11)
        ]
        assert [each.status_code for each in wrong] == [401] * 10 + [429]
        assert int(wrong[-1].headers["retry-after"]) > 0

        assert web.post("/console/login", data=KIM, headers=HERE).status_code == 429
        sign_in(web, LEE)
        sign_in(elsewhere)

    def test_a_right_password_sets_the_count_back(self, web: TestClient) -> None:
        for _ in range(12):
            sign_in(web)

    def test_other_sites_sign_nobody_in(self, web: TestClient) -> None:
        for origin in ({}, *({"Origin": each} for each in ELSEWHERE)):
            answered = web.post("/console/login", data=KIM, headers=origin)

            assert (answered.status_code, "set-cookie" in answered.headers) == (403, False)

    def test_passwords_go_over_https_or_nowhere(self, here: WebHere) -> None:
        away = here(console_users=OPERATORS, address="10.0.0.7", host="console.example")
        refused = [away.get("/console/login"), away.post("/console/login", data=KIM, headers=HERE)]
        assert {each.status_code for each in refused} == {403}
        assert "INTURN_PUBLIC_URL" in refused[0].text

        for settings in ({"public_url": "https://ops.example"}, {"public_url": "http://ops.example"}):
            proxied = here(console_users=OPERATORS, address="10.0.0.7", host="inside", **settings)
            assert proxied.get("/console/login").status_code == 200
            sign_in(proxied, Origin=settings["public_url"])

    def test_what_it_sends_is_for_nobody_else(self, here: WebHere) -> None:
        web = here(console_users=OPERATORS, cors_origins="https://site.example")
        site = {"Origin": "https://site.example"}
        sign_in(web)

        for path in ("/console", "/console/login", "/console/sessions/none", "/console/static/console.css"):
            headers = web.get(path, headers=site).headers
            assert not [name for name in headers if name.startswith("access-control")]
            assert headers["x-frame-options"] == "DENY"
        page = web.get("/console").headers
        assert page["cache-control"] == "no-store"
        assert page["referrer-policy"] == "same-origin"
        assert "script-src 'self'" in page["content-security-policy"]
        assert "unsafe" not in page["content-security-policy"]
        asked = {**site, "Access-Control-Request-Method": "POST"}
        assert "access-control-allow-origin" not in web.options("/console/act/erase", headers=asked).headers
        assert "access-control-allow-origin" in web.options("/sessions/s/turns", headers=asked).headers

    def test_a_prefix_before_it_does_no_harm(self, here: WebHere) -> None:
        settings = here(console_users=OPERATORS, cors_origins="https://site.example").app.state.settings  # type: ignore[attr-defined]
        with TestClient(
            create_app(settings), "http://127.0.0.1", root_path="/ops", client=("127.0.0.1", 1)
        ) as web:
            assert web.get("/ops/console/sessions").request.url.path == "/ops/console/login"
            data = {**KIM, "next": "/ops/console/sessions?status=active"}
            answered = web.post("/ops/console/login", data=data, headers=HERE)
            assert (answered.status_code, str(answered.url)) == (200, f"http://127.0.0.1{data['next']}")
            links = set(re.findall(r'(?:href|src|action)="([^"#?]+)', answered.text))
            assert all(link.startswith("/ops/console") for link in links)
            headers = web.get("/ops/console", headers={"Origin": "https://site.example"}).headers
            assert "access-control-allow-origin" not in headers

    def test_what_is_not_there_is_a_page(self, console: TestClient) -> None:
        for path in ("/console/nothing", "/console/sessions/none", "/console/act/explode?session=s"):
            answered = console.get(path)
            assert (answered.status_code, answered.headers["content-type"]) == (
                404,
                "text/html; charset=utf-8",
            )
        assert console.get("/console/sessions?status=asleep").status_code == 422
        assert console.get("/console/sessions?cursor=x").status_code == 422
        assert console.get("/console/open?session=%00").status_code == 422


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "redis"])
class TestSessions:
    @pytest.fixture
    def store_kind(self, kind: str) -> str:
        return "postgresql" if kind == "postgresql" else "sqlite"

    @pytest.fixture
    def url(self, kind: str, store_url: str, broker_url: str) -> str:
        return broker_url if kind == "redis" else store_url

    def test_they_are_found_by_status_user_and_age_page_by_page(self, here: WebHere, url: str) -> None:
        with open_adapter(url) as store:
            for number in range(120):
                session = create_session(f"s{number:03}", user_id="ann" if number % 4 else "bob")
                if number % 2:
                    session.set_status("completed")
                store.commit(session, expected_version=0)
        web = here(console_users=OPERATORS, database_url=url)
        sign_in(web)

        assert listed(web, "") == [f"s{number:03}" for number in range(119, -1, -1)]
        assert listed(web, "order=oldest") == [f"s{number:03}" for number in range(120)]
        assert listed(web, "user=bob&order=oldest") == [f"s{number:03}" for number in range(0, 120, 4)]
        assert listed(web, "status=completed&user=ann&order=oldest") == [
            f"s{number:03}" for number in range(1, 120, 2)
        ]
        assert len(listed(web, "age=in-1h")) == 120
        assert listed(web, "age=not-1d") == []


def listed(web: TestClient, query: str) -> list[str]:
    """The sessions on all pages of a list, in order."""
    found: list[str] = []
    address = f"/console/sessions?{query}"
    while address:
        page = web.get(address).text
        found += [
            unescape(name) for name in re.findall(r'<th scope="row"><a [^>]*><bdi class="id">([^<]*)<', page)
        ]
        following = re.search(r'href="([^"]*)" rel="next"', page)
        address = unescape(following[1]) if following else ""
    return found


class TestSession:
    def test_all_of_it_is_shown(
        self, console: TestClient, store: PersistenceAdapter, turn_settings: Settings, client: Client
    ) -> None:
        session = create_session("a/b", user_id="ann", data={"party": 4}, metadata={"tenant": "north"})
        session.enter_route(RouteRef(id="booking"))
        session.enter_step(StepRef(id="ask-day"))
        session.outbox = {"a%2Fb:1": Delivery(channel="sms", state="failed", error="no such number")}
        lines = [
            create_message("a/b", "user", "A table, please.", turn_id="a%2Fb:1"),
            create_message("a/b", "tool", "[]", tool_calls=[{"name": "free_tables"}]),
            create_message("a/b", "assistant", "cut off", event={"interrupted": True}),
        ]
        store.commit(session, lines, expected_version=0)
        client.respond("a/b", "Are you there?", turn_id="2", channel="web", user_id="ann")
        client.save_session("a/b", data={"party": 5})

        shown = words(console.get("/console/sessions/a%2Fb").text)

        for text in (
            "Session a/b",
            "Status active User ann",
            "Route booking , for",
            "Step ask-day , for",
            "party 4",
            "tenant north",
            "Owner nobody Fence none yet",
            "waiting at the head",
            "Are you there?",
            "a%2Fb:2 · respond · web · ann",
            "waiting behind 1",
            "save_session",
            "failed sms",
            "no such number",
            "A table, please.",
            "free_tables",
            "assistant interrupted",
        ):
            assert text in shown

    def test_its_history_is_paged(self, console: TestClient, store: PersistenceAdapter) -> None:
        lines = [create_message("s", "user", f"line {number:03}") for number in range(1, 121)]
        store.commit(create_session("s"), lines, expected_version=0)

        found: list[list[int]] = []
        address = "/console/sessions/s"
        while address:
            page = console.get(address).text
            found.append([int(number) for number in re.findall(r"line (\d{3})<", page)])
            following = re.search(r'href="(\?before=\d+)">Earlier', page)
            address = f"/console/sessions/s{following[1]}" if following else ""

        assert found == [list(range(71, 121)), list(range(21, 71)), list(range(1, 21))]

    def test_a_session_whose_first_turn_runs_is_shown_with_its_lease(
        self, console: TestClient, client: Client, start_worker: StartWorker, journal: Path
    ) -> None:
        worker = start_worker()
        client.respond("s", "one pause two", stream=True)
        wait_until(lambda: console.get("/console/sessions/s/pulse").json()["lease_seconds"] > 0)

        page = words(console.get("/console/sessions/s").text)
        tag = console.get("/console/sessions/s/pulse").json()["tag"]
        assert "running at the head" in page
        assert "Its first turn has not ended yet" in page
        assert re.search(r"Owner \S+:\d+:[0-9a-f]+ Lasts \d+\.\d s, unless renewed Fence \d{13}", page)
        # Renewals change nothing that would have to be loaded.
        assert console.get("/console/sessions/s/pulse").json()["tag"] == tag
        overview = words(console.get("/console").text)
        assert "1 turns wait or run" in overview
        assert re.search(rf"{re.escape(worker.hostname())} .*turns 1 of 8", overview)

        let_go(journal)
        wait_until(lambda: console.get("/console/sessions/s/pulse").json()["tag"] != tag)

    def test_what_redis_knows_is_shown_while_the_database_is_away(
        self, here: WebHere, client: Client
    ) -> None:
        web = here(console_users=OPERATORS, database_url="postgresql://127.0.0.1:1/none?connect_timeout=1")
        sign_in(web)
        client.respond("s", "hello", turn_id="1")

        page = web.get("/console/sessions/s")
        assert page.status_code == 200
        assert "The database is away" in words(page.text)
        assert "waiting at the head" in words(page.text)
        assert act(web, "/console/act/stop?session=s&turn=s:1").headers["location"].endswith("note=dropped")
        assert web.get("/console/sessions").status_code == 503

    def test_a_lease_that_has_lapsed_is_told(self, console: TestClient, mailbox: Mailbox) -> None:
        mailbox.offer("s", "s:1", "{}")
        lease = mailbox.begin("s", "s:1", "dead:1:a").lease
        assert lease is not None
        assert "Owner dead:1:a Lasts" in words(console.get("/console/sessions/s").text)
        mailbox.release(lease, delay=500)

        page = words(console.get("/console/sessions/s").text)
        assert "Owner nobody Asleep" in page
        assert "unreadable" in page


class TestLists:
    def test_dead_letters_are_shown_without_what_was_said(
        self, console: TestClient, client: Client, start_worker: StartWorker
    ) -> None:
        start_worker()
        client.respond("s", "refused zebra", turn_id="1", user_id="ann")
        wait_until(lambda: client.dead.find())

        page = console.get("/console/dead-letters").text
        assert "ProviderError" in page
        assert "s:1 · respond · ann · 1 try" in words(page)
        assert "zebra" not in page
        assert "zebra" in console.get("/console/dead-letters/letter?session=s&turn=s:1").text
        assert "ProviderError" in console.get("/console/dead-letters?error=ProviderError").text
        assert "There are none like that" in console.get("/console/dead-letters?error=ValueError").text
        assert "1 dead letters" in words(console.get("/console").text)
        assert "ProviderError" in console.get("/console/sessions/s").text

    def test_deliveries_that_wait_or_need_somebody_are_shown(
        self, console: TestClient, turn_settings: Settings
    ) -> None:
        with connect(turn_settings) as redis:
            deliveries = Deliveries(redis, turn_settings)
            deliveries.offer("s", "s:1", "slack")
            deliveries.outcomes.note("t", "t:1", Delivery(channel="sms", state="unknown", error="time-out"))
            deliveries.outcomes.note("u", "u:1", Delivery(channel="sms", state="sent", doubtful=True))

        everything = words(console.get("/console/deliveries").text)
        assert "3 in all s waiting s:1 · slack" in everything
        assert "t unknown time-out t:1 · sms" in everything
        assert "u sent doubtful u:1 · sms" in everything
        assert "1 in all u" in words(console.get("/console/deliveries?state=doubtful").text)
        assert "1 in all t" in words(console.get("/console/deliveries?state=unknown").text)
        overview = words(console.get("/console").text)
        assert "1 replies on their way out 2 deliveries to look at" in overview


class TestOverview:
    def test_turns_that_nobody_attends_to_are_told_and_so_is_that_no_worker_answers(
        self, console: TestClient, client: Client, turn_settings: Settings
    ) -> None:
        client.respond("s", "hello")
        with connect(turn_settings) as redis:
            index = Keys(turn_settings.key_prefix).of_session("s")[0]
            redis.zincrby(index, -300_000, "s")

        page = words(console.get("/console").text)
        assert re.search(r"1 turns wait or run 2\d\d s the longest overdue", page)
        assert "Nobody has attended to a turn" in page
        assert "No worker answered." in page
        assert "It has not run yet" in page

    def test_what_retention_did_is_told(self, console: TestClient, turn_settings: Settings) -> None:
        with connect(turn_settings) as redis:
            deleted: dict[Literal["completed", "abandoned"], int] = {"completed": 1200, "abandoned": 34}
            RetentionRuns(redis, turn_settings).end(
                RetentionReport(
                    deleted=deleted, messages=5678, abandoned=9, exported=8, skipped=7, finished=True
                )
            )

        assert "s ago 1,234 5,678 8 9 7 0 s" in words(console.get("/console").text)

    def test_it_works_on_a_cluster(self, here: WebHere, cluster: ValkeyCluster, broker_url: str) -> None:
        web = here(
            console_users=OPERATORS,
            redis_url=cluster.url,
            redis_cluster=True,
            broker_url=broker_url,
            key_prefix=f"inturn-test-{secrets.token_hex(4)}",
        )
        sign_in(web)
        client = web.app.state.client  # type: ignore[attr-defined]
        client.respond("s", "hello", turn_id="1")

        assert "1 turns wait or run" in words(web.get("/console").text)
        assert "waiting at the head" in words(web.get("/console/sessions/s").text)
        client.cancel("s", "s:1")
