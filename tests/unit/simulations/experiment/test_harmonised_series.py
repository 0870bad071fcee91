"""Hospitals that took no part, harmonised and as they are, side by side."""

from pathlib import Path

import pytest

from wardround.common.errors import InputError
from wardround.common.files.tables import write_table
from wardround.simulations.experiment.series.harmonised import run_pair, unseen_rows
from wardround.simulations.experiment.series.series import SeriesRequest
from wardround.simulations.run_files.series import LEFT_OUT, LEFT_OUT_EVERYBODY, MeasuredRow
from wardround.simulations.studies import find_study


def measured(model: str, metric: str, value: float) -> MeasuredRow:
    nan = float("nan")
    return MeasuredRow(0, "north", model, metric, value, nan, nan, nan, 5, 5)


def test_a_gain_is_what_is_better_on_all_patients_of_who_took_no_part(tmp_path: Path) -> None:
    for name, dice, loss in (("harmonised", 0.8, 0.3), ("as-they-are", 0.7, 0.5)):
        (tmp_path / name).mkdir()
        rows = [
            measured(LEFT_OUT_EVERYBODY, "dice", dice),
            measured(LEFT_OUT_EVERYBODY, "loss", loss),
            measured(LEFT_OUT, "dice", 0.1),
        ]
        write_table(tmp_path / name / "measured.csv", rows, MeasuredRow)
    found = {row.metric: row for row in unseen_rows(tmp_path)}
    assert found["dice"].gain == pytest.approx(0.1)
    assert found["loss"].gain == pytest.approx(0.2)
    assert (found["dice"].as_they_are, found["dice"].harmonised) == (0.7, 0.8)


def test_what_cannot_be_compared_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    study = find_study("brain-tissue")
    out = tmp_path / "pair"
    with pytest.raises(InputError, match="add --leave-one-site-out"):
        run_pair(SeriesRequest(study, out))
    with pytest.raises(InputError, match="wardround data landmarks"):
        run_pair(SeriesRequest(study, out, leave_one_site_out=True))
    assert not out.exists()
