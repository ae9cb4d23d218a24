"""The chat page as a person sees it, in a real browser."""

from __future__ import annotations

import re

from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Locator, Page, expect

from inturn.persistence import MessageQuery, PersistenceAdapter

# A reply may need a worker that has yet to find out that another one has died.
expect.set_options(timeout=30_000)


class Chat:
    """A tab with the chat page, and what went wrong in it."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.page: Page = context.new_page()
        self.faults: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", self._close)
        self.page.goto(url)

    @property
    def box(self) -> Locator:
        """Where one writes."""
        return self.page.get_by_role("textbox", name="Message")

    @property
    def log(self) -> Locator:
        return self.page.get_by_role("list", name="Conversation")

    @property
    def said(self) -> Locator:
        """All messages and replies, in order, without their states."""
        return self.log.locator(".text:visible")

    @property
    def replies(self) -> Locator:
        return self.log.locator(".assistant .text")

    @property
    def states(self) -> Locator:
        """What is said of messages and replies on their way, in order."""
        return self.log.locator(".words:visible")

    @property
    def connection(self) -> Locator:
        return self.page.get_by_role("status")

    @property
    def session_id(self) -> str:
        return self.page.url.partition("#")[2]

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def say(self, text: str) -> None:
        self.box.fill(text)
        self.box.press("Enter")

    def expect_said(self, *texts: str | re.Pattern[str]) -> None:
        """Wait until these are all the messages and replies there are, each to its last letter."""
        exact = [re.compile(f"^{re.escape(text)}$") if isinstance(text, str) else text for text in texts]
        expect(self.said).to_have_text(exact)

    def expect_states(self, *words: str | re.Pattern[str]) -> None:
        """Wait until messages and replies are in these states, in order."""
        expect(self.states).to_have_text(list(words))

    def watch_replies(self) -> None:
        """From now on note each text that the last reply has; see `noted`."""
        self.page.evaluate(
            """() => {
                const noted = (window.noted = []);
                const log = document.getElementById("log");
                const last = () => [...log.querySelectorAll(".assistant .text")].at(-1)?.textContent;
                const everything = { childList: true, characterData: true, subtree: true };
                new MutationObserver(() => noted.push(last())).observe(log, everything);
            }"""
        )

    def noted(self) -> list[str]:
        return [text for text in self.page.evaluate("noted") if text is not None]

    def history(self, store: PersistenceAdapter) -> list[str]:
        """What the store has of the conversation on the page."""
        found = store.find_messages(MessageQuery(session_id=self.session_id, limit=1000))
        return [message.content for message in found.items]

    def _hear(self, message: ConsoleMessage) -> None:
        # Tests take the server away, and the browser says so by itself.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            self.faults.append(message.text)

    def _close(self, dialog: Dialog) -> None:
        self.faults.append(f"a dialog: {dialog.message}")
        dialog.dismiss()
