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


def test_the_built_in_study_finds_cells(shared_data: Path, tmp_path: Path) -> None:
    """One round of fifteen, to see that it runs and learns; the page has the numbers of all."""
    commands = re.findall(r"^```\n(.*?)\n```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert commands == ["wardround simulate bccd --out runs/cells"]
    words = commands[0].split()[1:]
    shorter = ("--rounds", "1", "--no-compare", "--json")
    done = subprocess.run(
        [sys.executable, "-m", "wardround.cli", *words, "--data-root", str(shared_data), *shorter],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said
    report = (tmp_path / "runs" / "cells" / "report.html").read_text(encoding="utf-8")
    assert "mAP at IoU .50" in report
    assert "Platelets" in report
