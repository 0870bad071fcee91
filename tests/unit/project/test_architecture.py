"""The pages that follow from the code are as old as it is, and no room is overcrowded."""

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
    }
    code = (
        "import runpy, sys; page = runpy.run_path('docs/generate.py');"
        "sys.stdout.buffer.write(page[sys.argv[1]]().encode())"
    )
    for page, function in pages.items():
        done = subprocess.run(
            [sys.executable, "-c", code, function], cwd=ROOT, capture_output=True, check=True
        )
        held = (ROOT / page).read_bytes()
        assert done.stdout == held, f"{page} is older than the code: python docs/generate.py"


def _rooms() -> list[Path]:
    tops = [ROOT / top for top in TOPS]
    below = [path for top in tops for path in top.rglob("*") if path.is_dir()]
    return [path for path in [*tops, *below] if "__pycache__" not in path.parts]


@pytest.mark.parametrize("room", _rooms(), ids=lambda room: str(room.relative_to(ROOT)))
def test_no_room_has_more_entries_than_a_reader_takes_in(room: Path) -> None:
    entries = [
        entry for entry in room.iterdir() if entry.name not in ("__init__.py", "__pycache__")
    ]
    assert len(entries) <= MOST_ENTRIES, (
        f"{len(entries)} entries: divide it by what belongs together"
    )


def test_every_package_and_module_says_what_it_is_for() -> None:
    page = (ROOT / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    silent = [line for line in page.splitlines() if line.endswith("| |") and "`" in line]
    assert not silent
