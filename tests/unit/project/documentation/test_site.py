"""The documentation as a site: every page is in it and found; nothing comes from elsewhere."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("material")
pytestmark = pytest.mark.long  # the site is built for it; 'make docs' does that, too
ROOT = Path(__file__).resolve().parents[4]
DOCS = ROOT / "docs"
# What a page or a style sheet may load; a link that a reader follows is none of them.
_LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
_LOADS |= {"video": "src", "audio": "src", "object": "data", "embed": "src"}
_FROM_STYLE = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")
# The theme's script loads these where a page has a diagram, a repository's address or an old
# browser; no page has, and the browser's test sees every request.
_OF_THE_THEME = {"unpkg.com", "api.github.com", "clipboardjs.com"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``make docs`` builds it: strictly."""
    folder = tmp_path_factory.mktemp("site") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    assert "ERROR" not in done.stderr
    return folder


class Page(HTMLParser):
    """What a built page loads, where it links to, and what can be linked in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.names: set[str] = set()
        self.alts: list[str | None] = []
        self.has_diagram = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        self.names.update(value for key in ("id", "name") if (value := held.get(key)))
        self.has_diagram |= "mermaid" in (held.get("class") or "")
        where = held.get(_LOADS.get(tag, ""))
        if where and not (tag == "link" and held.get("rel") in ("canonical", "next", "prev")):
            self.loads.append(where)
        if tag == "a" and (target := held.get("href")):
            self.links.append(target)
        if tag == "img":
            self.alts.append(held.get("alt"))


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_page_is_in_the_site_and_in_its_navigation(pages: dict[Path, Page]) -> None:
    (front,) = (path for path in pages if path.name == "index.html" and not _is_inside(path))
    reached = {(front.parent / link.partition("#")[0]).resolve() for link in pages[front].links}
    sources = [page.relative_to(DOCS) for page in DOCS.rglob("*.md")]
    assert len(sources) > 60
    for source in sources:
        built = front.parent / source.with_suffix(".html")
        assert built in pages, source
    unreached = [
        path for path in pages if path.resolve() not in reached and path.name != "404.html"
    ]
    assert not unreached, "tabs and sections lead to them only by way of other pages"


def _is_inside(path: Path) -> bool:
    return path.parent.name != "site"


def test_every_link_and_anchor_of_the_built_site_leads_somewhere(
    site: Path, pages: dict[Path, Page]
) -> None:
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            held = pages.get(target)
            if not target.exists() or (parts.fragment and held and not _has(held, parts.fragment)):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken


def _has(page: Page, fragment: str) -> bool:
    return unquote(fragment) in page.names


def test_no_page_style_or_script_is_loaded_from_elsewhere(
    site: Path, pages: dict[Path, Page]
) -> None:
    for path, page in pages.items():
        elsewhere = [one for one in page.loads if urlsplit(one).netloc]
        assert not elsewhere, path
        assert not page.has_diagram, f"{path}: the theme would load a script for it"
    for style in site.rglob("*.css"):
        named = ["".join(two) for two in _FROM_STYLE.findall(style.read_text(encoding="utf-8"))]
        assert not [one for one in named if urlsplit(one).netloc], style
    for script in site.rglob("*.js"):
        if script.name == "search_index.js":
            continue  # the pages' own text
        found = re.findall(r"[\"'`]https?://([^/\"'`$]+)", script.read_text(encoding="utf-8"))
        assert not {*found} - _OF_THE_THEME, script


def test_every_picture_says_in_words_what_it_shows(pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        assert all(len(alt or "") > 10 for alt in page.alts), path
    large = [one.name for one in (DOCS / "images").iterdir() if one.stat().st_size > 200_000]
    assert not large


@pytest.mark.parametrize(
    ("word", "page"),
    [
        ("epsilon", "concepts/privacy.html"),
        ("quorum", "reference/glossary.html"),
        ("invitation", "how-to/joining.html"),
        ("dicomweb", "how-to/pacs.html"),
    ],
)
def test_the_search_knows_where_a_word_stands(site: Path, word: str, page: str) -> None:
    held = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    found = [one for one in held["docs"] if word in f"{one['title']} {one['text']}".lower()]
    assert page in {one["location"].partition("#")[0] for one in found}


def hook() -> ModuleType:
    """Return docs/site.py, which lies in no package."""
    spec = importlib.util.spec_from_file_location("docs_site", DOCS / "site.py")
    assert spec is not None
    assert spec.loader is not None
    held = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(held)
    return held


def test_a_page_and_a_folder_that_nobody_put_in_order_are_in_the_navigation() -> None:
    made = hook().navigation(
        ["index.md", "new.md", "how-to/zebra.md", "how-to/simulate.md", "recipes/one.md", "log.md"]
    )
    assert made[0] == {"Begin": ["index.md", "new.md"]}
    assert {"How-to": ["how-to/simulate.md", "how-to/zebra.md"]} in made
    assert {"Recipes": ["recipes/one.md"]} in made
    assert made[-1]["Project"][-1] == "log.md"


def test_a_notebooks_source_becomes_a_page(tmp_path: Path) -> None:
    source = tmp_path / "first.py"
    source.write_text("# %% [markdown]\n# # First\n# Words.\n\n# %%\nx = 1\n", encoding="utf-8")
    module = hook()
    module.ROOT = tmp_path
    page = module.notebook_page(source)
    assert page.startswith("# First\nWords.")
    assert "```python\nx = 1\n```" in page


def test_the_pages_named_in_the_order_are_ones_that_exist_or_are_to_come() -> None:
    for folder, (title, first) in hook().ORDER.items():
        assert title
        assert len({*first}) == len(first), folder
