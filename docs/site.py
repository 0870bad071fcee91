"""What the documentation's site has beside the pages: a navigation, and pages of other files.

A hook of MkDocs (``mkdocs.yml``). The navigation follows from the folders, so no page is forgotten;
``ORDER`` says which come first. Files at the root of the repository (CONTRIBUTING.md and others)
and the notebooks become pages of the site, and links to them lead there.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# Folders in the order of the tabs, each with the pages that come first; the others follow by name.
ORDER: dict[str, tuple[str, tuple[str, ...]]] = {
    "tutorials": ("Tutorials", ("first-simulation", "own-data", "four-terminals")),
    "notebooks": ("Notebooks", ()),
    "how-to": (
        "How-to",
        (
            *(
                "simulate",
                "recipes",
                "plan-a-study",
                "track-runs",
                "read-a-report",
                "worth-joining",
            ),
            *("test-generalisation", "harmonise", "calibrate-and-decide", "stress-a-model"),
            *("explain-predictions", "document-a-model", "use-a-model", "watch-a-model"),
            *("detect", "regression-and-survival", "combine-modalities", "transfer", "own-network"),
            *("continue-a-study", "a-year"),
            *("run-a-site", "joining", "leave-a-study", "import-images", "pacs", "review-cases"),
            *("protect-patients", "masked-sums"),
            *("operate-a-server", "monitor", "deploy", "run-on-a-cluster", "upgrade"),
        ),
    ),
    "concepts": ("Concepts", ("one-round", "privacy", "ledger", "security", "attacks")),
    "reference": (
        "Reference",
        (
            *("glossary", "cli", "study-file", "study-keys", "site-folder", "site-policy"),
            *("settings-keys", "json", "python", "python-api"),
        ),
    ),
    "project": ("Project", ("contributing", "security", "changelog", "licence")),
    "decisions": ("Decisions", ()),
}
FIRST = ("index.md", "where-to-begin.md")
LAST = ("log.md",)  # dated measurements: for who asks why
# Files at the root that are pages of the site.
ROOT_PAGES = {
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "CHANGELOG.md": "project/changelog.md",
    "LICENSE": "project/licence.md",
    "README.md": "index.md",
}
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of other files, and make the navigation."""
    for name, page in ROOT_PAGES.items():
        if page not in files.src_uris:
            files.append(File.generated(config, page, content=_root_page(name, page)))
    for notebook in sorted(DOCS.glob("notebooks/*.py")):
        page = f"notebooks/{notebook.stem}.md"
        files.append(File.generated(config, page, content=notebook_page(notebook)))
    pages = [file.src_uri for file in files.documentation_pages()]
    if "decisions/index.md" not in pages:
        content = _decisions_page([page for page in pages if page.startswith("decisions/")])
        files.append(File.generated(config, "decisions/index.md", content=content))
        pages.append("decisions/index.md")
    config.nav = navigation(pages)
    return files


def navigation(pages: list[str]) -> list[Any]:
    """Return the navigation: a tab of first pages, a tab a folder, and last what is about the past.

    Args:
        pages: Paths under docs/. A folder that ``ORDER`` does not name comes behind the others.
    """
    named = [*ORDER, *sorted({page.partition("/")[0] for page in pages if "/" in page} - {*ORDER})]
    inside = {folder: _inside(folder, pages) for folder in named}
    past: list[Any] = [*inside.pop("project"), {"Decisions": inside.pop("decisions")}]
    alone = [page for page in pages if "/" not in page and page not in (*FIRST, *LAST)]
    begin = [*(page for page in FIRST if page in pages), *alone]
    tabs = [{_title(folder): held} for folder, held in inside.items() if held]
    return [{"Begin": begin}, *tabs, {_title("project"): [*past, *LAST]}]


def _title(folder: str) -> str:
    return ORDER[folder][0] if folder in ORDER else folder.capitalize()


def _inside(folder: str, pages: list[str]) -> list[str]:
    """Return a folder's pages: those with a place first, the others by name."""
    order = ["index", *ORDER.get(folder, ("", ()))[1]]
    held = sorted(page for page in pages if page.startswith(f"{folder}/"))
    return sorted(held, key=lambda page: _place(order, page))


def _place(order: list[str], page: str) -> int:
    name = posixpath.splitext(posixpath.basename(page))[0]
    return order.index(name) if name in order else len(order)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links that leave docs/ to the site's pages of those files."""
    here = posixpath.dirname(page.file.src_uri)
    folder = posixpath.join("docs", here)

    def lead(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link[1]))
        inside = ROOT_PAGES.get(path)
        if path == "docs/decisions":
            inside = "decisions/index.md"
        if path.startswith("docs/notebooks/") and path.endswith(".py"):
            inside = f"{path[len('docs/') : -len('.py')]}.md"
        if inside is None:
            return link[0]
        return f"]({posixpath.relpath(inside, here or '.')}{link[2] or ''})"

    return _LINK.sub(lead, markdown)


def on_post_page(output: str, **_: Any) -> str:
    """Give the theme's search a name, which a reader of screens needs."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"', 1)


def _root_page(name: str, page: str) -> str:
    """Return a file of the root as a page: its links are relative to the page's folder."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if not name.endswith(".md"):
        return f"# Licence\n\n```text\n{text.strip()}\n```\n"
    folder = posixpath.join("docs", posixpath.dirname(page))
    return _LINK.sub(lambda one: f"]({posixpath.relpath(one[1], folder)}{one[2] or ''})", text)


def notebook_page(notebook: Path) -> str:
    """Return a notebook's text source as Markdown: its words, and its cells as blocks of code."""
    import jupytext

    held = jupytext.reads(notebook.read_text(encoding="utf-8"), fmt="py:percent")
    cells = []
    for cell in held.cells:
        is_code = cell.cell_type == "code"
        cells.append(f"```python\n{cell.source.strip()}\n```" if is_code else cell.source.strip())
    name = notebook.relative_to(ROOT).as_posix()
    return "\n\n".join([*cells, f"This page is the notebook `{name}`; CI executes it."]) + "\n"


def _decisions_page(pages: list[str]) -> str:
    lines = ["# Decisions\n\nWhy some things are as they are, half a page each.\n\n"]
    for page in sorted(pages):
        title = (DOCS / page).read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        lines.append(f"- [{title}]({posixpath.basename(page)})\n")
    return "".join(lines)
