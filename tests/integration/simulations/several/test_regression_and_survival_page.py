"""Each command of ``docs/how-to/regression-and-survival.md``, run as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.stage import ENVIRONMENT

pytestmark = [pytest.mark.pages, pytest.mark.slow]
PAGE = Path(__file__).resolve().parents[4] / "docs" / "how-to" / "regression-and-survival.md"
_PATIENCE_SECONDS = 300.0
_TIMES = 'name = "death"\nunit = "days"\ntimes = [182, 365, 730, 1095, 1825]'


def blocks(kind: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    return [block for one, block in found if one == kind]


def write_files(folder: Path) -> None:
    (program,) = blocks("python")
    (folder / "patients.py").write_text(program)
    study = blocks("toml")[2]
    (folder / "numbers.toml").write_text(study)
    of_times = study.replace('"regression"', '"survival"').replace("numbers.csv", "times.csv")
    outcome = 'name = "age"\nunit = "years"\nrange = [0, 110]'
    assert outcome in of_times
    assert _TIMES in blocks("toml")[1]
    (folder / "times.toml").write_text(of_times.replace(outcome, _TIMES))


def test_the_commands_run_in_the_order_of_the_page(tmp_path: Path) -> None:
    write_files(tmp_path)
    commands = [line for block in blocks("") for line in block.splitlines() if line]
    assert len(commands) == 11
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env={**ENVIRONMENT, "PATH": path, "WARDROUND_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert "Standard deviation of" in (tmp_path / "planned.toml").read_text()
    first = (tmp_path / "predicted" / "predictions.csv").read_text().splitlines()[0]
    assert "survival at 365 days" in first
    for run, words in (("numbers", "calibration slope"), ("times", "the C-index is")):
        assert words in (tmp_path / "runs" / run / "report.html").read_text(encoding="utf-8")
