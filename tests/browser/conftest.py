"""The system's Chromium for tests of live pages: what it asked for, and what axe-core finds."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

_GRAVE = ("serious", "critical")


@dataclass(slots=True)
class Heard:
    """What a page did while a test looked at it.

    Attributes:
        requests: The addresses that it asked for, in order.
        complaints: What its console called an error: a broken content security policy, say.
    """

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def origins(self) -> set[str]:
        """Where requests went: scheme, host and port."""
        parts = [urlsplit(address) for address in self.requests]
        return {f"{part.scheme}://{part.netloc}" for part in parts}


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests; nothing is downloaded."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("there is no chromium: live pages are not looked at")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def heard() -> Heard:
    """What the page of this test asks for and complains of."""
    return Heard()


@pytest.fixture
def browser_page(chromium: Browser, heard: Heard) -> Iterator[Page]:
    """A fresh page, with no cookies, 1200 units wide; ``heard`` records what it does."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()

    def note_request(request: Request) -> None:
        heard.requests.append(request.url)

    def note_complaint(message: ConsoleMessage) -> None:
        if message.type == "error":
            heard.complaints.append(message.text)

    page.on("request", note_request)
    page.on("console", note_complaint)
    page.on("pageerror", lambda error: heard.complaints.append(str(error)))
    page.set_default_timeout(20_000)
    yield page
    context.close()


@pytest.fixture
def axe_findings() -> Callable[[Page], list[str]]:
    """Say what axe-core finds on a page that is serious or critical: a rule and its elements."""
    from axe_playwright_python.sync_playwright import Axe

    def look(page: Page) -> list[str]:
        violations = Axe().run(page).response["violations"]
        return [
            f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes']]}"
            for one in violations
            if one["impact"] in _GRAVE
        ]

    return look
