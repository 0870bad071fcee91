"""The private step: claims P5 to P9, each a test, and what else must not tell of a patient."""

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.privacy import step
from wardround.client.privacy.gradients.loop import loop_clipped_sum, trained_parameters
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.client.privacy.step import StepComputation, train_privately
from wardround.client.training.local import LocalWork
from wardround.client.training.losses import MeanLoss, cross_entropy
from wardround.client.training.objectives.base import LocalStart
from wardround.client.training.objectives.registry import build_objective
from wardround.client.training.schedule import SchedulePosition
from wardround.common.errors import RunError
from wardround.common.models.sharing import layout_of
from wardround.common.parameters.schema import read_parameters
from wardround.common.privacy.secure_random import KEY_BYTES, Randomness
from wardround.common.study.plans.patient_privacy import PrivacyPlan
from wardround.common.study.plans.strategy import plan_from
from wardround.common.study.sections import FederationSection, TrainingSection

COMPUTATION = StepComputation("loop", 16)


class Ward:
    """What a step asks of a cohort: whose the examples are, and batches of them."""

    def __init__(self, images: Tensor, targets: Tensor, patients: list[int]) -> None:
        self.images, self.targets = images, targets
        self.patients = torch.tensor(patients, dtype=torch.int64)

    def batch(self, indices: Tensor, generator: torch.Generator, device: torch.device) -> Batch:
        return Batch(self.images[indices], None, self.targets[indices]).to(device)

    def without(self, patient: int) -> "Ward":
        kept = self.patients != patient
        others = self.patients[kept]
        return Ward(
            self.images[kept], self.targets[kept], (others - (others > patient).long()).tolist()
        )


def ward_of(counts: list[int], seed: int = 0, pixels: int = 16) -> Ward:
    generator = torch.Generator().manual_seed(seed)
    patients = [patient for patient, count in enumerate(counts) for _ in range(count)]
    images = torch.randn(len(patients), 1, 4, pixels // 4, generator=generator)
    return Ward(images, torch.randint(2, (len(patients),), generator=generator), patients)


def network_of(pixels: int = 16, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 8), nn.Tanh(), nn.Linear(8, 2))


def plan_with(**numbers: float) -> PrivacyPlan:
    plan = PrivacyPlan(
        sampling_rate=1.0,
        expected_patients=1,
        clip_norm=1.0,
        noise_multiplier=0.0,
        steps=1,
        rounds=1,
        delta=1e-5,
        examples_per_patient=100,
    )
    return replace(plan, **numbers)


def start_of(
    network: nn.Module, plan: PrivacyPlan, strategy: str, **training: object
) -> LocalStart:
    section = TrainingSection.model_validate({"optimiser": "sgd", "learning_rate": 1.0, **training})
    chosen = plan_from(FederationSection(strategy=strategy))
    return LocalStart(
        network=network,
        parameters=read_parameters(network),
        auxiliary={},
        memory={},
        plan=chosen,
        layout=layout_of(network, chosen),
        training=section,
        position=SchedulePosition.of_round(1, 1, plan.steps),
        loss=MeanLoss(cross_entropy),
    )


def update_of(
    ward: Ward,
    plan: PrivacyPlan,
    network: nn.Module | None = None,
    computation: StepComputation = COMPUTATION,
    **training: object,
) -> Tensor:
    """Return what one private round of gradient descent at rate 1 takes away, as one vector."""
    network = network_of() if network is None else network
    start = start_of(network, plan, "fedavg", **training)
    before = flat(trained_parameters(network))
    optimiser = torch.optim.SGD(trained_parameters(network).values(), lr=1.0)
    train_privately(start, ward, plan, optimiser, computation)
    return before - flat(trained_parameters(network))


def flat(parameters: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.detach().flatten() for value in parameters.values()])


def sum_of(ward: Ward, clip_norm: float = 1.0) -> Tensor:
    counts = tuple(torch.bincount(ward.patients).tolist())
    batch = PatientBatch(Batch(ward.images, None, ward.targets), counts)
    return flat(
        loop_clipped_sum(network_of(), batch, MeanLoss(cross_entropy).per_sample, clip_norm)
    )


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
class Wide(nn.Module):
    """400 000 numbers of which zero images ask nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 200_000))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).sum(1, keepdim=True) * self.weight[:, :1].T


def empty_ward(patients: int) -> Ward:
    return Ward(torch.zeros(patients, 1, 4, 4), torch.zeros(patients).long(), list(range(patients)))


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


# --- Micro-batches, copies, other frameworks ----------------------------------------------
@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 7), min_size=1, max_size=8),
    microbatch=st.integers(1, 40),
    method=st.sampled_from(["loop", "ghost", "vmap"]),
)
def test_a_micro_batch_never_changes_the_result(
    counts: list[int], microbatch: int, method: str
) -> None:
    ward, plan = ward_of(counts), plan_with(steps=2, clip_norm=0.3, expected_patients=4)
    whole = update_of(ward, plan, computation=StepComputation("loop", 1000))
    cut = update_of(ward, plan, computation=StepComputation(method, microbatch))
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-5)


def test_equal_copies_of_an_example_change_nothing() -> None:
    ward, plan = ward_of([2, 1, 3]), plan_with(clip_norm=0.3)
    once, thrice = (
        update_of(ward, plan, computation=StepComputation("loop", 4, k)) for k in (1, 3)
    )
    torch.testing.assert_close(once, thrice, rtol=0, atol=1e-6)


def test_a_step_on_patients_of_one_example_is_that_of_opacus() -> None:
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    ward = ward_of([1] * 12)
    ours = update_of(ward, plan_with(clip_norm=0.2, expected_patients=5))
    network = network_of()
    before = flat(trained_parameters(network))
    sampled = GradSampleModule(network, loss_reduction="sum")
    optimiser = DPOptimizer(
        torch.optim.SGD(network.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=0.2,
        expected_batch_size=5,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.functional.cross_entropy(sampled(ward.images), ward.targets, reduction="sum").backward()
    optimiser.step()
    theirs = before - flat(trained_parameters(network))
    assert theirs.norm() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_noise_is_as_large_as_that_of_opacus() -> None:
    from opacus.optimizers import DPOptimizer

    weight = nn.Parameter(torch.zeros(400_000))
    weight.grad_sample = torch.zeros(1, 400_000)
    optimiser = DPOptimizer(
        torch.optim.SGD([weight], lr=1.0),
        noise_multiplier=1.3,
        max_grad_norm=0.7,
        expected_batch_size=4,
    )
    optimiser.step()
    plan = plan_with(noise_multiplier=1.3, clip_norm=0.7, expected_patients=4)
    ours = update_of(empty_ward(2), plan, Wide())
    assert (ours.std() / weight.detach().std()).item() == pytest.approx(1.0, rel=0.01)


# --- What follows the noise -----------------------------------------------------------
def test_the_loss_of_a_private_round_is_not_told() -> None:
    network, plan = network_of(), plan_with(noise_multiplier=1.0)
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    start = start_of(network, plan, "fedavg")
    work = train_privately(start, ward_of([1]), plan, optimiser, COMPUTATION)
    assert isinstance(work, LocalWork)
    assert np.isnan(work.mean_loss)


def test_an_objective_sees_noised_gradients_and_no_batch() -> None:
    seen: list[Tensor] = []

    class Spy:
        def adjust(self, loss: Tensor, batch: Batch) -> Tensor:
            raise AssertionError

        def correct(self) -> None:
            seen.append(network.weight.grad.clone())

    network, plan = Wide(), plan_with(noise_multiplier=1.0, steps=2)
    start = start_of(network, plan, "fedprox")
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    train_privately(start, empty_ward(3), plan, optimiser, COMPUTATION, Spy())
    assert [round(gradient.std().item(), 1) for gradient in seen] == [1.0, 1.0]


def test_the_proximal_pull_is_that_of_fedprox() -> None:
    network, plan = network_of(), plan_with(steps=2, sampling_rate=1e-12)
    start = start_of(network, plan, "fedprox")
    objective = build_objective(start)
    with torch.no_grad():
        network[1].bias += 1.0
    moved = network[1].bias.detach().clone()
    anchor = moved - 1.0
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    train_privately(start, ward_of([1]), plan, optimiser, COMPUTATION, objective)
    pull = 1 - start.plan.options.proximal_weight
    torch.testing.assert_close(network[1].bias.detach(), anchor + pull**2)


def test_the_learning_rate_follows_the_study() -> None:
    network, plan = Wide(), plan_with(noise_multiplier=1.0, steps=4)
    start = start_of(network, plan, "fedavg", schedule="cosine", learning_rate=1e-3)
    optimiser = torch.optim.SGD(network.parameters(), lr=99.0)
    rates: list[float] = []
    optimiser.register_step_pre_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
    train_privately(start, empty_ward(1), plan, optimiser, COMPUTATION)
    assert rates == pytest.approx([1e-3 * (1 + np.cos(np.pi * k / 4)) / 2 for k in range(4)])


def test_frozen_parameters_have_neither_gradient_nor_noise() -> None:
    network = network_of()
    network[1].requires_grad_(False)
    before = network[1].weight.clone()
    update_of(ward_of([1, 2]), plan_with(noise_multiplier=1.0, steps=3), network)
    assert torch.equal(before, network[1].weight)
    assert network[1].weight.grad is None


def test_no_buffer_changes() -> None:
    network = network_of()
    network.register_buffer("counter", torch.zeros(3))
    network.insert(2, nn.GroupNorm(2, 8))
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    update_of(ward_of([1, 2]), plan_with(noise_multiplier=1.0), network)
    assert all(torch.equal(value, buffers[name]) for name, value in network.named_buffers())


# --- What is refused --------------------------------------------------------------------
def with_statistics(start: LocalStart) -> LocalStart:
    start.network.insert(2, nn.BatchNorm1d(8))
    return start


def with_training(**training: object) -> Callable[[LocalStart], LocalStart]:
    return lambda start: replace(start, training=start.training.model_copy(update=training))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda start: replace(start, position=SchedulePosition(0, 1, 5)),
            "5 steps here and 1 in the privacy plan",
        ),
        (lambda start: replace(start, plan=plan_from(FederationSection(strategy="moon"))), "past"),
        (lambda start: replace(start, plan=plan_from(FederationSection(strategy="ditto"))), "past"),
        (with_training(precision="bfloat16"), "too coarse"),
        (with_training(class_weights="balanced"), "counts the site's patients"),
        (with_statistics, "mixes patients"),
        (lambda start: replace(start, loss=nn.CrossEntropyLoss()), "no value for each example"),
    ],
)
def test_a_start_that_would_tell_of_patients_is_refused(
    spoil: Callable[[LocalStart], LocalStart], message: str
) -> None:
    network, plan = network_of(), plan_with()
    start = spoil(start_of(network, plan, "fedavg"))
    before = flat(trained_parameters(network))
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    with pytest.raises(RunError, match=message):
        train_privately(start, ward_of([1]), plan, optimiser, COMPUTATION)
    assert torch.equal(before, flat(trained_parameters(network)))


def test_with_a_key_of_a_test_a_round_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "Randomness", lambda: Randomness(bytes(KEY_BYTES)))
    plan = plan_with(noise_multiplier=1.0, sampling_rate=0.5, steps=3)
    assert torch.equal(*(update_of(ward_of([2] * 9), plan) for _ in range(2)))
