"""What a hospital's policy lets out of its histograms: no cell of few patients."""

import numpy as np
import pytest
from tests.support.hospitals.image_ward import ward_study

from wardround.client.data.statistics import Measured
from wardround.client.egress.answers.statistics_disclosure import (
    add_noise,
    large_cells,
    reduce_statistics,
)
from wardround.client.egress.guard import Cells
from wardround.client.policy.policy import Policy
from wardround.common.study.plans.statistics import (
    asked_histograms,
    patient_scale,
    plan_statistics,
)

LEAST = 10


def one_hot(cells: list[int], length: int) -> np.ndarray:
    rows = np.zeros((len(cells), length))
    rows[np.arange(len(cells)), cells] = 1
    return rows


def test_a_cell_of_one_patient_is_counted_with_its_neighbours() -> None:
    told = large_cells(one_hot([3] * 20 + [9], 12), LEAST, is_ordered=True)
    assert told[3] == 21
    assert told.sum() == 21


def test_a_class_of_one_patient_is_left_out_and_so_is_what_it_would_follow_from() -> None:
    told = large_cells(one_hot([0] * 40 + [1] * 12 + [2], 3), LEAST, is_ordered=False)
    assert told.tolist() == [40, 0, 0]


def test_a_cell_that_one_patient_makes_is_not_told_though_many_are_in_it() -> None:
    rows = np.full((30, 4), 1e-6)
    rows[0] = [0, 1, 0, 0]
    rows[1:, 0] = 1
    told = large_cells(rows, LEAST, is_ordered=False)
    assert told[1:].tolist() == [0, 0, 0]


@pytest.mark.parametrize("is_ordered", [True, False])
def test_what_is_told_is_always_of_enough_patients(is_ordered: bool) -> None:
    drawn = np.random.default_rng(0)
    for _ in range(200):
        patients, length = drawn.integers(1, 60), drawn.integers(1, 20)
        rows = drawn.dirichlet(np.full(length, drawn.uniform(0.05, 2)), patients)
        told = large_cells(rows, LEAST, is_ordered)
        largest = rows.max(axis=0)
        assert (told[told > 0] >= LEAST * 0.999999 * largest.min()).all()
        hidden = rows.sum() - told.sum()
        if is_ordered:
            assert hidden == pytest.approx(0) or told.sum() == 0
        else:
            unseen = rows[:, told == 0].sum(axis=1)
            enough = unseen.sum() >= LEAST * unseen.max(initial=0) * 0.999999
            assert enough or not told.any()


def test_fewer_patients_than_a_cell_needs_tell_nothing() -> None:
    assert not large_cells(one_hot([3] * 9, 5), LEAST, is_ordered=True).any()


def measured_of(patients: int, seed: int = 0) -> Measured:
    drawn = np.random.default_rng(seed)
    rows = {}
    for one in asked_histograms(ward_study(statistics={})):
        if one.is_whole:
            rows[one.name] = one_hot(drawn.integers(0, one.cells, patients).tolist(), one.cells)
        else:
            rows[one.name] = drawn.dirichlet(np.full(one.cells, 0.3), patients)
    return Measured(patients, rows)


def test_a_policy_of_ten_lets_out_multiples_alone() -> None:
    study = ward_study(statistics={})
    policy = Policy(smallest_cell=LEAST, statistics="yes")
    said = reduce_statistics(measured_of(47), "north", study, policy)
    assert said.patients == 40
    for one in asked_histograms(study):
        cells = said.cells[one.name]
        grain = Cells(10.0) if one.is_whole else Cells(0.001, 1.0)
        assert grain.allows(cells), one.name
        assert cells.sum() <= (40 if one.is_whole else 1.0) + 1e-9


def test_one_patient_moves_a_private_answer_by_a_norm_of_one_at_most() -> None:
    study = ward_study("patient", statistics={"epsilon": 1.0})
    plan = plan_statistics(study)
    assert plan is not None
    assert plan.epsilon == pytest.approx(1.0, rel=1e-3)
    rows = measured_of(1).rows
    vector = np.concatenate([row[0] for row in rows.values()]) * patient_scale(study)
    assert np.linalg.norm(vector) <= 1 + 1e-9
    said = add_noise(measured_of(0), "north", study, plan)
    noise = np.concatenate(list(said.cells.values()))
    assert noise.std() == pytest.approx(plan.noise_multiplier, rel=0.1)
    assert said.patients == 0
