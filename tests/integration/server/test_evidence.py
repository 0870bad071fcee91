"""Packs of several hospitals merged, beside the same numbers from pooled raw predictions."""

import math
from dataclasses import replace

import numpy as np
import pytest
from dcurves import dca
from MLstatkit import Delong_test
from pandas import DataFrame
from scipy.optimize import minimize_scalar
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    recall_score,
    roc_auc_score,
)
from tests.support.pack_cases import evidence_of, measured, table_study_with

from wardround.client.session.packs import MeasuredPacks
from wardround.client.training.case_predictions import ClassifiedCases
from wardround.common.statistics.clustered_auroc import (
    auroc_covariance,
    placement_sums_of_scores,
)
from wardround.common.statistics.interval import score_interval
from wardround.common.study.study import Study
from wardround.server.checkpoints.evidence import EvidenceRow
from wardround.server.rounds.evidence.findings import evidence_rows

STUDY = table_study_with()
ALL = "all sites"
EXACT = 1e-3
_FIELDS = ("rows", "patients", "scores", "truth")


def rows_of(
    sites: dict[str, MeasuredPacks], least: int, study: Study = STUDY
) -> dict[tuple[str, str, str], EvidenceRow]:
    found = evidence_rows(evidence_of(sites, study, least), study)
    return {(row.site, row.metric, row.subject): row for row in found}


def hospitals(patients: tuple[int, ...], images: int = 1) -> dict[str, MeasuredPacks]:
    return {f"site-{n}": measured(10 * n, count, images) for n, count in enumerate(patients)}


def pooled(sites: dict[str, MeasuredPacks]) -> ClassifiedCases:
    cases = [one.cases for one in sites.values() if isinstance(one.cases, ClassifiedCases)]
    whose, start = [], 0
    for one in cases:
        whose.append(one.patients + start)
        start += int(one.patients.max()) + 1
    return ClassifiedCases(
        np.concatenate([one.rows for one in cases]),
        np.concatenate(whose),
        np.concatenate([one.scores for one in cases]),
        np.concatenate([one.truth for one in cases]),
    )


def half_width(row: EvidenceRow) -> float:
    assert row.low is not None
    assert row.high is not None
    return (row.high - row.low) / 2


SITES = hospitals((300, 200, 400))


def test_merged_numbers_are_those_of_independent_packages_on_pooled_predictions() -> None:
    rows, cases = rows_of(SITES, least=1), pooled(SITES)
    truth, scores = cases.truth[:, 1], cases.scores[:, 1]
    named = scores > 0.5
    expected = {
        ("auroc", "ill"): roc_auc_score(truth, scores),
        ("average precision", "ill"): average_precision_score(truth, scores),
        ("brier", ""): brier_score_loss(truth, scores),
        ("accuracy", ""): (named == truth).mean(),
        ("recall", "ill"): recall_score(truth, named),
    }
    for (metric, subject), value in expected.items():
        assert rows[ALL, metric, subject].value == pytest.approx(value, abs=EXACT), metric
    frame = DataFrame({"truth": truth.astype(int), "score": scores})
    curve = dca(data=frame, outcome="truth", modelnames=["score"], thresholds=[0.1, 0.3])
    for _, line in curve[curve.model == "score"].iterrows():
        found = rows[ALL, f"net benefit at {line.threshold:g}", "ill"].value
        assert found == pytest.approx(line.net_benefit, abs=EXACT)


def test_a_hospital_with_patients_of_one_class_alone_counts_too() -> None:
    sites = hospitals((200, 150))
    whole = pooled(sites)
    halves = {}
    for name, ill in (("well", False), ("ill", True)):
        chosen = whole.truth[:, 1] == ill
        cases = ClassifiedCases(*(getattr(whole, one)[chosen] for one in _FIELDS))
        halves[name] = replace(sites["site-0"], cases=cases)
    study = table_study_with(["intervals"])
    row = rows_of(halves, 1, study)[ALL, "auroc", "ill"]
    assert row.value == pytest.approx(
        roc_auc_score(whole.truth[:, 1], whole.scores[:, 1]), abs=EXACT
    )
    assert row.low is not None
    assert rows_of(halves, 10, study)[ALL, "auroc", "ill"].low is not None


def test_with_one_image_a_patient_the_error_is_delongs() -> None:
    cases = pooled(SITES)
    truth, scores = cases.truth[:, 1], cases.scores[:, 1]
    _, _, ends, *_ = Delong_test(truth.astype(int), scores, 1 - scores)
    evidence = evidence_of(SITES, STUDY, 1)
    from wardround.common.metrics.packs.intervals import PlacementSums, placement_error

    placed = PlacementSums.empty(2)
    for one in evidence.placements.values():
        placed = placed.plus(one)
    counts = evidence.merged_counts()
    assert counts is not None
    error = placement_error(placed, counts, 1)
    assert error == pytest.approx((ends[1] - ends[0]) / (2 * 1.959964), abs=EXACT)


def test_with_many_images_a_patient_the_error_is_clustered_and_larger() -> None:
    sites = hospitals((150, 100, 200), images=8)
    evidence, cases = evidence_of(sites, STUDY, 1), pooled(sites)
    from wardround.common.metrics.packs.intervals import PlacementSums, placement_error

    placed = PlacementSums.empty(2)
    for one in evidence.placements.values():
        placed = placed.plus(one)
    counts = evidence.merged_counts()
    assert counts is not None
    error = placement_error(placed, counts, 1)
    raw = placement_sums_of_scores(cases.scores[:, 1:], cases.truth[:, 1:], cases.patients)
    assert error == pytest.approx(math.sqrt(auroc_covariance(raw)[0, 0]), abs=EXACT)
    _, _, ends, *_ = Delong_test(cases.truth[:, 1].astype(int), cases.scores[:, 1], cases.rows)
    assert error > 1.2 * (ends[1] - ends[0]) / (2 * 1.959964)


def test_the_calibration_error_and_the_temperature_are_those_of_pooled_predictions() -> None:
    rows, cases = rows_of(SITES, least=1), pooled(SITES)
    top, right = (
        cases.scores.max(axis=1),
        cases.truth[np.arange(len(cases.rows)), cases.scores.argmax(axis=1)],
    )
    places = np.minimum((top * 10).astype(int), 9)
    error = sum(
        (places == n).mean() * abs(top[places == n].mean() - right[places == n].mean())
        for n in range(10)
        if (places == n).any()
    )
    assert rows[ALL, "expected calibration error", ""].value == pytest.approx(error, abs=EXACT)
    logits = np.concatenate([one.validation.logits for one in SITES.values() if one.validation])
    truth = np.concatenate([one.validation.truth for one in SITES.values() if one.validation])

    def loss(inverse: float) -> float:
        scaled = logits * inverse
        return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[truth]).sum())

    best = minimize_scalar(loss, bounds=(0.05, 5), method="bounded", options={"xatol": 1e-9})
    found = rows[ALL, "temperature", ""].value
    assert found == pytest.approx(1 / best.x, abs=EXACT * max(1, 1 / best.x))


def test_subgroups_and_gains_are_those_of_pooled_patients() -> None:
    sites = hospitals((300, 200), images=4)
    rows, cases = rows_of(sites, least=1), pooled(sites)
    women = np.concatenate([one.groups[:, 0] for one in sites.values()])
    right = (cases.truth[:, 1] == (cases.scores[:, 1] > 0.5)).astype(float)
    assert rows[ALL, "accuracy", "sex: F"].value == pytest.approx(right[women].mean(), abs=EXACT)
    gap = [row for row in rows.values() if row.metric == "gap of accuracy" and row.site == ALL]
    means = right[women].mean(), right[~women].mean()
    assert gap[0].value == pytest.approx(max(means) - min(means), abs=EXACT)
    others = np.concatenate(
        [one.other.scores for one in sites.values() if isinstance(one.other, ClassifiedCases)]
    )
    before = (cases.truth[:, 1] == (others[:, 1] > 0.5)).astype(float)
    people = np.unique(cases.patients)
    each = np.array([(right - before)[cases.patients == p].mean() for p in people])
    row = next(r for r in rows.values() if r.metric == "difference of accuracy" and r.site == ALL)
    assert row.value == pytest.approx(each.mean(), abs=EXACT)
    error = each.std(ddof=1) / math.sqrt(len(each))
    assert half_width(row) == pytest.approx(1.96 * error, rel=0.02)


def test_clustered_errors_of_ratios_are_those_of_pooled_patients() -> None:
    sites = hospitals((100, 150), images=6)
    rows, cases = rows_of(sites, least=1), pooled(sites)
    right = (cases.truth[:, 1] == (cases.scores[:, 1] > 0.5)).astype(float)
    people = np.unique(cases.patients)
    sums = np.array([right[cases.patients == p].sum() for p in people])
    counts = np.array([(cases.patients == p).sum() for p in people])
    value = sums.sum() / counts.sum()
    spread = ((sums - value * counts) ** 2).sum() * len(people) / (len(people) - 1)
    error = math.sqrt(spread) / counts.sum()
    expected = score_interval(value, error, len(people) - 1.0, len(people))
    row = rows[ALL, "accuracy", ""]
    assert (row.low, row.high) == pytest.approx((expected.low, expected.high), abs=EXACT)


@pytest.mark.parametrize("images", [1, 5])
@pytest.mark.parametrize("seed", range(4))
def test_with_the_default_smallest_cell_each_interval_holds_the_exact_one(
    seed: int, images: int
) -> None:
    """What rounding and merging lost is told, and every interval is as much wider."""
    sites = {f"site-{n}": measured(100 * seed + n, 90 + 70 * n, images) for n in range(3)}
    exact, told = rows_of(sites, least=1), rows_of(sites, least=10)
    compared = 0
    for key, row in told.items():
        _, metric, _ = key
        before = exact.get(key)
        if before is None or row.low is None or before.low is None or metric == "temperature":
            continue
        if metric.startswith("gap") or "told by" in row.note:
            continue  # of other patients
        assert row.value is not None
        assert before.value is not None
        assert abs(row.value - before.value) <= row.lost + 1e-9, key
        assert row.low <= before.low + 1e-9, key
        assert row.high >= before.high - 1e-9, key  # type: ignore[operator]
        compared += 1
    assert compared > 30
    assert all(told[ALL, metric, "ill"].lost > 0 for metric in ("auroc", "recall"))
    notes = [row.note for row in told.values() if row.metric == "told"]
    assert all("no number is of fewer than 10 patients" in note for note in notes)
