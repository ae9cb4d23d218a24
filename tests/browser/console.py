"""The console as an operator sees it, in a real browser."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Locator, Page, expect

from tests.web import Web

# A turn may need a worker that has yet to come to it.
expect.set_options(timeout=30_000)


class Console:
    """A tab with the console, and what went wrong in it."""

    def __init__(self, context: BrowserContext, web: Web) -> None:
        self.context = context
        self.url = f"{web.url}/console"
        self.faults: list[str] = []
        self.page: Page = context.new_page()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", self._close)

    def sign_in(self, name: str = "kim", password: str = "a password of kim") -> None:
        """From any page, where one is shown where to sign in."""
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Password").fill(password)
        self.button("Sign in").click()

    def open(self, path: str = "") -> None:
        """Go to a page of the console, and sign in if it wants that."""
        self.page.goto(f"{self.url}{path}")
        if "/login" in self.page.url:
            self.sign_in()
            expect(self.button("Sign out")).to_be_visible()

    def open_session(self, session_id: str) -> None:
        self.open(f"/sessions/{quote(session_id, safe='')}")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def link(self, name: str) -> Locator:
        return self.page.get_by_role("link", name=name, exact=True)

    def section(self, name: str) -> Locator:
        return self.page.get_by_role("region", name=name)

    @property
    def title(self) -> Locator:
        return self.page.get_by_role("heading", level=1)

    @property
    def note(self) -> Locator:
        """What came of the last act."""
        return self.page.get_by_role("status")

    def faults_by_axe(self) -> list[str]:
        """What breaks WCAG 2.1, A and AA, and what axe holds for best practice."""
        self.page.wait_for_load_state()
        found: Any = Axe().run(self.page).response["violations"]
        return [f"{each['id']}: {node['html']}" for each in found for node in each["nodes"]]

    def is_no_wider_than_the_window(self) -> bool:
        self.page.wait_for_load_state()  # or it may have no style yet
        size = self.page.viewport_size
        width: int = self.page.evaluate("document.documentElement.scrollWidth")
        return size is not None and width <= size["width"]

    def _hear(self, message: ConsoleMessage) -> None:
        # What a test has refused the browser says by itself.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            self.faults.append(message.text)

    def _close(self, dialog: Dialog) -> None:
        self.faults.append(f"a dialog: {dialog.message}")
        dialog.dismiss()
