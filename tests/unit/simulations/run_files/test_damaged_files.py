"""Files of a run folder that somebody else changed: the word names the file, and no traceback."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from tests.support.pack_cases import table_study_with

from wardround.common.errors import InputError
from wardround.common.files.tables import write_table
from wardround.simulations.experiment.series.measured import sites_of_run
from wardround.simulations.report.contents import read_contents
from wardround.simulations.report.pages.series_page import read_series_contents
from wardround.simulations.run_files.evaluation import EVALUATION, EvaluationFacts, read_evaluation
from wardround.simulations.run_files.folder import RunFacts, read_facts
from wardround.simulations.run_files.groups import GROUPS, read_groups
from wardround.simulations.run_files.predictions import PREDICTIONS, ScoreRow
from wardround.simulations.run_files.series import MEASURED, SERIES, SeriesFacts, read_series
from wardround.simulations.sites.preparation import reopen_sites

DAMAGED = (b"\xff\xfe\x00", b"a,b\n1,2\n", b"site,split,class_name,examinations\nx,test,,many\n")
FACTS = RunFacts("0.1.0", ("simulate",), "ab", 0, "2026-01-01", "finished")
SERIES_FACTS = SeriesFacts("0.1.0", ("simulate",), "ab", True, (0,), True, "2026-01-01")
EVALUATED = EvaluationFacts(
    "0.1.0", ("evaluate",), "run", "federated", "ab", "va", "all", True, 3, 3, "2026-01-01", (), ()
)


@pytest.mark.parametrize("content", DAMAGED)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        (GROUPS, read_groups),
        ("split.csv", reopen_sites),
        ("split.csv", sites_of_run),
    ],
)
def test_a_damaged_table_is_named(
    tmp_path: Path, name: str, read: Callable[[Path], object], content: bytes
) -> None:
    """On 3cda7f4 each was a defect of wardround that the user should report."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is damaged"):
        read(tmp_path)


@pytest.mark.parametrize("score", [float("-inf"), float("inf"), -0.1, 1.1])
def test_a_score_that_is_none_is_of_a_damaged_file(tmp_path: Path, score: float) -> None:
    study = table_study_with()
    (tmp_path / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    (tmp_path / "run.json").write_text(json.dumps(asdict(FACTS)), encoding="utf-8")
    rows = [ScoreRow("federated", "a", "test", 2, 0, "well", score, 1)]
    rows.append(ScoreRow("federated", "a", "test", 2, 0, "ill", 0.5, 0))
    write_table(tmp_path / PREDICTIONS, rows, ScoreRow)
    with pytest.raises(InputError, match=r"predictions\.csv is damaged"):
        read_contents(tmp_path)


@pytest.mark.parametrize(
    ("name", "read", "facts"),
    [
        ("run.json", read_facts, FACTS),
        (EVALUATION, read_evaluation, EVALUATED),
        (SERIES, read_series, SERIES_FACTS),
    ],
)
def test_a_fact_of_another_type_is_refused_where_it_is_read(
    tmp_path: Path, name: str, read: Callable[[Path], object], facts: object
) -> None:
    """On 3cda7f4 a number in the place of a word came out where it was printed."""
    written = asdict(facts)  # type: ignore[call-overload]
    (tmp_path / name).write_text(json.dumps(written), encoding="utf-8")
    assert read(tmp_path) == facts
    for key in written:
        (tmp_path / name).write_text(json.dumps({**written, key: [[]]}), encoding="utf-8")
        with pytest.raises(InputError, match=name):
            read(tmp_path)


def test_a_damaged_table_of_a_series_is_named(tmp_path: Path) -> None:
    (tmp_path / SERIES).write_text(json.dumps(asdict(SERIES_FACTS)), encoding="utf-8")
    (tmp_path / "study.toml").write_text(table_study_with().to_toml(), encoding="utf-8")
    (tmp_path / MEASURED).write_bytes(DAMAGED[0])
    with pytest.raises(InputError, match=r"measured\.csv is damaged"):
        read_series_contents(tmp_path)
