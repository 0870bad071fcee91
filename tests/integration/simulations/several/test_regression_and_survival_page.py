"""Each command of ``docs/how-to/regression-and-survival.md``, run as it stands there."""

from pathlib import Path

import pytest
from tests.support.page_commands import blocks_of, run_commands

pytestmark = [pytest.mark.pages, pytest.mark.slow]
PAGE = Path(__file__).resolve().parents[4] / "docs" / "how-to" / "regression-and-survival.md"
_TIMES = 'name = "death"\nunit = "days"\ntimes = [182, 365, 730, 1095, 1825]'


def write_files(folder: Path) -> None:
    (program,) = blocks_of(PAGE, "python")
    (folder / "patients.py").write_text(program)
    study = blocks_of(PAGE, "toml")[2]
    (folder / "numbers.toml").write_text(study)
    of_times = study.replace('"regression"', '"survival"').replace("numbers.csv", "times.csv")
    outcome = 'name = "age"\nunit = "years"\nrange = [0, 110]'
    assert outcome in of_times
    assert _TIMES in blocks_of(PAGE, "toml")[1]
    (folder / "times.toml").write_text(of_times.replace(outcome, _TIMES))


def test_the_commands_run_in_the_order_of_the_page(tmp_path: Path) -> None:
    write_files(tmp_path)
    assert len(run_commands(PAGE, tmp_path)) == 11
    assert "Standard deviation of" in (tmp_path / "planned.toml").read_text()
    first = (tmp_path / "predicted" / "predictions.csv").read_text().splitlines()[0]
    assert "survival at 365 days" in first
    for run, words in (("numbers", "calibration slope"), ("times", "the C-index is")):
        assert words in (tmp_path / "runs" / run / "report.html").read_text(encoding="utf-8")
