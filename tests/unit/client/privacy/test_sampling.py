"""Which patients a private step holds, and what each of them gives."""

import csv
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.client.data.batch import Batch
from wardround.client.data.cohort import Cohort
from wardround.client.data.cohorts import open_cohorts
from wardround.client.privacy.sampling import ExampleChoice, PatientSampler
from wardround.client.privacy.step import StepComputation, train_privately
from wardround.client.site.folder import open_site
from wardround.client.training.losses.registry import build_loss
from wardround.client.training.objectives.base import LocalStart
from wardround.client.training.optimisers import build_optimiser
from wardround.client.training.schedule import SchedulePosition
from wardround.common.errors import DataError
from wardround.common.models.networks.registry import build_network
from wardround.common.models.sharing import layout_of
from wardround.common.parameters.schema import read_parameters
from wardround.common.privacy.secure_random import Randomness
from wardround.common.study.loading import parse_study
from wardround.common.study.plans.patient_privacy import PrivacyPlan
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.private_networks import PRIVATE_NETWORKS
from wardround.common.study.sections.training import TrainingSection

CPU = torch.device("cpu")


class Rows:
    """A cohort whose examples are the numbers of its rows."""

    def __init__(self, patients: list[int]) -> None:
        self.patients = torch.tensor(patients, dtype=torch.int64)

    def batch(
        self, indices: torch.Tensor, generator: torch.Generator, device: torch.device
    ) -> Batch:
        noise = torch.rand(len(indices), 1, generator=generator)
        return Batch(noise, None, indices).to(device)


def sampler_of(patients: list[int], examinations: int = 100, copies: int = 1) -> PatientSampler:
    return PatientSampler(Rows(patients), ExampleChoice(examinations, copies), Randomness())


def test_each_patient_is_drawn_alone_with_the_public_rate() -> None:
    patients, rate, steps = 40, 0.3, 3000
    sampler = sampler_of(list(range(patients)))
    drawn = torch.zeros(steps, patients, dtype=torch.float64)
    for step in range(steps):
        for indices in sampler.draw(rate):
            drawn[step, indices] = 1
    # Six standard errors: a right sampler fails one of these once in a million runs.
    bound = 6 * np.sqrt(rate * (1 - rate) / steps)
    assert (drawn.mean(0) - rate).abs().max() < bound
    together = torch.corrcoef(drawn.T) - torch.eye(patients)
    assert together.abs().max() < 6 / np.sqrt(steps), "patients are drawn independently"
    again = torch.corrcoef(torch.stack([drawn[:-1].flatten(), drawn[1:].flatten()]))[0, 1]
    assert again.abs() < 6 / np.sqrt(drawn.numel()), "and so are steps"
    sizes = drawn.sum(1)
    binomial = patients * rate * (1 - rate)
    assert sizes.var().item() == pytest.approx(binomial, rel=6 * np.sqrt(2 / steps))


def test_a_patient_with_many_examinations_is_drawn_as_often_as_one_with_few() -> None:
    patients = [0] * 30 + [1] + [2] * 5
    sampler = sampler_of(patients)
    times = torch.zeros(3)
    for _ in range(2000):
        for indices in sampler.draw(0.25):
            times[patients[int(indices[0])]] += 1
    assert (times - 500).abs().max() < 6 * np.sqrt(2000 * 0.25 * 0.75)


@settings(max_examples=40, deadline=None)
@given(
    patients=st.lists(st.integers(0, 6), min_size=1, max_size=40),
    most=st.integers(1, 9),
    copies=st.integers(1, 3),
    microbatch=st.integers(1, 30),
)
def test_a_drawn_patient_gives_its_own_examples_up_to_the_cap(
    patients: list[int], most: int, copies: int, microbatch: int
) -> None:
    number: dict[int, int] = {}
    patient_index = [number.setdefault(patient, len(number)) for patient in patients]
    sampler = sampler_of(patient_index, most, copies)
    drawn = sampler.draw(1.0)
    assert len(drawn) == len(number)
    for patient, indices in enumerate(drawn):
        assert {patient_index[index] for index in indices.tolist()} == {patient}
        given_once = indices.unique()
        assert len(given_once) == min(most, patient_index.count(patient))
        assert len(indices) == copies * len(given_once)
    batches = list(sampler.batches(drawn, microbatch, CPU))
    counts = [count for batch in batches for count in batch.counts]
    assert counts == [len(indices) for indices in drawn]
    targets = torch.cat([batch.examples.targets for batch in batches])
    assert torch.equal(targets, torch.cat(drawn))
    assert all(len(b.examples) <= microbatch or b.patients == 1 for b in batches)


def test_the_examples_under_the_cap_are_drawn_anew_each_step() -> None:
    sampler = sampler_of([0] * 6, examinations=2)
    pairs = {tuple(indices.tolist()) for _ in range(400) for indices in sampler.draw(1.0)}
    assert len(pairs) == 15  # each of the pairs of six, all but surely


def test_nobody_drawn_is_no_batch() -> None:
    sampler = sampler_of([])
    assert sampler.draw(1.0) == []
    assert list(sampler.batches([], 8, CPU)) == []


@pytest.mark.parametrize(
    ("cap", "patch_size", "each", "examinations"),
    [(8, None, 1, 8), (8, (4, 4), 2, 4), (3, (4, 4), 2, 1), (1, (4, 4), 4, 1)],
)
def test_the_cap_counts_patches_where_a_study_has_patches(
    cap: int, patch_size: tuple[int, int] | None, each: int, examinations: int
) -> None:
    plan = PrivacyPlan(0.1, 4, 1.0, 1.0, 1, 1, 1e-5, cap)
    training = TrainingSection(patch_size=patch_size, patches_per_image=each)
    assert ExampleChoice.of(plan, training, 2) == ExampleChoice(examinations, 2, each)


# --- With a real cohort --------------------------------------------------------------
def volumes(folder: Path, patient_index: list[str], sizes: list[int], **sections: Any) -> Cohort:
    """Open volumes with masks, one examination an owner's name."""
    rows = []
    for number, (owner, size) in enumerate(zip(patient_index, sizes, strict=True)):
        values = np.random.default_rng(number).uniform(1, 2, (size,) * 3).astype(np.float32)
        labels = (values > 1.5).astype(np.uint8)
        for kind, array in (("image", values), ("mask", labels)):
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / f"{kind}{number}.nii")
        rows.append((owner, f"image{number}.nii", f"mask{number}.nii", "train"))
    (folder / "site.toml").write_text('name = "ward"\n')
    with (folder / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("patient", "image", "mask", "split"), *rows])
    content: dict[str, Any] = {
        "study": {"name": "organ", "task": "segmentation"},
        "data": {"classes": ["none", "organ"], "dimensions": 3, **sections.get("data", {})},
        "model": {"network": "unet", "features": [4, 8]},
        "training": sections.get("training", {}),
        "evaluation": {"validation_fraction": 0.0, "test_fraction": 0.0},
    }
    return open_cohorts(open_site(folder), parse_study(content)).train


def test_patients_with_volumes_give_patches_of_their_own(tmp_path: Path) -> None:
    training = {"patch_size": [16, 16, 16], "patches_per_image": 2, "batch_size": 2}
    cohort = volumes(
        tmp_path, ["a", "b", "a", "c"], [16, 17, 18, 20],
        training=training, data={"augmentation": "mr"},
    )  # fmt: skip
    sampler = PatientSampler(cohort, ExampleChoice(5, 3, 2), Randomness())
    state = torch.get_rng_state()
    (batch,) = sampler.batches(sampler.draw(1.0), 100, CPU)
    assert batch.counts == (2 * 2 * 3, 2 * 3, 2 * 3)
    assert batch.examples.images is not None
    assert batch.examples.images.shape == (24, 1, 16, 16, 16)
    assert batch.examples.targets.shape == (24, 16, 16, 16)
    flat = batch.examples.images.flatten(1)
    assert len(flat.unique(dim=0)) == 24, "each copy is augmented for itself"
    assert torch.equal(state, torch.get_rng_state())


def test_whole_volumes_of_different_sizes_are_refused_without_a_name(tmp_path: Path) -> None:
    cohort = volumes(tmp_path, ["a", "b"], [6, 8], training={"batch_size": 1})
    sampler = PatientSampler(cohort, ExampleChoice(5), Randomness())
    with pytest.raises(DataError, match=r"training\.patch_size or data\.size") as refusal:
        list(sampler.batches(sampler.draw(1.0), 100, CPU))
    assert ".nii" not in str(refusal.value)


def test_a_private_round_trains_a_network_on_patches_of_volumes(tmp_path: Path) -> None:
    training = {
        "patch_size": [16, 16, 16], "patches_per_image": 2, "optimiser": "adam",
        "learning_rate": 1e-2, "local_steps": 2,
    }  # fmt: skip
    content = {"training": training, "data": {"augmentation": "mr"}}
    cohort = volumes(tmp_path, ["a", "b", "a", "c"], [16, 17, 18, 20], **content)
    study = cohort._study
    plan = PrivacyPlan(0.7, 2, 1.0, 0.5, 2, 1, 1e-5, 4)
    network, strategy = build_network(study, 0), plan_of(study)
    before = read_parameters(network)
    start = LocalStart(
        network=network,
        parameters=before,
        auxiliary={},
        memory={},
        plan=strategy,
        layout=layout_of(network, strategy),
        training=study.training,
        position=SchedulePosition.of_round(1, 1, 2),
        loss=build_loss(study, None, CPU),
    )
    optimiser = build_optimiser(network, study.training)
    computation = StepComputation(PRIVATE_NETWORKS["unet"].method, 4, 2)
    assert train_privately(start, cohort, plan, optimiser, computation).updates == 2
    after = read_parameters(network)
    assert all(torch.isfinite(value).all() for value in after.values())
    assert all((value != before[name]).any() for name, value in after.items())
