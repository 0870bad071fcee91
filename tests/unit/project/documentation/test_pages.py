"""What the pages name is there: links, files of the repository, tests, benchmarks."""

import fnmatch
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
DOCS = ROOT / "docs"
# Decisions and the log say how things were when they were written.
PAGES = sorted(
    page
    for page in (*ROOT.glob("*.md"), *DOCS.rglob("*.md"))
    if page.name not in ("log.md", "CHANGELOG.md") and "decisions" not in page.parts
)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_QUOTED = re.compile(r"`([^`\n]+)`")
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_PATH = re.compile(
    r"(benchmarks|client|common|docs|packaging|server|simulations|src|tests)/[\w./-]*"
)
_OF_A_RUN = (".safetensors",)  # a page may call a server's folder "server" too
_TEST = re.compile(r"test_[a-z0-9]+_[\w*]+")
_BENCHMARK = re.compile(r"python -m ((?:benchmarks|tests)(?:\.\w+)+)")


def of_page(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", of_page(page)), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading.lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(_FENCED.sub("", of_page(page))):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_path_in_backticks_is_in_the_repository(page: Path) -> None:
    quoted = (text.partition("::")[0] for text in _QUOTED.findall(_FENCED.sub("", of_page(page))))
    paths = {text for text in quoted if _PATH.fullmatch(text) and not text.endswith(_OF_A_RUN)}
    missing = sorted(path for path in paths if not (ROOT / path).exists())
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    keys = {"test_time_statistics", "test_fraction", "test_epsilon"}  # of studies
    named = {text for text in _QUOTED.findall(of_page(page)) if _TEST.fullmatch(text)} - keys
    if named:
        sources = "".join(of_page(path) for path in (ROOT / "tests").rglob("test_*.py"))
        known = re.findall(r"def (test_\w+)", sources)
        assert not sorted(one for one in named if not fnmatch.filter(known, one))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_module_that_a_page_runs_exists(page: Path) -> None:
    for module in _BENCHMARK.findall(of_page(page)):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_the_index_leads_to_every_page() -> None:
    index = DOCS / "index.md"
    linked = {(DOCS / link).resolve() for link in _LINK.findall(of_page(index))}
    unlinked = {page for page in PAGES if DOCS in page.parents} - linked - {index}
    assert not sorted(map(name, unlinked))


def test_the_reading_order_of_one_round_is_eleven_files_that_exist() -> None:
    page = of_page(DOCS / "concepts" / "one-round.md")
    read = re.findall(r"^## (\d+)\. `([\w/]+\.py)`", page, re.MULTILINE)
    assert [int(number) for number, _ in read] == list(range(1, 12))
    assert all((ROOT / path).is_file() for _, path in read)


def threat_table() -> list[list[str]]:
    """Return the rows of the threat table: who, wants, what stops them, test."""
    page = of_page(DOCS / "concepts" / "security.md")
    table = page.partition("## The table")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


@pytest.mark.parametrize("row", threat_table(), ids=lambda row: f"{row[0]}: {row[1]}"[:70])
def test_every_row_of_the_threat_table_names_tests_that_exist(row: list[str]) -> None:
    assert len(row) == 4
    assert all(row)
    named = [text for text in _QUOTED.findall(row[3]) if text.startswith("tests/")]
    assert named, "no test"
    for path, _, function in (text.partition("::") for text in named):
        functions = re.findall(r"^def (test_\w+)", of_page(ROOT / path), re.MULTILINE)
        assert function in functions if function else functions, f"{path}::{function}"


def test_every_attack_stands_in_the_threat_table_and_is_run_by_make_attacks() -> None:
    attacks = {name(path) for path in (ROOT / "tests" / "attacks").rglob("test_*.py")}
    named = {text.partition("::")[0] for row in threat_table() for text in _QUOTED.findall(row[3])}
    assert not attacks - named
    for path in attacks:
        assert "pytest.mark.attacks" in of_page(ROOT / path), f"{path} has not its marker"
    assert "pytest -m attacks $(PYTEST_FLAGS) tests/attacks" in of_page(ROOT / "Makefile")


def test_the_threat_table_has_everybody_who_could_want_something() -> None:
    people = " ".join(row[0] for row in threat_table())
    for who in ("server operator", "another site", "stranger", "study author", "model giver"):
        assert who in people
    for who in ("guest", "thief", "insider"):
        assert who in people
    assert "## What is not stopped" in of_page(DOCS / "concepts" / "security.md")
