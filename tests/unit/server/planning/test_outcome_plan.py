"""Mean and scale of a number: planned from exact sums, or not planned where noise hides them."""

import math
from pathlib import Path

import numpy as np
import pytest
from tests.unit.client.tasks.test_outcomes import site_of
from tests.unit.common.metrics.test_regression import age_study
from tests.unit.common.metrics.test_survival import death_study

from wardround.client.data.cohorts import open_cohorts
from wardround.client.data.statistics import measure_statistics
from wardround.common.errors import RunError, StudyError
from wardround.common.messages.statistics import SiteStatistics
from wardround.common.study.explain.study import explain_study
from wardround.common.study.loading import with_changes
from wardround.common.study.plans.statistics import OUTCOME, asked_histograms
from wardround.common.study.study import Study
from wardround.server.planning.collection import Collected
from wardround.server.planning.merging import MergedHistogram
from wardround.server.planning.outcome_plan import plan_outcome
from wardround.server.planning.study_plan import plan_study

ASKED = with_changes(age_study(), {"statistics.ask": True})


def said(folder: Path, ages: list[float]) -> SiteStatistics:
    folder.mkdir()
    rows = [f"p{place},{age},1" for place, age in enumerate(ages)]
    site = site_of(folder, "\n".join(["patient,label,a", *rows]))
    found = measure_statistics(site, open_cohorts(site, ASKED).train, ASKED)
    cells = {name: rows.sum(axis=0) / found.patients for name, rows in found.rows.items()}
    return SiteStatistics(folder.name, ASKED.digest, found.patients, cells)


def test_mean_and_scale_are_those_of_all_training_patients_together(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    sites = {f"s{n}": generator.normal(40 + 10 * n, 8, 60).clip(20, 110).tolist() for n in range(3)}
    told = {name: said(tmp_path / name, ages) for name, ages in sites.items()}
    trained = [
        open_cohorts(
            site_of(tmp_path / name, (tmp_path / name / "manifest.csv").read_text()), ASKED
        )
        for name in sites
    ]
    ages = np.array([e.label[0] for c in trained for e in c.train.examinations if e.label])

    plan = plan_study(Collected(told), ASKED)

    assert plan.value("data.outcome.mean") == pytest.approx(ages.mean(), rel=1e-3)
    assert plan.value("data.outcome.scale") == pytest.approx(ages.std(), rel=1e-3)


def test_a_scale_that_noise_hides_is_not_planned() -> None:
    (one,) = asked_histograms(ASKED)
    y = np.random.default_rng(1).normal(0.5, 0.1, 1_000)
    cells = np.array([(1 - y) ** 2, 2 * y * (1 - y), y**2]).sum(axis=1)

    def planned(noise: float) -> dict[str, object]:
        merged = MergedHistogram(one, cells, 1_000.0, noise)
        return {each.key: each.value for each in plan_outcome(merged, ASKED, "some")}

    assert planned(2.0)["data.outcome.scale"] == pytest.approx(0.1 * 90, rel=0.05)
    assert list(planned(50.0)) == ["data.outcome.mean"]


def test_a_mean_at_the_end_of_the_range_is_within_it() -> None:
    study = with_changes(ASKED, {"data.outcome.range": [20.12345, 90.0]})
    (one,) = asked_histograms(study)
    merged = MergedHistogram(one, np.array([50.0, 0.0, 0.0]), 50.0)
    (mean,) = plan_outcome(merged, study, "some")
    assert with_changes(study, {mean.key: mean.value}).outcome.centre == 20.12345


def test_the_noise_of_the_variance_is_that_of_other_draws() -> None:
    (one,) = asked_histograms(ASKED)
    y = np.random.default_rng(1).beta(2, 3, 2_000)
    cells = np.array([(1 - y) ** 2, 2 * y * (1 - y), y**2]).sum(axis=1)
    generator, found = np.random.default_rng(2), []
    for _ in range(2_000):
        low, middle, high = cells + generator.normal(0, 10, 3)
        total = low + middle + high
        found.append(high / total - ((high + middle / 2) / total) ** 2)
    spread = float(np.std(found))
    # At twice that noise it is planned no more.
    for noise, is_planned in (
        (10 * y.var() / spread / 2.1, True),
        (10 * y.var() / spread / 1.9, False),
    ):
        merged = MergedHistogram(one, cells, 2_000.0, float(noise))
        keys = [each.key for each in plan_outcome(merged, ASKED, "some")]
        assert ("data.outcome.scale" in keys) == is_planned


def test_sites_that_tell_nobody_are_no_plan(tmp_path: Path) -> None:
    nothing = SiteStatistics("s", ASKED.digest, 0, {OUTCOME: np.zeros(3)})
    with pytest.raises(RunError, match="hold no number of"):
        plan_study(Collected({"s": nothing}), ASKED)


def test_a_hospital_reads_what_would_leave() -> None:
    words = explain_study(ASKED)
    assert "three sums of" in words
    assert "classes" not in words.partition("Once, this leaves")[2].partition("How much")[0]


def _private(study: Study) -> Study:
    changes = {
        "privacy.mode": "patient",
        "privacy.noise_multiplier": 1.0,
        "privacy.sampling_rate": 0.1,
        "model.normalisation": "none",
    }
    return with_changes(study, changes)


def test_a_patient_adds_one_to_the_three_sums_whatever_the_number() -> None:
    assert [one.cells for one in asked_histograms(_private(ASKED))] == [3]
    for y in (0.0, 0.3, 1.0):
        assert math.hypot((1 - y) ** 2, 2 * y * (1 - y), y**2) <= 1


def test_a_table_of_times_has_nothing_to_plan_from() -> None:
    with pytest.raises(StudyError, match="for the number that a regression predicts"):
        with_changes(death_study(), {"statistics.ask": True})
