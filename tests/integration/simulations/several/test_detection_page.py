"""The command of ``docs/how-to/detect.md``, on the photographs that it is about."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.stage import ENVIRONMENT

pytestmark = [pytest.mark.long, pytest.mark.slow]
PAGE = Path(__file__).resolve().parents[4] / "docs" / "how-to" / "detect.md"


TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)\n```$", TEXT, re.M | re.S)
COMMANDS = [text for language, text in BLOCKS if not language]


def test_the_page_has_two_commands() -> None:
    assert COMMANDS == [
        "wardround simulate bccd --out runs/cells",
        "wardround simulate lesions.toml --out runs/lesions",
    ]


def test_the_built_in_study_finds_cells(shared_data: Path, tmp_path: Path) -> None:
    """One round of fifteen, to see that it runs and learns; the page has the numbers of all."""
    report = followed(COMMANDS[0], tmp_path, shared_data, "cells")
    assert "Platelets" in report


def test_lesions_are_looked_for_at_their_own_sites(shared_data: Path, tmp_path: Path) -> None:
    """One round of six."""
    (study,) = [text for language, text in BLOCKS if language == "toml" and "ham" in text]
    (tmp_path / "lesions.toml").write_text(study)
    report = followed(COMMANDS[1], tmp_path, shared_data, "lesions")
    assert "vienna_dias" in report


def followed(command: str, place: Path, shared_data: Path, name: str) -> str:
    """Run a command for one round, and return its report."""
    words = command.split()[1:]
    shorter = ("--rounds", "1", "--no-compare", "--json")
    done = subprocess.run(
        [sys.executable, "-m", "wardround.cli", *words, "--data-root", str(shared_data), *shorter],
        cwd=place,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    report = (place / "runs" / name / "report.html").read_text(encoding="utf-8")
    assert "mAP at IoU .50" in report
    return report
