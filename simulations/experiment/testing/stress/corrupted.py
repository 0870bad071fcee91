"""Finished models on test images that got worse: every corruption at every severity."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wardround.client.data.corruptions.registry import corrupted, generator_for_case
from wardround.client.data.manifest.examination import Examination
from wardround.client.data.preprocessing.intensity import SOFT_TISSUE
from wardround.client.data.preprocessing.preprocessing import (
    grey_channels,
    prepare_channels,
    read_channels,
)
from wardround.client.data.reading.image import Image
from wardround.client.training.case_predictions import (
    classified_cases,
    found_cases,
    segmented_cases,
)
from wardround.common.study.study import Study
from wardround.simulations.experiment.testing.samples import upright
from wardround.simulations.experiment.testing.stress.finished import (
    ChangedPatients,
    FinishedRun,
    in_chunks,
    patients_of_test,
)
from wardround.simulations.experiment.testing.stress.outcomes import (
    Outcomes,
    classified_outcomes,
    detected_outcomes,
    joined,
    of_all_sites,
    segmented_outcomes,
    success,
)
from wardround.simulations.run_files.folder import ALL_SITES
from wardround.simulations.run_files.stress import CLEAN, CorruptionRow, Examples

Condition = tuple[str, int]  # a corruption and its severity; ("none", 0) for images as they are
_Found = dict[tuple[str, Condition, str], list[Outcomes]]
_SHOWN_SEVERITY = 3
_LARGEST_PICTURE = 128  # pixels


@dataclass(frozen=True, slots=True)
class CorruptionPlan:
    """What is asked.

    Attributes:
        models: Names of the run's models.
        names: Corruptions.
        severities: Of 1 to 5.
        max_cases: Most examinations a site; None takes all.
        workers: Threads that make images worse.
    """

    models: tuple[str, ...]
    names: tuple[str, ...]
    severities: tuple[int, ...]
    max_cases: int | None = None
    seed: int = 0
    workers: int = 1

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Images as they are first, then every corruption at every severity."""
        worse = ((name, severity) for name in self.names for severity in self.severities)
        return ((CLEAN, 0), *worse)


def corruption_rows(
    run: FinishedRun,
    sites: Mapping[str, Path],
    plan: CorruptionPlan,
    tell: Callable[[str], None] = lambda said: None,
) -> list[CorruptionRow]:
    """Return how often each model errs on each site under each condition, and on all together.

    Args:
        run: The run whose models are asked.
        sites: The folders of the sites that are asked about.
        plan: What is asked.
        tell: Is told what is being done.
    """
    found: _Found = {}
    with ThreadPoolExecutor(plan.workers) as threads:
        for number, (name, folder) in enumerate(sites.items(), 1):
            tell(f"{name} ({number} of {len(sites)}): {len(plan.conditions)} kinds of images")
            _of_site(run, (name, folder), plan, threads, found)
    return list(_rows(found, tuple(sites), plan))


def _of_site(
    run: FinishedRun,
    place: tuple[str, Path],
    plan: CorruptionPlan,
    threads: ThreadPoolExecutor,
    found: _Found,
) -> None:
    name, folder = place
    study, patients = run.study, patients_of_test(folder, run.study, plan.max_cases)
    networks = {model: run.network(model, name) for model in plan.models}

    for places in in_chunks(patients, study):
        examinations = [patients.cohort.examinations[index] for index in places]
        raws = [read_channels(one, patients.site, study) for one in examinations]
        for condition in plan.conditions:
            change = _changer(condition, study, plan.seed)
            images = list(threads.map(change, raws, examinations))
            cohort = ChangedPatients(patients.cohort, places, images)
            for model, network in networks.items():
                outcomes = outcomes_of(network, cohort, study)
                found.setdefault((model, condition, name), []).append(outcomes)


def outcomes_of(network: nn.Module, cohort: ChangedPatients, study: Study) -> Outcomes:
    """Return what a network gets right of each examination."""
    if study.task.dense:
        return segmented_outcomes(segmented_cases(network, cohort, study))
    if study.task.boxes:
        return detected_outcomes(found_cases(network, cohort, study), cohort.patients.numpy())
    return classified_outcomes(classified_cases(network, cohort, study), study)


def _changer(
    condition: Condition, study: Study, seed: int
) -> Callable[[Sequence[Image], Examination], NDArray[np.float32]]:
    """Return what makes an examination worse and prepares it for the network."""

    def change(channels: Sequence[Image], examination: Examination) -> NDArray[np.float32]:
        return prepare_channels(_worse(channels, examination, condition, study, seed), study.data)

    return change


def _worse(
    channels: Sequence[Image],
    examination: Examination,
    condition: Condition,
    study: Study,
    seed: int,
) -> Sequence[Image]:
    name, severity = condition
    if name == CLEAN:
        return channels
    generator = generator_for_case(examination, name, seed)
    return [corrupted(image, name, severity, generator, study.data) for image in channels]


def _rows(found: _Found, sites: Sequence[str], plan: CorruptionPlan) -> Iterator[CorruptionRow]:
    for model in plan.models:
        for condition in plan.conditions:
            parts = [
                (site, joined(found[model, condition, site]))
                for site in sites
                if (model, condition, site) in found
            ]
            together = of_all_sites([part for _, part in parts]) if len(parts) > 1 else None
            if together is not None:
                yield _row(model, ALL_SITES, condition, together)
            for site, outcomes in parts:
                yield _row(model, site, condition, outcomes)


def _row(model: str, site: str, condition: Condition, outcomes: Outcomes) -> CorruptionRow:
    right = success(outcomes)
    return CorruptionRow(
        model,
        site,
        *condition,
        error=1 - right.value,
        low=1 - right.high,
        high=1 - right.low,
        examinations=len(outcomes.patients),
        patients=len(np.unique(outcomes.patients)),
    )


def corruption_examples(
    run: FinishedRun, sites: Mapping[str, Path], plan: CorruptionPlan
) -> Examples | None:
    """Return the first test image of the first site that has one, under each corruption."""
    study = run.study
    severity = min(plan.severities, key=lambda one: (abs(one - _SHOWN_SEVERITY), one))
    for folder in sites.values():
        patients = patients_of_test(folder, study, 1)
        if not patients.places:
            continue
        examination = patients.cohort.examinations[patients.places[0]]
        channels = read_channels(examination, patients.site, study)
        conditions = [(CLEAN, 0), *((name, severity) for name in plan.names)]
        worse = [_worse(channels, examination, one, study, plan.seed) for one in conditions]
        planes = [_plane(grey_channels(one, study.data)[0][0], study) for one in worse]
        low, high = _scale_of(planes[0], channels[0], study)
        pictures = np.clip((np.stack(planes) - low) / max(high - low, 1e-6), 0, 1)
        return Examples((CLEAN, *plan.names), pictures.astype(np.float32), severity)
    return None


def _plane(image: NDArray[np.float32], study: Study) -> NDArray[np.float32]:
    """Return a picture ``(H, W)`` or ``(H, W, 3)`` of one channel ``(planes, *spatial)``."""
    planes = torch.from_numpy(image)
    if planes.ndim == 4:
        planes, _ = upright(planes[..., planes.shape[-1] // 2], "", study)
    every = -(-max(planes.shape[1:]) // _LARGEST_PICTURE)
    planes = planes[:, ::every, ::every]
    shown = planes.movedim(0, -1) if study.data.colour else planes[0]
    return shown.numpy()


def _scale_of(plane: NDArray[np.float32], image: Image, study: Study) -> tuple[float, float]:
    """Return black and white of all pictures: those of the image as it is, or no change shows."""
    if image.eight_bit:
        return 0.0, 255.0
    if study.data.intensity == "ct":
        centre, width = study.data.window or SOFT_TISSUE
        return centre - width / 2, centre + width / 2
    low, high = np.percentile(plane, (0.5, 99.5))
    return float(low), float(high)
