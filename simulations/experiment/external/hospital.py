"""The patients of an external hospital, read where they lie: nothing is written there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wardround.client.data.cohort import Cohort, CohortSource
from wardround.client.data.manifest.covariates import covariate_scales
from wardround.client.data.manifest.examination import SPLITS, Examination
from wardround.client.data.manifest.manifest import open_manifest
from wardround.client.data.preprocessing.cache import MemoryBudget
from wardround.client.data.preprocessing.disk_cache import PreparedFolder
from wardround.client.site.folder import SITE_FILE, Site, SiteFile, open_site
from wardround.common.errors import InputError, known_names
from wardround.common.study.study import Study

EVERYBODY = "all"
_MANIFEST = "manifest.csv"
_DEFAULT_NAME = "external"


@dataclass(frozen=True, slots=True)
class Hospital:
    """A hospital's patients as a study sees them.

    Attributes:
        home: Its folder, in which nothing may be written.
        cohort: The patients that are chosen.
        examinations: Theirs.
        notes: Of the manifest.
    """

    name: str
    home: Path
    cohort: Cohort
    examinations: tuple[Examination, ...]
    notes: tuple[str, ...]


def open_hospital(place: Path, study: Study, split: str, work: Path) -> Hospital:
    """Read a hospital's manifest for a study.

    Args:
        place: A site folder, a folder with ``manifest.csv``, or a manifest.
        study: Of the model.
        split: ``all``, or the part of the manifest's column split whose patients are chosen.
        work: A private folder that takes the prepared images.

    Raises:
        InputError: There is no manifest, or nobody is in that part.
        DataError: The manifest does not fit the study; says rows and columns.
    """
    if split not in (EVERYBODY, *SPLITS):
        raise InputError(known_names("split", split, (EVERYBODY, *SPLITS)))
    site = _site_of(place, work)
    manifest = open_manifest(site, study)
    chosen = _chosen(manifest.examinations, split)
    source = CohortSource(
        site,
        study,
        covariate_scales(study, chosen),
        MemoryBudget(round(site.settings.cache_gigabytes * 1e9)),
        PreparedFolder(site, study),
    )
    cohort = Cohort("test", chosen, source)
    return Hospital(site.name, home_of(place), cohort, chosen, manifest.notes)


def home_of(place: Path) -> Path:
    """Return what belongs to a hospital: its folder, or a manifest that lies in none."""
    if place.is_dir() or not (place.parent / SITE_FILE).is_file():
        return place.resolve()
    return place.parent.resolve()


def _site_of(place: Path, work: Path) -> Site:
    """Return a site whose data is the hospital's and whose state is ours."""
    if (place / SITE_FILE).is_file():
        found = open_site(place)
        kept = {"name", "skip_unreadable", "shift", "shift_seed", "scanners", "rows_of", "labels"}
        settings = found.settings.model_copy(
            update={"manifest": str(found.manifest_path), "data_root": str(found.data_root)}
        )
        unused = settings.model_fields_set - kept - {"manifest", "data_root", "cache_gigabytes"}
        defaults = {name: SiteFile.model_fields[name].get_default() for name in unused}
        return Site(work, settings.model_copy(update=defaults))
    manifest = place / _MANIFEST if place.is_dir() else place
    if not manifest.is_file():
        msg = (
            f"{place} is no site folder and no manifest: give a folder with {SITE_FILE} or "
            f"{_MANIFEST}, or a CSV file with a row an examination."
        )
        raise InputError(msg)
    return Site(
        work,
        SiteFile(
            name=_DEFAULT_NAME,
            manifest=str(manifest.resolve()),
            data_root=str(manifest.resolve().parent),
        ),
    )


def _chosen(examinations: Sequence[Examination], split: str) -> tuple[Examination, ...]:
    if split == EVERYBODY:
        return tuple(replace(one, split=None) for one in examinations)
    found = tuple(one for one in examinations if one.split == split)
    if found:
        return found
    named = any(one.split for one in examinations)
    fact = f"has nobody in {split}" if named else "has no column split"
    msg = f"--split {split}: the manifest {fact}: use --split all, for nobody was trained on."
    raise InputError(msg)
