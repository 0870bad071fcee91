"""The pages that follow from the code are as old as it is, and no room is overcrowded."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TOPS = ("client", "common", "server", "simulations", "tests", "benchmarks")
MOST_ENTRIES = 14


def test_the_generated_pages_are_those_of_the_code(tmp_path: Path) -> None:
    pages = {
        "docs/reference/files.md": "files_page",
        "docs/reference/architecture.md": "architecture_page",
        "docs/reference/cli.md": "cli_page",
        "docs/reference/checklists.md": "checklists_page",
        "docs/reference/python.md": "python_page",
        "docs/reference/study-keys.md": "study_keys_page",
        "docs/reference/settings-keys.md": "settings_page",
        "docs/reference/json.md": "json_page",
    }
    code = (
        "import json, runpy, sys; page = runpy.run_path('docs/generate.py');"
        "print(json.dumps([page[name]() for name in sys.argv[1:]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *pages.values()], cwd=ROOT, capture_output=True, check=True
    )
    made = json.loads(done.stdout.splitlines()[-1])
    for page, text in zip(pages, made, strict=True):
        held = (ROOT / page).read_bytes()
        is_current = text.encode() == held  # pytest would look for what differs, for minutes
        assert is_current, f"{page} is older than the code: python docs/generate.py"


def _entries(room: Path) -> list[Path]:
    """Return what a reader of a folder sees.

    Hidden files, what Python compiled, and the empty folders that git leaves behind where a file
    was moved away are on one machine and not on another.
    """
    return [
        entry
        for entry in sorted(room.iterdir())
        if not entry.name.startswith((".", "__pycache__"))
        and entry.name != "__init__.py"
        and (entry.is_file() or _entries(entry))
    ]


def _rooms_below(room: Path) -> list[Path]:
    below = [entry for entry in _entries(room) if entry.is_dir()]
    return [room, *(deeper for folder in below for deeper in _rooms_below(folder))]


ROOMS = [room for top in TOPS for room in _rooms_below(ROOT / top)]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(ROOT)))
def test_no_room_has_more_entries_than_a_reader_takes_in(room: Path) -> None:
    entries = _entries(room)
    assert len(entries) <= MOST_ENTRIES, (
        f"{len(entries)} entries: divide it by what belongs together"
    )


def test_a_hidden_file_and_an_empty_folder_are_no_entries(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").touch()
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "moved_away" / "__pycache__").mkdir(parents=True)
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "a.py").touch()
    assert _rooms_below(tmp_path) == [tmp_path, tmp_path / "room"]
    assert _entries(tmp_path) == [tmp_path / "room"]


def test_every_package_and_module_says_what_it_is_for() -> None:
    page = (ROOT / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    silent = [line for line in page.splitlines() if line.endswith("| |") and "`" in line]
    assert not silent


SUPPRESSED = re.compile(
    r"# (noqa: [A-Z0-9, ]+?|type: ignore\[[\w, -]+\]|pragma: no cover) *(?P<why>\S.*)?$"
)


def test_no_check_is_suppressed_without_a_reason() -> None:
    """One that is generated, or measured in a benchmark, is not looked at."""
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for top in ("client", "common", "server", "simulations", "src/wardround/commands")
        for path in (ROOT / top).rglob("*.py")
        if not path.name.endswith("_pb2.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (one := SUPPRESSED.search(line)) and not one["why"]
    ]
    assert not found
