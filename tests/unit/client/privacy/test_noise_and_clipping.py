"""The promises of the private step, P5 to P9: randomness, sensitivity, noise, bad data, counts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.hospitals.private_ward import (
    COMPUTATION,
    Ward,
    Wide,
    empty_ward,
    network_of,
    plan_with,
    start_of,
    sum_of,
    update_of,
    ward_of,
)
from torch import Tensor, nn

from wardround.client.privacy.step import StepComputation, train_privately


# --- P5: nobody foresees noise or sampling -------------------------------------------
def test_p5_two_runs_with_one_seed_give_different_updates() -> None:
    updates = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)
        updates.append(update_of(ward_of([2] * 10), plan_with(noise_multiplier=1.0)))
    assert (updates[0] != updates[1]).float().mean() > 0.9


def test_p5_two_runs_with_one_seed_draw_different_patients() -> None:
    updates = []
    for _ in range(2):
        torch.manual_seed(0)
        updates.append(update_of(ward_of([1] * 60), plan_with(sampling_rate=0.5)))
    assert not torch.equal(*updates)  # without noise: 2^-60 to draw the same patients


def test_p5_a_private_round_leaves_the_global_generators_as_they_were() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    update_of(ward_of([3, 1]), plan_with(noise_multiplier=1.0, steps=3), network)
    assert torch.equal(before, torch.get_rng_state())
    assert (numbers == np.random.get_state()[1]).all()


def test_p5_dropout_does_not_follow_the_global_seed() -> None:
    def dropped() -> Tensor:
        network = network_of()
        network.insert(3, nn.Dropout(0.5))
        torch.manual_seed(0)
        return update_of(ward_of([40]), plan_with(clip_norm=1e-3), network)

    assert not torch.equal(dropped(), dropped())


# --- P6: a patient changes the sum by C at most -----------------------------------------
def test_p6_removing_a_patient_of_twenty_slices_changes_the_sum_by_at_most_c() -> None:
    ward = ward_of([1, 20, 3, 1])
    ward.images[1:21] = ward.images[1] * 5  # twenty slices that all pull the same way
    ward.targets[1:21] = 1
    for clip_norm in (0.1, 0.5):
        changed = (sum_of(ward, clip_norm) - sum_of(ward.without(1), clip_norm)).norm()
        assert 0.99 * clip_norm < changed <= clip_norm * (1 + 1e-4)
        plan = plan_with(clip_norm=clip_norm, expected_patients=4)
        walked = 4 * (update_of(ward, plan) - update_of(ward.without(1), plan)).norm()
        assert walked <= clip_norm * (1 + 1e-4)
        slices = Ward(ward.images, ward.targets, list(range(25)))
        others = Ward(
            *(torch.cat([part[:1], part[21:]]) for part in (ward.images, ward.targets)),
            list(range(5)),
        )
        by_slice = (sum_of(slices, clip_norm) - sum_of(others, clip_norm)).norm()
        assert by_slice > 19 * clip_norm, "by slices, the patient would count twenty times"


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    patient=st.integers(0, 5),
    clip_norm=st.floats(1e-3, 10),
    scale=st.floats(1e-3, 1e6),
)
def test_p6_no_patient_whatsoever_changes_the_sum_by_more_than_c(
    counts: list[int], patient: int, clip_norm: float, scale: float
) -> None:
    patient %= len(counts)
    ward = ward_of(counts)
    ward.images[ward.patients == patient] *= scale
    changed = (sum_of(ward, clip_norm) - sum_of(ward.without(patient), clip_norm)).norm()
    assert changed <= clip_norm * (1 + 1e-4)


def test_p6_dropout_does_not_let_a_patient_past_the_clipping() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    for method in ("loop", "ghost"):
        for _ in range(10):
            computation = StepComputation(method, 16)
            update = update_of(ward_of([4]), plan_with(clip_norm=0.01), network, computation)
            assert update.norm() <= 0.01 * (1 + 1e-4)


# --- P7: the noise has the claimed scale ------------------------------------------------
def test_p7_on_zero_images_the_update_is_normal_with_the_claimed_deviation() -> None:
    from scipy.stats import kstest

    plan = plan_with(noise_multiplier=1.3, clip_norm=0.7, expected_patients=4)
    update = update_of(empty_ward(3), plan, Wide())
    claimed = 1.3 * 0.7 / 4
    assert len(update) >= 20_000
    assert update.std().item() == pytest.approx(claimed, rel=0.01)
    assert abs(update.mean().item()) < 6 * claimed / np.sqrt(len(update))
    assert kstest(update[:100_000].numpy() / claimed, "norm").pvalue > 1e-6


def test_p7_the_steps_of_a_round_have_independent_noise() -> None:
    plan = plan_with(noise_multiplier=1.0, steps=9)
    assert update_of(empty_ward(1), plan, Wide()).std().item() == pytest.approx(3.0, rel=0.01)


# --- P8: bad examinations do not break it -----------------------------------------------
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30, -3e38])
@pytest.mark.parametrize("method", ["loop", "ghost", "vmap"])
def test_p8_a_patient_with_a_bad_image_counts_as_nobody(value: float, method: str) -> None:
    ward = ward_of([2, 3, 1])
    ward.images[3] = value  # one of the three images of patient 1
    network = network_of()
    network[2] = nn.Identity()  # tanh would make 1e30 an ordinary 1
    ward.targets[3] = 1 - network(ward.images[3:4]).argmax()  # a wrong answer, sure of itself
    computation = StepComputation(method, 16)
    state = {name: weight.clone() for name, weight in network.state_dict().items()}
    update = update_of(ward, plan_with(), network, computation)
    network.load_state_dict(state)
    without = update_of(ward.without(1), plan_with(), network, computation)
    assert torch.isfinite(update).all()
    assert without.norm() > 0
    torch.testing.assert_close(update, without, rtol=0, atol=1e-6)


def test_p8_a_step_in_which_nobody_is_drawn_is_a_step_of_noise_alone() -> None:
    quiet = update_of(ward_of([2] * 5), plan_with(sampling_rate=1e-12, steps=3))
    assert torch.equal(quiet, torch.zeros_like(quiet))
    plan = plan_with(sampling_rate=1e-12, noise_multiplier=1.0)
    assert update_of(empty_ward(5), plan, Wide()).std().item() == pytest.approx(1.0, rel=0.01)


def test_p8_a_site_without_training_patients_makes_all_its_steps() -> None:
    nobody = Ward(torch.zeros(0, 1, 4, 4), torch.zeros(0).long(), [])
    plan = plan_with(noise_multiplier=1.0, steps=4)
    assert update_of(nobody, plan, Wide()).std().item() == pytest.approx(2.0, rel=0.01)


# --- P9: the number of patients is told by nothing --------------------------------------
@pytest.mark.parametrize("patients", [1, 63, 64, 65, 127, 128, 129])
def test_p9_noise_divisor_and_steps_are_the_same_for_any_number_of_patients(
    patients: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_with(
        sampling_rate=64 / 128, noise_multiplier=1.0, expected_patients=64, steps=2, clip_norm=1e-3
    )
    update = update_of(empty_ward(patients), plan, Wide(), batch_size=64)
    claimed = 1e-3 * np.sqrt(2) / 64
    assert update.std().item() == pytest.approx(claimed, rel=0.01)
    # Equal patients whose gradients are all clipped: the mean counts them over the public number.
    ward = ward_of([1] * patients)
    ward.images[:], ward.targets[:] = ward.images[0], ward.targets[0]
    certain = plan_with(expected_patients=64, clip_norm=1e-3)
    assert update_of(ward, certain).norm().item() == pytest.approx(patients / 64 * 1e-3, rel=1e-3)


@pytest.mark.parametrize("patients", [0, 1, 40])
@pytest.mark.parametrize("steps", [1, 7])
def test_p9_a_round_has_exactly_the_steps_of_the_plan(patients: int, steps: int) -> None:
    network, plan = network_of(), plan_with(steps=steps, sampling_rate=0.3, noise_multiplier=1.0)
    start = start_of(network, plan, "fedavg")
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    made: list[int] = []
    optimiser.register_step_post_hook(lambda *_: made.append(1))
    work = train_privately(start, ward_of([1] * patients), plan, optimiser, COMPUTATION)
    assert len(made) == work.updates == steps
