"""The README's file tree is the tree that is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("client", "common", "server", "simulations")
_LINE = re.compile(r"^(?P<indent>(?:│   |    )*)[├└]── (?P<name>\S+)")


def _named_paths() -> set[str]:
    """Return every path of the README's tree, relative to the root; folders end with /."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.partition("## The files")[2].partition("```")[2].partition("```")[0]
    paths: set[str] = set()
    folders: list[str] = []
    for line in tree.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        depth = len(match["indent"]) // 4
        folders[depth:] = [match["name"]]
        paths.add("".join(folders))
    return paths


def test_every_path_that_the_readme_names_exists() -> None:
    absent = sorted(
        path
        for path in _named_paths()
        if not ((ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file())
    )
    assert not absent, f"README.md names what is not there: {', '.join(absent)}"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_readme_names_every_file_of_a_package(package: str) -> None:
    held = {
        f"{package}/{child.name}/" if child.is_dir() else f"{package}/{child.name}"
        for child in (ROOT / package).iterdir()
        if child.name not in ("__init__.py", "__pycache__") and not child.name.startswith(".")
    }
    missing = sorted(held - _named_paths())
    assert not missing, f"add a line to README.md's tree: {', '.join(missing)}"


def test_the_readme_names_every_folder_of_the_root() -> None:
    ignored = {".git", ".venv", "runs", "dist", "build", "shared"}
    listed = {path.partition("/")[0] for path in _named_paths()}
    held = {
        child.name
        for child in ROOT.iterdir()
        if child.is_dir()
        and child.name not in ignored
        and not (child.name.startswith(".") and child.name != ".ci")
    }
    assert held <= listed


def test_the_tree_is_read_as_it_is_drawn() -> None:
    assert {"client/data/", "server/rounds.py", "src/wardround/", ".ci/run"} <= _named_paths()


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(p.name for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    path = ROOT / page if page == "README.md" else ROOT / "docs" / page
    targets = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []
