"""All patients of one site, opened: those it trains on, chooses the model by, and tests on."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from wardround.client.data.cohort import Cohort, CohortSource
from wardround.client.data.manifest.covariates import (
    covariate_scales,
    without_site,
)
from wardround.client.data.manifest.examination import SPLITS, Examination, SplitName
from wardround.client.data.manifest.manifest import Manifest, open_manifest, read_manifest
from wardround.client.data.manifest.parts.partition import new_and_old, partition_patients
from wardround.client.data.preprocessing.cache import MemoryBudget
from wardround.client.data.preprocessing.disk_cache import PreparedFolder
from wardround.client.data.same_images import held_by, require_parted
from wardround.client.policy.policy import is_simulated
from wardround.client.site.folder import Site
from wardround.common.errors import DataError
from wardround.common.study.study import Study

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cohorts:
    """A site's patients: those it trains on, chooses the model by, and tests on.

    Attributes:
        prepared: What is kept of them on the disk.
        old: Those of earlier waves, where the study trains on new ones alone; else None.
        images: The files and folders that they are read from.
    """

    train: Cohort
    validation: Cohort
    test: Cohort
    prepared: PreparedFolder
    images: frozenset[Path]
    parting: tuple[str, ...] = ()
    old: Cohort | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report must say, also of who is in which part; grows as images are read."""
        of_parts = (*self.train.notes, *self.validation.notes, *self.test.notes)
        return (*self.parting, *of_parts)


def open_cohorts(site: Site, study: Study, keeps_parts: bool = True) -> Cohorts:
    """Read the manifest and part the patients; images are read when first needed.

    Args:
        keeps_parts: Whether the part of a patient who is seen for the first time is written in the
            site folder, for good. Without, a later opening may draw another.

    Raises:
        DataError: The manifest cannot be used, or a split that the study asks for has no patient.
    """
    prepared = PreparedFolder(site, study)
    manifest = _open_manifest(site, study, prepared)
    examinations = manifest.examinations
    examinations = without_site(examinations, study, site.name)
    partition = partition_patients(examinations, study, site, keeps_parts)
    parts = partition.parts
    notes = (*manifest.notes, *partition.notes, *_same_images(parts, site, study))
    if study.data.kind == "image":
        prepared.remove_stale(examinations)
    source = CohortSource(
        site,
        study,
        covariate_scales(study, parts["train"]),
        MemoryBudget(round(site.settings.cache_gigabytes * 1e9)),
        prepared,
    )
    new, old = new_and_old(parts["train"], study)
    train = Cohort("train", new, source)
    validation, test = (Cohort(split, parts[split], source) for split in SPLITS[1:])
    images = frozenset(location.path for e in examinations for location in e.locations)
    held = Cohort("train", old, source) if old else None
    return Cohorts(train, validation, test, prepared, images, notes, held)


def _same_images(
    parts: Mapping[SplitName, Sequence[Examination]], site: Site, study: Study
) -> tuple[str, ...]:
    """Check that no image of a hospital is in two parts; a simulation has looked at all of its own.

    Raises:
        DataError: One is. A tolerant site only says so: what leaves it depends on no two patients.
    """
    if study.data.kind != "image" or is_simulated(site.folder):
        return ()
    held = [one for part in SPLITS for one in held_by(parts[part], part)]
    notes = require_parted(held, study.data.dimensions, refuses=not site.is_tolerant)
    if notes and site.is_tolerant:
        logger.warning("%s", "; ".join(notes))
    return notes


def _open_manifest(site: Site, study: Study, prepared: PreparedFolder) -> Manifest:
    """Return what the site's manifest says; of an image that is missing no copy stays either.

    Raises:
        DataError: The manifest cannot be used.
    """
    try:
        return open_manifest(site, study)
    except DataError:
        settings = site.settings.model_copy(update={"skip_unreadable": True})
        with suppress(DataError):
            prepared.remove_stale(read_manifest(replace(site, settings=settings), study))
        raise
