"""Were an external hospital's patients in the training? Then a test on them is none."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from wardround.client.data.manifest.examination import Examination
from wardround.client.data.manifest.manifest import read_manifest
from wardround.client.data.manifest.rows import name_rows
from wardround.client.data.same_images import Held, find_same_images
from wardround.client.site.folder import open_site
from wardround.common.errors import InputError
from wardround.common.study.study import Study
from wardround.simulations.run_files.folder import local_model

_USED = ("train", "validation")  # they make the model, or choose it
_HERE, _THERE = "here", "in the run"
_FIRST_ROW_OF_RUN = 10**9


def require_new_patients(
    run: Path, model: str, examinations: Sequence[Examination], study: Study
) -> tuple[str, ...]:
    """Check that none of a hospital's patients made the model or chose it.

    A patient is known by the image; of a table by the name and all values together. A name alone
    proves nothing: two hospitals may both count from 1. It is said.

    Args:
        run: The run that the model is from.
        model: Its name, e.g. ``federated`` or ``local-north``.
        examinations: Of the hospital.
        study: The model's.

    Returns:
        Sentences on names that patients of the run have too.

    Raises:
        InputError: A patient took part in the run; says the rows.
    """
    used = [one for one in _used(run, model, study) if one.split in _USED]
    if study.data.kind == "table":
        known = {_values(one) for one in used}
        again = [one.row for one in examinations if _values(one) in known]
        what = "the same name and the same values as patients"
    else:
        again = _same_images(examinations, used, study)
        what = "the same images as patients"
    if again:
        msg = (
            f"{name_rows(sorted(again))} of the manifest {'has' if len(again) == 1 else 'have'} "
            f"{what} who trained or chose this model: a test on them is none. Choose those who "
            "did not with --split test, or another hospital."
        )
        raise InputError(msg)
    names = {one.patient for one in used}
    alike = len({one.patient for one in examinations} & names)
    if not alike:
        return ()
    return (
        f"{alike} patients are called as patients of the run's training, with other data: make "
        "sure that the hospitals number their patients apart.",
    )


def _used(run: Path, model: str, study: Study) -> Iterator[Examination]:
    for folder in sorted((run / "sites").iterdir()):
        if model.startswith(local_model("")) and model != local_model(folder.name):
            continue
        site = open_site(folder)
        tolerant = site.settings.model_copy(update={"skip_unreadable": True})
        yield from read_manifest(replace(site, settings=tolerant), study)


def _values(one: Examination) -> tuple[object, ...]:
    return (one.patient, one.covariates, one.label)


def _same_images(
    examinations: Sequence[Examination], used: Sequence[Examination], study: Study
) -> list[int]:
    held = [Held(one.row, "", _HERE, None, one.images) for one in examinations]
    held += [
        Held(_FIRST_ROW_OF_RUN + number, "", _THERE, None, one.images)
        for number, one in enumerate(used)
    ]
    groups = find_same_images(held, study.data.dimensions).groups
    groups += tuple(_same_places(held))
    torn = [group for group in groups if {one.part for one in group} == {_HERE, _THERE}]
    return sorted({one.row for group in torn for one in group if one.part == _HERE})


def _same_places(held: Sequence[Held]) -> Iterator[tuple[Held, ...]]:
    """Yield examinations that name the very same files or items of arrays."""
    found: dict[tuple[object, ...], list[Held]] = {}
    for one in held:
        place = tuple((i.path.resolve(), i.array, i.index) for i in one.held)
        found.setdefault(place, []).append(one)
    yield from (tuple(group) for group in found.values() if len(group) > 1)
