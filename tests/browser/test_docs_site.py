"""The documentation's site in a real Chromium: its search finds, it asks nobody, it fits."""

import functools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright")
pytest.importorskip("material")
CHROMIUM = os.environ.get("WARDROUND_CHROMIUM") or shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt install chromium"),
]
ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    *("index.html", "where-to-begin.html", "concepts/comparison.html", "reference/cli.html"),
    *("reference/study-file.html", "how-to/read-a-report.html", "project/changelog.html"),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=True,
    )
    return folder


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The site on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


def _search(page: object, word: str) -> list[str]:
    """Type a word into the search, by keyboard alone, and return where the results lead."""
    page.keyboard.press("/")  # type: ignore[attr-defined]
    page.keyboard.type(word)  # type: ignore[attr-defined]
    results = page.locator(".md-search-result__link")  # type: ignore[attr-defined]
    results.first.wait_for(timeout=15_000)
    return [one.get_attribute("href") or "" for one in results.all()]


@pytest.mark.parametrize(
    ("word", "leads_to"),
    [
        ("epsilon", "concepts/privacy.html"),
        ("quorum", "reference/glossary.html"),
        ("dicomweb", "how-to/pacs.html"),
    ],
)
def test_a_word_typed_into_the_search_finds_its_page(
    browser: object, address: str, word: str, leads_to: str
) -> None:
    page = browser.new_page()  # type: ignore[attr-defined]
    page.goto(f"{address}/index.html")
    assert any(leads_to in found for found in _search(page, word))
    page.close()


def test_the_search_works_where_the_site_is_a_folder_without_a_server(
    browser: object, site: Path
) -> None:
    page = browser.new_page()  # type: ignore[attr-defined]
    page.goto((site / "index.html").as_uri())
    assert any("concepts/privacy.html" in found for found in _search(page, "epsilon"))
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
def test_a_page_asks_nobody_else_logs_no_error_fits_its_window_and_can_be_read(
    browser: object, address: str, scheme: str, width: int
) -> None:
    context = browser.new_context(  # type: ignore[attr-defined]
        color_scheme=scheme, viewport={"width": width, "height": 800}
    )
    page = context.new_page()
    asked: list[str] = []
    serious: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    axe = axe_playwright.Axe()
    kept = os.environ.get("WARDROUND_PICTURES")
    for name in PAGES:
        page.goto(f"{address}/{name}")
        page.wait_for_load_state("networkidle")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{name} is {wide} pixels wide"
        shown = page.evaluate("document.body.getAttribute('data-md-color-scheme')")
        assert shown == {"light": "default", "dark": "slate"}[scheme]
        found = axe.run(page).response["violations"]
        serious += [
            f"{name} {one['id']}: {one['nodes'][0]['html'][:200]}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        if kept:
            path = Path(kept) / f"{name.replace('/', '-')[:-5]}-{width}-{scheme}.png"
            page.screenshot(path=path)
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert not errors
    assert not serious
    context.close()
