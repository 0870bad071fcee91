"""A year in a hospital, told in eight weeks: ``python -m benchmarks.year --weeks 8``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.long
def test_a_year_goes_as_it_should_and_leaves_a_report_that_tells_it(tmp_path: Path) -> None:
    out = tmp_path / "year"
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.year", "--weeks", "8", "--out", str(out), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told == json.loads((out / "report.json").read_text())
    assert [week["number"] for week in told["weeks"]] == [*range(1, 9)]
    assert sum(week["verdict"] == "alarm" for week in told["weeks"]) == 1
    models = list(dict.fromkeys(week["model"] for week in told["weeks"]))
    assert models == ["first", "second", "third", "third-without-west"]
    assert sum(row["bytes"] for row in told["left"]) > 0
    page = (out / "report.html").read_text()
    assert "The year went as it should" in page
    for words in ("DX-200", "Rolled back", "west leaves", "Two readers read"):
        assert words in page
