"""Labels of numbers and of times to an event, as hospitals write them, and what is wrong there."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.unit.common.metrics.test_regression import age_study
from tests.unit.common.metrics.test_survival import death_study

from wardround.client.clinic.onboarding.data_check.check import check_data
from wardround.client.data.manifest.manifest import open_manifest
from wardround.client.site.folder import Site, open_site
from wardround.client.tasks.registry import task_of
from wardround.client.tasks.survival import hazards_up_to, risks_of
from wardround.common.errors import DataError, StudyError
from wardround.common.study.loading import parse_study, with_changes
from wardround.common.study.study import Study
from wardround.common.study.template import study_template


def site_of(folder: Path, table: str) -> Site:
    (folder / "site.toml").write_text('name = "north"')
    (folder / "manifest.csv").write_text(table)
    return open_site(folder)


def _silent(done: int, of: int) -> None:
    """Show no progress."""


def labels(folder: Path, table: str, study: Study) -> list[tuple[float, ...]]:
    found = open_manifest(site_of(folder, table), study).examinations
    return [one.label or () for one in found]


def test_a_number_is_read_with_the_decimal_mark_of_its_table(tmp_path):
    assert labels(tmp_path, "patient,label,a\np1,61.5,1\n", age_study()) == [(61.5,)]
    assert labels(tmp_path, "patient;label;a\np1;61,5;1\n", age_study()) == [(61.5,)]


def test_a_time_and_its_event_are_two_columns_or_one_cell(tmp_path):
    two = "patient,time,event,a\np1,512.5,1,0\np2,30,0,0\n"
    assert labels(tmp_path, two, death_study()) == [(512.5, 1), (30, 0)]
    one = "patient,label,a\np1,512.5;1,0\np2,30|no,0\n"
    assert labels(tmp_path, one, death_study()) == [(512.5, 1), (30, 0)]
    german = "patient;time;event;a\np1;512,5;1,0;0\n"
    assert labels(tmp_path, german, death_study()) == [(512.5, 1)]


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("", "the column label is empty in row 2: write the number of years"),
        ("61 years", "the column label is not a number in row 2"),
        ("nan", "the column label is not a number in row 2"),
        ("1_0", "the column label is not a number in row 2"),
        ("5", "the column label lies outside data.outcome.range, 20 to 110 years in row 2"),
    ],
)
def test_a_label_that_is_no_usable_number_is_named_by_its_row(tmp_path, cell, words):
    with pytest.raises(DataError, match=words) as refused:
        labels(tmp_path, f"patient,label,a\nperson,{cell},1\n", age_study())
    assert "person" not in str(refused.value)
    assert not cell or cell == "5" or cell not in str(refused.value)


@pytest.mark.parametrize(
    ("time", "event", "words"),
    [
        ("-3", "1", "the time is negative in row 2: count the time in days from"),
        ("soon", "1", "the time is not a number in row 2"),
        ("", "0", "the time is empty in row 2"),
        ("30", "2", "the event is neither 0 nor 1 in row 2: write 1 where the event happened"),
        ("30", "", "the event is empty in row 2"),
        ("inf", "1", "the time is not a number in row 2"),
        ("1e9", "1", "the time is above 1e"),
    ],
)
def test_a_time_or_an_event_that_cannot_be_is_named_by_its_row(tmp_path, time, event, words):
    with pytest.raises(DataError, match=words):
        labels(tmp_path, f"patient,time,event,a\np1,{time},{event},1\n", death_study())


def test_a_manifest_without_the_columns_of_a_time_is_told_both(tmp_path):
    with pytest.raises(DataError, match="lacks the column time, event"):
        labels(tmp_path, "patient,a\np1,1\n", death_study())


def test_the_data_check_says_what_the_labels_are(tmp_path):
    rows = [f"p{i},{60 + i % 9},1" for i in range(40)]
    site = site_of(tmp_path, "\n".join(["patient,label,a", *rows, "q,2000,1", "r,old,1"]))
    said = {f"{one.fact}" for one in check_data(site, age_study(), _silent).findings}
    assert any(fact.startswith("from 60 to 68 years, mean 63.") for fact in said)
    assert any("not a number in row 43" in fact for fact in said)
    assert any("outside data.outcome.range" in fact for fact in said)


def test_the_data_check_counts_events_and_doubts_too_few(tmp_path):
    rows = [f"p{i},{30 * i},{int(i == 3)},1" for i in range(40)]
    site = site_of(tmp_path, "\n".join(["patient,time,event,a", *rows]))
    said = " ".join(one.fact for one in check_data(site, death_study(), _silent).findings)
    assert "1 of 40 examinations (2 %) have the event up to the horizon of 1600 days" in said
    assert "1 events: a model hardly learns" in said
    assert "1 times are 0" in said


def test_without_a_study_many_numbers_are_no_classes(tmp_path):
    rows = [f"p{i},{60 + i / 2},1" for i in range(40)]
    site = site_of(tmp_path, "\n".join(["patient,label,a", *rows]))
    report = check_data(site, None, _silent)
    assert any("numbers from 60 to 79.5" in one.fact for one in report.findings)
    assert len(report.counts) <= 1


def test_survival_falls_from_one_and_the_risk_is_the_share_of_the_time_that_is_lost():
    study, outputs = death_study(), torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    names, answers = task_of(study).answers(outputs, study)  # type: ignore[attr-defined]
    assert names[:2] == ("risk", "survival at 200 days")
    risk, alive = answers[:, 0], answers[:, 1:]
    assert (alive.diff(dim=1) < 0).all()
    assert risks_of(outputs, study) == pytest.approx(risk.numpy())
    hazards = torch.nn.functional.softplus(outputs.double()) / torch.tensor([200, 200, 400, 800])
    moments = torch.arange(1600, dtype=torch.float64) + 0.5
    which = torch.bucketize(moments, torch.tensor([200.0, 400.0, 800.0], dtype=torch.float64))
    cumulative = hazards[:, which].cumsum(1) - hazards[:, which] / 2
    lost = 1 - (-cumulative).exp().mean(1)
    assert risk.numpy() == pytest.approx(lost.numpy(), rel=1e-4)
    assert hazards_up_to(outputs, torch.full((5,), 9e9).numpy(), study) == pytest.approx(
        -alive[:, -1].log().numpy()
    )


@pytest.mark.parametrize(
    ("task", "changes", "words"),
    [
        ("regression", {"data.classes": ["age"]}, "data.classes is not for regression"),
        ("regression", {"data.outcome.range": [9, 1]}, "is empty: give the smaller number first"),
        ("regression", {"data.outcome.mean": 500}, "lies outside data.outcome.range"),
        ("regression", {"data.outcome.scale": 1e-6}, "does not fit data.outcome.range"),
        ("regression", {"data.outcome.times": [3]}, "data.outcome.times is for survival"),
        ("regression", {"training.class_weights": "balanced"}, "class_weights needs classes"),
        ("regression", {"training.loss": "cross-entropy"}, "choose one of mse, l1, huber"),
        ("survival", {"data.outcome.range": [0, 1]}, "data.outcome.range is for regression"),
        ("survival", {"data.outcome.times": [5, 3]}, "does not rise"),
        ("survival", {"data.outcome.times": []}, "data.outcome.times is missing"),
        ("survival", {"training.loss": "cox", "training.batch_size": 9999}, "compares with each"),
        ("survival", {"evaluation.metric": "mae"}, "cannot steer survival"),
        ("classification", {"data.outcome.name": "age"}, "data.outcome is not for classification"),
    ],
)
def test_a_study_that_says_what_cannot_be_is_refused(task, changes, words):
    import tomllib

    study = parse_study(tomllib.loads(study_template(task, private=False)))
    with pytest.raises(StudyError, match=words):
        with_changes(study, changes)


def test_cox_promises_no_patient_privacy_and_says_why():
    import tomllib

    private = parse_study(tomllib.loads(study_template("survival", private=True)), planned=False)
    assert private.loss == "piecewise-hazard"
    with pytest.raises(StudyError, match="depends on all others at risk"):
        with_changes(private, {"training.loss": "cox"})


def test_where_a_label_of_a_site_that_leaves_rows_out_is_wrong_the_others_count(tmp_path):
    site = site_of(tmp_path, "patient,time,event,a\np1,5,1,0\np2,-5,1,0\n")
    kept = open_manifest(replace(site, is_tolerant=True), death_study()).examinations
    assert [one.label for one in kept] == [(5, 1)]
