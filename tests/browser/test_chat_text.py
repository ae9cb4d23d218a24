"""What is typed and said on the chat page: hostile words, all scripts, phones, colours, screen readers."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ViewportSize, expect

from tests.agents import let_go
from tests.browser.chat import Chat
from tests.browser.conftest import House, OpenChat
from tests.web import Web

pytestmark = pytest.mark.process

DESK: ViewportSize = {"width": 1280, "height": 800}
SMALL: ViewportSize = {"width": 390, "height": 844}
PHONE = {"viewport": SMALL, "is_mobile": True, "has_touch": True}

HOSTILE = {
    "html": "<img src=x onerror=\"alert('img')\"><svg onload=alert(1)><script>alert('script')</script>",
    "links": "[a link](javascript:alert(1)) https://example.com/ &lt;b&gt; ${alert(1)} </p></li></ol>",
    "a long word": "W" * 400,
    "right to left": "\u202eשלום עולם\u202c مرحبا بالعالم 123",
    "marks": "👩‍👩‍👧‍👧🏳️‍🌈 Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿̋ͥͥ̂ͣ̐́́͜͞",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_said_is_shown_as_text_and_nothing_else(text: str, house: House, open_chat: OpenChat) -> None:
    chat = open_chat(house.web, **PHONE)
    chat.box.fill(text)
    assert is_no_wider_than_the_window(chat)
    chat.box.press("Enter")

    for _ in range(2):
        expect(chat.replies).to_have_count(1)
        chat.expect_states()
        assert [said.text_content() for said in chat.said.all()] == [text, f"you said: {text}"]
        assert chat.log.locator(":is(img, svg, script, a, b)").count() == 0
        assert is_no_wider_than_the_window(chat)
        chat.page.reload()
    assert chat.history(house.store) == [text, f"you said: {text}"]


def test_each_line_is_set_in_its_own_direction(chat: Chat) -> None:
    lines = ["שלום", "a line that is longer than the others", "hello"]
    for line in lines:
        chat.box.press_sequentially(line)
        chat.box.press("Shift+Enter")
    chat.box.press("Enter")

    text = "\n".join(lines)
    chat.expect_said(text, f"you said: {text}")
    is_on_the_right = """(node, [start, end]) => {
        const some = document.createRange();
        some.setStart(node.firstChild, start);
        some.setEnd(node.firstChild, end);
        const all = node.getBoundingClientRect();
        return some.getBoundingClientRect().left > all.left + all.width / 2;
    }"""
    assert chat.said.first.evaluate(is_on_the_right, [0, 4])
    assert not chat.said.first.evaluate(is_on_the_right, [len(text) - 5, len(text)])


def test_enter_sends_nothing_while_a_word_is_composed(chat: Chat) -> None:
    keyboard = chat.context.new_cdp_session(chat.page)
    chat.box.focus()
    keyboard.send("Input.imeSetComposition", {"text": "にほん", "selectionStart": 3, "selectionEnd": 3})
    chat.page.keyboard.press("Enter")
    expect(chat.box).to_have_value(re.compile("^にほん"))
    chat.expect_said()
    keyboard.send("Input.imeSetComposition", {"text": "", "selectionStart": 0, "selectionEnd": 0})
    chat.box.fill("日本")
    chat.page.keyboard.press("Enter")

    chat.expect_said("日本", "you said: 日本")
    expect(chat.box).to_have_value("")


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_a_phone_shows_all_of_it_in_light_and_in_dark(
    scheme: str, is_dark: bool, house: House, open_chat: OpenChat
) -> None:
    chat = open_chat(house.web, color_scheme=scheme, **PHONE)
    chat.box.fill("count 1000")
    chat.button("Send").tap()
    expect(chat.replies).to_contain_text(" 1000")

    for shown in (chat.box, chat.button("Send"), chat.button("New conversation")):
        expect(shown).to_be_in_viewport(ratio=1)
    expect(chat.button("Latest messages")).to_be_hidden()
    assert is_no_wider_than_the_window(chat)
    assert chat.box.evaluate("node => getComputedStyle(node).fontSize") == "16px"
    assert (brightness(chat) < 64) is is_dark
    chat.page.evaluate("scrollTo(0, 0)")
    chat.button("Latest messages").tap()
    expect(chat.button("Latest messages")).to_be_hidden()


def test_nothing_moves_for_those_who_do_not_want_it(house: House, open_chat: OpenChat) -> None:
    chat = open_chat(house.web, reduced_motion="reduce")
    chat.say("moves pause")
    chat.expect_states("writing")
    assert chat.states.evaluate("node => getComputedStyle(node, '::before').animationName") == "none"

    let_go(house.journal)
    chat.expect_states()


def test_what_screen_readers_find(house: House, chat: Chat) -> None:
    expect(chat.page.locator("html")).to_have_attribute("lang", "en")
    chat.say("read pause this")
    chat.say("and this")
    chat.expect_states("writing", "queued behind 1")

    expect(chat.page.locator("body")).to_match_aria_snapshot(
        """
        - banner:
          - heading "Chat" [level=1]
          - status
          - button "New conversation"
        - main:
          - list "Conversation":
            - listitem:
              - paragraph: "You:"
              - paragraph: read pause this
            - listitem:
              - paragraph: "Reply:"
              - paragraph: "you said: read"
              - paragraph: writing
            - listitem:
              - paragraph: "You:"
              - paragraph: and this
              - paragraph:
                - text: queued behind 1
                - button "Withdraw"
        - contentinfo:
          - textbox "Message"
          - button "Stop"
          - button "Send"
        """
    )
    announced = chat.page.locator("[aria-live=polite]")
    let_go(house.journal)
    expect(announced).to_have_text("you said: and this")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_that_keeps_anybody_out(scheme: str, house: House, open_chat: OpenChat) -> None:
    chat = open_chat(house.web, color_scheme=scheme)
    found = faults_by_axe(chat)
    for text in ("hello", "refused", f"{scheme} pause", "queued", "withdrawn"):
        chat.say(text)
    chat.expect_states("failed", "writing", "queued behind 1", "queued behind 2")
    chat.button("Withdraw").last.click()
    chat.expect_states("failed", "writing", "queued behind 1", "withdrawn")
    chat.context.set_offline(True)
    chat.say("not sent")
    expect(chat.connection).to_have_text("Offline: reconnecting")

    for window in (DESK, SMALL):
        chat.page.set_viewport_size(window)
        found += faults_by_axe(chat)
    assert found == []
    let_go(house.journal)


def test_axe_finds_nothing_where_one_signs_in(strict_web: Web, open_chat: OpenChat) -> None:
    chat = open_chat(strict_web)
    chat.say("hello")
    expect(chat.page.get_by_label("Token or API key")).to_be_visible()

    assert faults_by_axe(chat) == []


def test_all_can_be_reached_with_the_tab_key(chat: Chat) -> None:
    chat.say("hello slowly 0.05 count 2000")
    chat.say("wait")
    chat.expect_states("writing", "queued behind 1")
    chat.button("New conversation").focus()
    found = []
    for _ in range(4):
        chat.page.keyboard.press("Tab")
        focus = chat.page.locator(":focus-visible")
        expect(focus).not_to_have_css("outline-style", "none")
        found.append(focus.evaluate("node => node.getAttribute('aria-label') ?? node.textContent"))

    assert found == ["Withdraw", "", "Stop", "Send"]
    chat.button("Withdraw").press("Enter")
    chat.expect_states("writing", "withdrawn")
    chat.page.keyboard.press("Escape")
    chat.expect_states("stopped", "withdrawn")


def faults_by_axe(chat: Chat) -> list[str]:
    """What breaks WCAG 2.1, A and AA, and what axe holds for best practice."""
    found = Axe().run(chat.page).response["violations"]
    return [f"{each['id']}: {node['html']}" for each in found for node in each["nodes"]]


def is_no_wider_than_the_window(chat: Chat) -> bool:
    # Not `innerWidth`: a phone zooms out until all of it is on the screen.
    size = chat.page.viewport_size
    return size is not None and chat.page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def brightness(chat: Chat) -> int:
    colour: str = chat.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    return max(int(part) for part in re.findall(r"\d+", colour))
