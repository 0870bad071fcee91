"""The finished models of a run and the test patients of its sites, for tests after the run."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.data.cohort import Cohort
from wardround.client.data.cohorts import open_cohorts
from wardround.client.data.manifest.examination import Examination
from wardround.client.data.preprocessing.case import StoredMask
from wardround.client.site.folder import Site, open_site
from wardround.common.errors import InputError, known_names
from wardround.common.models.model_folder import is_model_folder, open_model_folder
from wardround.common.study.loading import load_study
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.study import Study
from wardround.simulations.run_files.folder import FEDERATED, read_facts
from wardround.simulations.run_files.stress import LOCAL

_CPU = torch.device("cpu")
_CHUNK_VALUES = 2**25  # grey values in memory at once: 128 MB
_MOST_IN_CHUNK = 64


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that can be tested.

    Attributes:
        sites: The folders of the simulated sites by name.
        models: Names that can be asked for, e.g. ``federated``, ``pooled``, ``local``.
    """

    folder: Path
    study: Study
    sites: Mapping[str, Path]
    models: tuple[str, ...]

    def network(self, model: str, site: str) -> nn.Module:
        """Return a model as a site uses it, in evaluation mode.

        Raises:
            ModelError: Its folder was changed.
        """
        places = {
            LOCAL: (f"local-{site}",),
            FEDERATED: (f"{FEDERATED}-{site}", FEDERATED),
        }.get(model, (model,))
        folders = [self.folder / "models" / place for place in places]
        found = next((folder for folder in folders if is_model_folder(folder)), folders[-1])
        return open_model_folder(found).network()

    def chosen_sites(self, name: str | None) -> Mapping[str, Path]:
        """Return one site, or all where none is named.

        Raises:
            InputError: There is none of this name.
        """
        if name is None:
            return self.sites
        if name not in self.sites:
            raise InputError(known_names("site", name, self.sites))
        return {name: self.sites[name]}

    def check_model(self, name: str) -> None:
        """Check that the run left a model.

        Raises:
            InputError: It did not; lists those that it left.
        """
        if name not in self.models:
            raise InputError(known_names("model", name, self.models))


def open_finished_run(folder: Path) -> FinishedRun:
    """Open a finished simulated run whose models can be asked anew.

    Raises:
        InputError: It is none, its study is of a table or has no classes, masks or boxes, or it
            left no models.
    """
    facts = read_facts(folder)
    if facts.status != "finished":
        again = f"wardround simulate --resume {shlex.quote(str(folder))}"
        msg = f"{folder} is not finished (status: {facts.status}): go on first with: {again}"
        raise InputError(msg)
    study = load_study(folder / "study.toml")
    if study.data.kind == "table":
        msg = (
            f"the study {study.name!r} is of a table, and only images can be made worse: give a "
            "run of an image study."
        )
        raise InputError(msg)
    if study.task.outcome or study.task.restores:
        msg = (
            f"the study {study.name!r} is of the task {study.study.task}, and how far images may "
            "be changed is told of classes, masks and boxes only: give a run of such a study."
        )
        raise InputError(msg)
    if plan_of(study).objective == "fine-tune":
        msg = (
            "this study trains the federated model on before each test, so no file holds the "
            "model that would be tested: give a run of another strategy."
        )
        raise InputError(msg)
    sites = {f.parent.name: f.parent for f in sorted((folder / "sites").glob("*/site.toml"))}
    models = _models_of(folder, tuple(sites))
    if not sites or not models:
        what = "models" if sites else "simulated sites"
        msg = (
            f"{folder} has no {what}: give a folder that 'wardround simulate --out' wrote and "
            "finished."
        )
        raise InputError(msg)
    return FinishedRun(folder, study, sites, models)


def _models_of(folder: Path, sites: Sequence[str]) -> tuple[str, ...]:
    names = [path.name for path in sorted((folder / "models").glob("*")) if is_model_folder(path)]
    own = {f"{FEDERATED}-{site}" for site in sites}
    alone = {f"local-{site}" for site in sites}
    whole = [name for name in names if name not in own | alone]
    if FEDERATED not in whole and own <= set(names):
        whole.insert(0, FEDERATED)
    return tuple(whole) + ((LOCAL,) if alone <= set(names) else ())


@dataclass(frozen=True, slots=True)
class Tested:
    """The test examinations of a site that are asked about.

    Attributes:
        places: Which of the cohort's.
    """

    site: Site
    cohort: Cohort
    places: tuple[int, ...]


def patients_of_test(folder: Path, study: Study, max_cases: int | None) -> Tested:
    """Return a site's test examinations, at most so many, spread over the cohort."""
    site = open_site(folder)
    cohort = open_cohorts(site, study).test
    count = len(cohort)
    few = count if max_cases is None else min(count, max_cases)
    places = np.linspace(0, count - 1, few).round().astype(int).tolist() if few else []
    return Tested(site, cohort, tuple(places))


def in_chunks(patients: Tested, study: Study) -> Iterator[tuple[int, ...]]:
    """Yield places in the cohort, as many at once as memory is meant for."""
    places = patients.places
    if not places:
        return
    one = patients.cohort.case(places[0]).images
    size = 1 if one is None else one.numel()
    each = max(1, min(_MOST_IN_CHUNK, _CHUNK_VALUES // size))
    for start in range(0, len(places), each):
        yield places[start : start + each]


class ChangedPatients:
    """Some examinations of a cohort with other images, as a cohort that is evaluated."""

    def __init__(
        self, cohort: Cohort, places: Sequence[int], images: Sequence[NDArray[np.float32]]
    ) -> None:
        self._cohort = cohort
        self._places = tuple(places)
        self._images = tuple(torch.from_numpy(np.ascontiguousarray(image)) for image in images)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def examinations(self) -> tuple[Examination, ...]:
        """Where they stand in the site's manifest."""
        return tuple(self._cohort.examinations[place] for place in self._places)

    @property
    def patients(self) -> Tensor:
        """``(N,)`` int64 numbers of patients, those of the whole cohort."""
        return self._cohort.patients[list(self._places)]

    @property
    def targets(self) -> Tensor:
        """``(N, ...)``, what is to be found in each."""
        return self._cohort.targets[list(self._places)]

    def class_counts(self) -> Tensor | None:
        """Return the counts of the whole cohort."""
        return self._cohort.class_counts()

    def case(self, index: int, device: torch.device = _CPU) -> Batch:
        """Return one examination with its other image."""
        return self.batch(torch.tensor([index]), device=device)

    def batch(
        self, indices: Tensor, generator: torch.Generator | None = None, device: torch.device = _CPU
    ) -> Batch:
        """Return examinations with their other images."""
        places = torch.tensor(self._places)[indices]
        given = self._cohort.batch(places)
        images = torch.stack([self._images[index] for index in indices.tolist()])
        return Batch(images, given.covariates, given.targets).to(device)

    def spacing(self, index: int) -> tuple[float, ...]:
        """Return the millimetres a voxel."""
        return self._cohort.spacing(self._places[index])

    def stored_mask(self, index: int) -> StoredMask | None:
        """Return the mask on its own grid, where that is another."""
        return self._cohort.stored_mask(self._places[index])
