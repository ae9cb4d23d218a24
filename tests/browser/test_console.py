"""The console in a browser: it follows what happens, and all of it can be used, whatever is in a session."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Route, ViewportSize, expect

from inturn.persistence import open_adapter
from inturn.session import create_session
from inturn.session.state import Delivery, create_message
from inturn.settings import load_settings
from inturn.turns.connection import connect
from inturn.turns.deliveries import Deliveries
from tests.agents import let_go
from tests.browser.conftest import House
from tests.browser.console import Console
from tests.console import OPERATORS
from tests.tls import pass_on, tls_listener
from tests.waiting import wait_until
from tests.web import Web, web_process

pytestmark = pytest.mark.process

OpenConsole = Callable[..., Console]

DESK: ViewportSize = {"width": 1280, "height": 800}
SMALL: ViewportSize = {"width": 390, "height": 844}
PHONE = {"viewport": SMALL, "is_mobile": True, "has_touch": True}

HOSTILE = {
    "html": "<img src=x onerror=\"alert('img')\"><svg onload=alert(1)><script>alert('script')</script>",
    "attributes": "\" onmouseover=alert(1) x=\" ' onfocus='alert(1)' &quot; {{ 7 * 7 }} javascript:alert(1)",
    "path": "../../%2e%2e/console/logout?x=1&y=2#z;%00",
    "a long word": "W" * 200,
    "right to left": "\u202eשלום עולם\u202c مرحبا بالعالم 123",
    "marks": "👩‍👩‍👧‍👧🏳️‍🌈 Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿̋ͥͥ̂ͣ̐́́͜͞",
}


@pytest.fixture(scope="module")
def console_web(everything: House) -> Iterator[Web]:
    """Another web process of the house, with a console."""
    with web_process(everything.directory, {**everything.env, "INTURN_CONSOLE_USERS": OPERATORS}) as web:
        yield web


@pytest.fixture
def open_console(browser: Browser, console_web: Web, house: House) -> Iterator[OpenConsole]:
    """Open the console in a window of its own: `open_console("/sessions", color_scheme="dark")`.

    The test fails if anything has failed in one of its windows.
    """
    opened: list[Console] = []

    def open_one(path: str = "", **options: Any) -> Console:
        console = Console(browser.new_context(**options), console_web)
        opened.append(console)
        console.open(path)
        return console

    yield open_one
    faults = [fault for console in opened for fault in console.faults]
    for console in opened:
        print(f"--- page\n{console.page.locator('body').aria_snapshot()}")
        console.context.close()
    assert faults == []


@pytest.fixture
def session_id() -> str:
    return f"console-{secrets.token_hex(4)}"


def test_who_is_signed_out_sees_nothing(open_console: OpenConsole) -> None:
    console = open_console("/sessions?status=active")
    expect(console.title).to_have_text("Sessions")
    expect(console.page.get_by_label("Status")).to_have_value("active")
    # No script of a page can read what signs the browser in.
    assert console.page.evaluate("document.cookie") == ""

    console.button("Sign out").click()
    for path in ("", "/sessions", "/deliveries"):
        console.page.goto(f"{console.url}{path}")
        expect(console.title).to_have_text("Sign in")
        expect(console.page.get_by_role("navigation")).to_have_count(0)
    console.page.go_back()
    expect(console.title).to_have_text("Sign in")

    console.sign_in(password="not the password")
    expect(console.page.get_by_role("alert")).to_have_text("Name or password is wrong.")


def test_a_link_from_another_site_leads_to_its_page(open_console: OpenConsole) -> None:
    console = open_console()

    def other_site(route: Route) -> None:
        route.fulfill(
            content_type="text/html", body=f'<a href="{console.url}/sessions?user=ann&age=in-1d">go</a>'
        )

    console.page.route("http://chat.example/", other_site)
    console.page.goto("http://chat.example/")
    console.link("go").click()

    expect(console.title).to_have_text("Sessions")
    expect(console.page.get_by_label("User")).to_have_value("ann")
    expect(console.page.get_by_label("Last change")).to_have_value("in-1d")


def test_behind_a_tls_proxy_the_cookie_is_for_https_alone(
    house: House, browser: Browser, tmp_path: Path
) -> None:
    with tls_listener(tmp_path) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        env = {**house.env, "INTURN_CONSOLE_USERS": OPERATORS, "INTURN_PUBLIC_URL": url}
        with (
            web_process(house.directory, env) as web,
            browser.new_context(ignore_https_errors=True) as context,
        ):
            pass_on(listener, int(web.url.rpartition(":")[2]))
            console = Console(context, web._replace(url=url))
            console.open("/sessions")
            expect(console.title).to_have_text("Sessions")
            (cookie,) = context.cookies()
            assert cookie["name"] == "__Host-inturn-console"
            assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Strict")

            console.button("Sign out").click()
            expect(console.title).to_have_text("Sign in")
            assert (context.cookies(), console.faults) == ([], [])


def test_a_session_is_followed_as_its_turns_run(
    house: House, open_console: OpenConsole, session_id: str
) -> None:
    house.client.respond(session_id, "hello", user_id="ann").get(30)
    console = open_console()
    console.page.get_by_label("Open a session").fill(session_id)
    console.button("Open").click()
    expect(console.section("What was said").get_by_role("listitem")).to_have_count(2)
    expect(console.section("Turns that wait or run")).to_contain_text("None.")
    console.page.evaluate("window.stayed = true")

    turn = house.client.respond(session_id, "one pause two", stream=True)
    house.client.respond(session_id, "and this")
    turns = console.section("Turns that wait or run").get_by_role("listitem")
    expect(turns).to_contain_text(["one pause two", "and this"])
    expect(turns.first).to_contain_text("running at the head")
    expect(turns.last).to_contain_text("waiting behind 1")
    expect(console.section("Lease")).to_contain_text(re.compile(r"Owner\s*\S+:\d+:\w+\s*Lasts\s*\d"))

    let_go(house.journal)
    turn.get(30)
    expect(console.section("What was said").get_by_role("listitem")).to_have_count(6)
    expect(console.section("Turns that wait or run")).to_contain_text("None.")
    expect(console.page.locator("[aria-live=polite]")).to_have_text("6 messages; turns that wait or run: 0")
    assert console.page.evaluate("window.stayed"), "the page was not loaded anew"


def test_who_reads_is_not_disturbed(house: House, open_console: OpenConsole, session_id: str) -> None:
    calls = create_message(session_id, "tool", "[]", tool_calls=[{"name": "free_tables"}])
    house.store.commit(create_session(session_id), [calls], expected_version=0)
    house.client.respond(session_id, "pause", stream=True, turn_id="1")
    console = open_console(f"/sessions/{session_id}")
    console.page.get_by_text("Calls of tools").click()
    expect(console.page.get_by_text("free_tables")).to_be_visible()
    stop = console.page.get_by_role("link", name=re.compile("^Stop"))
    expect(console.section("Turns that wait or run")).to_contain_text("running")
    stop.focus()

    house.client.respond(session_id, "and this")
    expect(stop).to_have_count(2)
    expect(stop.first).to_be_focused()
    expect(console.page.get_by_text("free_tables")).to_be_visible()

    console.button("Pause updates").click()
    let_go(house.journal)
    house.client.handle(session_id, "1").get(30)
    expect(console.button("Follow again")).to_be_visible()
    expect(stop).to_have_count(2)
    console.button("Follow again").click()
    expect(stop).to_have_count(0)
    expect(console.page.get_by_text("free_tables")).to_be_visible()


def test_a_page_that_is_cut_off_goes_on(house: House, open_console: OpenConsole, session_id: str) -> None:
    house.client.respond(session_id, "hello").get(30)
    console = open_console(f"/sessions/{session_id}")
    console.context.set_offline(True)
    expect(console.button("Offline: trying again")).to_be_visible()
    house.client.respond(session_id, "and this").get(30)

    console.context.set_offline(False)
    expect(console.section("What was said").get_by_role("listitem")).to_have_count(4)
    expect(console.button("Pause updates")).to_be_visible()


def test_a_page_whose_operator_has_signed_out_elsewhere_shows_nothing_more(
    house: House, open_console: OpenConsole, session_id: str
) -> None:
    house.client.respond(session_id, "hello").get(30)
    console = open_console(f"/sessions/{session_id}")
    other = console.context.new_page()
    other.goto(console.url)
    other.get_by_role("button", name="Sign out").click()

    expect(console.title).to_have_text("Sign in")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_whatever_is_in_a_session_is_shown_as_text_and_nothing_else(
    text: str, house: House, open_console: OpenConsole
) -> None:
    session = create_session(text, user_id=text, data={text: {"what": text}}, metadata={text: text})
    session.outbox = {text: Delivery(channel="web", state="failed", error=text)}
    calls = [{"name": text, "arguments": {text: text}}]
    lines = [
        create_message(text, "user", text, turn_id=text, user_id=text, event={"images": [text]}),
        create_message(text, "assistant", text, name=text, route=text, step=text, tool_calls=calls),
    ]
    house.store.commit(session, lines, expected_version=0)
    settings = load_settings(redis_url=house.env["REDIS_URL"])
    with connect(settings) as redis:
        Deliveries(redis, settings).outcomes.note(text, text, session.outbox[text])
    house.client.save_session(text, turn_id="1").get(30)

    console = open_console("/sessions?order=newest", **PHONE)
    assert console.is_no_wider_than_the_window()
    console.page.locator("th a").filter(has_text=text).first.click()
    expect(console.page.locator("h1 bdi")).to_have_text(text)
    assert console.page.locator("h1 bdi").text_content() == text
    assert [said.text_content() for said in console.page.locator(".lines .text").all()] == [text, text]
    for details in console.page.locator("summary").all():
        details.click()
    assert console.is_no_wider_than_the_window()
    assert console.page.locator("main :is(img, svg, script, iframe, b)").count() == 0

    console.page.locator("#facts a").click()
    expect(console.page.get_by_label("User")).to_have_value(text)
    console.link("Erase this user").click()
    expect(console.page.locator("main bdi")).to_have_text(text)
    assert console.is_no_wider_than_the_window()
    console.open("/deliveries")
    assert console.is_no_wider_than_the_window()
    card = console.page.get_by_role("listitem").filter(has=console.page.locator("bdi", has_text=text))
    card.get_by_role("link", name=re.compile("^Try again")).last.click()
    expect(console.page.locator("main bdi")).to_have_text([text, text])
    console.button("Try again").click()
    expect(console.note).to_contain_text("Another try was asked for")


def test_an_act_is_done_in_two_steps(house: House, open_console: OpenConsole, session_id: str) -> None:
    turn = house.client.respond(session_id, "slowly 0.1 count 500", stream=True, turn_id="1")
    console = open_console(f"/sessions/{session_id}", **PHONE)
    expect(console.section("Turns that wait or run")).to_contain_text("running")
    console.page.get_by_role("link", name=re.compile("^Stop")).tap()
    expect(console.title).to_have_text("Stop this turn?")
    console.link("Back").tap()
    console.page.get_by_role("link", name=re.compile("^Stop")).tap()
    console.button("Stop the turn").tap()

    expect(console.note).to_contain_text("asked to stop")
    expect(console.section("What was said")).to_contain_text("interrupted")
    assert turn.get(60).finish_reason == "interrupted"

    console.link("Complete").tap()
    console.button("Complete the session").tap()
    expect(console.section("State")).to_contain_text(re.compile(r"Status\s*completed"))
    console.link("Export").tap()
    with console.page.expect_download() as download:
        console.button("Download").tap()
    lines = [json.loads(line) for line in download.value.path().read_text().splitlines()]
    assert [line["type"] for line in lines] == ["session", "message", "message", "end"]
    console.open_session(session_id)
    console.link("Erase").tap()
    console.button("Erase the session").tap()
    expect(console.note).to_have_text("The session was erased.")
    assert house.store.load(session_id) is None


def test_all_of_it_works_without_javascript(house: House, open_console: OpenConsole, session_id: str) -> None:
    house.client.respond(session_id, "refused", user_id=session_id, turn_id="1")
    expect_letters(house, session_id, 1)
    console = open_console("/sessions", java_script_enabled=False)
    console.page.get_by_label("User").fill(session_id)
    console.button("Show").click()
    console.link(session_id).first.click()
    expect(console.section("Dead letters")).to_contain_text("ProviderError")
    console.page.get_by_role("link", name=re.compile("^What was said")).click()
    expect(console.page.locator("main .text")).to_contain_text('"message":"refused"')

    console.link("Drop").click()
    console.button("Drop it").click()
    expect(console.note).to_contain_text("The dead letter is gone.")
    expect_letters(house, session_id, 0)

    console.open(f"/sessions?user={session_id}")
    console.link("Erase this user").click()
    console.page.get_by_label("Type the user’s ID to go on").fill(f"{session_id}x")
    console.button("Erase the user").click()
    expect(console.page.get_by_role("alert")).to_contain_text("nothing was done")
    console.page.get_by_label("Type the user’s ID to go on").fill(session_id)
    console.button("Erase the user").click()
    expect(console.title).to_have_text("The user is erased")
    assert house.store.load(session_id) is None


def expect_letters(house: House, session_id: str, number: int) -> None:
    wait_until(lambda: len(house.client.dead.find(session_id)) == number)


@pytest.mark.long
def test_ten_thousand_sessions_are_paged(house: House, browser: Browser) -> None:
    # In Redis, which takes so many fastest.
    env = {**house.env, "DATABASE_URL": house.env["REDIS_URL"], "INTURN_CONSOLE_USERS": OPERATORS}
    with open_adapter(env["DATABASE_URL"]) as store:
        for number in range(10_000):
            store.commit(create_session(f"s{number:05}", user_id=f"user-{number % 3}"), expected_version=0)
    with web_process(house.directory, env) as web, browser.new_context() as context:
        console = Console(context, web)
        console.open("/sessions?order=oldest")
        seen: list[str] = []
        for _ in range(3):
            seen += console.page.locator("tbody a").all_text_contents()
            console.link("Next page").click()
        console.link("First page").click()
        expect(console.link("s00000")).to_be_visible()
        assert (seen, console.faults) == ([f"s{number:05}" for number in range(150)], [])

        # The rest without drawing it, two hundred pages in all.
        address, found = "/console/sessions?order=oldest", []
        while address:
            page = context.request.get(f"{web.url}{address}").text()
            found += re.findall(r'<a [^>]*><bdi class="id">(s\d+)<', page)
            following = re.search(r'href="([^"]*)" rel="next"', page)
            address = unescape(following[1]) if following else ""
        assert found == [f"s{number:05}" for number in range(10_000)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_that_keeps_anybody_out(
    scheme: str, house: House, open_console: OpenConsole
) -> None:
    session_id = f"axe-{scheme}"
    session = create_session(session_id, user_id="axe", data={"party": 4}, metadata={"tenant": "north"})
    session.outbox = {
        "a:1": Delivery(channel="sms", state="unknown", error="time-out", doubtful=True),
        "a:2": Delivery(channel="sms", state="sent"),
    }
    lines = [
        create_message(session_id, "user", "hello " * 1000),
        create_message(session_id, "assistant", "", event={"failed": True}),
        create_message(session_id, "tool", "[]", tool_calls=[{"name": "free_tables"}]),
    ]
    house.store.commit(session, lines, expected_version=0)
    settings = load_settings(redis_url=house.env["REDIS_URL"])
    with connect(settings) as redis:
        Deliveries(redis, settings).outcomes.note(session_id, "a:1", session.outbox["a:1"])
    house.client.respond(session_id, "refused", turn_id="1")
    expect_letters(house, session_id, 1)
    house.client.respond(session_id, "pause", stream=True)
    house.client.respond(session_id, "and this")
    console = open_console(f"/sessions/{session_id}", color_scheme=scheme)
    expect(console.section("Turns that wait or run")).to_contain_text("running")
    for details in console.page.locator("summary").all():
        details.click()
    found = []
    for window in (DESK, SMALL):
        console.page.set_viewport_size(window)
        found += console.faults_by_axe()
    for path in (
        "",
        "/sessions?user=axe",
        "/sessions?user=nobody",
        "/dead-letters",
        f"/dead-letters/letter?session={session_id}&turn={session_id}:1",
        "/deliveries?state=unknown",
        "/act/erase-user?user=axe",
        f"/sessions/{session_id}?note=asked",
        "/nothing",
    ):
        console.open(path)
        found += console.faults_by_axe()
    console.button("Sign out").click()
    console.sign_in(password="wrong")
    expect(console.page.get_by_role("alert")).to_be_visible()
    found += console.faults_by_axe()
    let_go(house.journal)

    assert found == []


def test_all_can_be_reached_with_the_tab_key(
    house: House, open_console: OpenConsole, session_id: str
) -> None:
    house.store.commit(create_session(session_id), [], expected_version=0)
    console = open_console(f"/sessions/{session_id}")
    found = []
    for _ in range(11):
        console.page.keyboard.press("Tab")
        focus = console.page.locator(":focus-visible")
        expect(focus).not_to_have_css("outline-style", "none")
        found.append(focus.inner_text())
    assert found == [
        "Skip to what is on this page",
        *("Overview", "Sessions", "Dead letters", "Deliveries", "Sign out"),
        *("Complete", "Abandon", "Export", "Erase", "Pause updates"),
    ]


def test_what_screen_readers_find(house: House, open_console: OpenConsole, session_id: str) -> None:
    session = create_session(session_id, user_id="ann", data={"party": 4})
    line = create_message(session_id, "user", "A table, please.")
    house.store.commit(session, [line], expected_version=0)
    console = open_console(f"/sessions/{session_id}")
    expect(console.page.locator("html")).to_have_attribute("lang", "en")

    expect(console.page.locator("body")).to_match_aria_snapshot(
        f"""
        - link "Skip to what is on this page"
        - banner:
          - paragraph: Console
          - navigation "Console":
            - list:
              - listitem:
                - link "Overview"
              - listitem:
                - link "Sessions"
              - listitem:
                - link "Dead letters"
              - listitem:
                - link "Deliveries"
          - text: kim
          - button "Sign out"
        - main:
          - heading "Session {session_id}" [level=1]
          - link "Complete"
          - link "Abandon"
          - link "Export"
          - link "Erase"
          - region "State":
            - heading "State" [level=2]
            - term: Status
            - definition: active
            - term: User
            - definition:
              - link "ann"
          - region "Lease":
            - heading "Lease" [level=2]
          - region "Collected data":
            - heading "Collected data" [level=2]
            - term: party
            - definition: "4"
          - region "Turns that wait or run":
            - heading "Turns that wait or run" [level=2]
            - paragraph: None.
          - region "What was said":
            - heading "What was said" [level=2]
            - list:
              - listitem:
                - paragraph:
                  - strong: user
                - paragraph: A table, please.
          - button "Pause updates"
        """
    )
