"""Landmarks of a public reference: the grey values that a study's images are matched to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tomli_w

from wardround.client.data.manifest.cells import parse_location
from wardround.client.data.manifest.examination import Location
from wardround.client.data.preprocessing.harmonisation import quantiles, shading
from wardround.client.data.preprocessing.preprocessing import grey_channels
from wardround.client.data.reading import readers
from wardround.client.data.reading.image import UnreadableError
from wardround.common.errors import InputError
from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study
from wardround.simulations.datasets.catalogue import load_dataset

MOST_EXAMINATIONS = 500  # a mean of more changes no landmark that matters


@dataclass(frozen=True, slots=True)
class Landmarks:
    """What images are matched to.

    Attributes:
        study: The study with ``data.harmonisation.landmarks``.
        examinations: Of how many the landmarks are the mean.
        reference: What they were taken from, for people.
        licence: Of the reference; "" of files that were named.
    """

    study: Study
    examinations: int
    reference: str
    licence: str = ""


def landmarks_of_data(study: Study, data_root: Path | None) -> Landmarks:
    """Return a study with the landmarks of its own public data set, without simulated scanners.

    Raises:
        InputError: The data set is not there, or the study has no images.
        UnreadableError: An image cannot be used.
    """
    _require_images(study)
    simulation = study.simulation
    found = load_dataset(simulation.data, simulation.options, data_root, study)
    spread = np.linspace(0, len(found.rows) - 1, min(len(found.rows), MOST_EXAMINATIONS))
    cells = [
        [found.rows[place].images[name] for name in study.data.channels]
        for place in dict.fromkeys(np.rint(spread).astype(int).tolist())
    ]
    locations = [[parse_location(cell, Path) for cell in row] for row in cells]
    return _with_landmarks(study, locations, found.facts.title, found.facts.licence)


def landmarks_of_files(study: Study, files: Sequence[Path]) -> Landmarks:
    """Return a study with the landmarks of images that are named, of a study of one channel.

    Raises:
        InputError: The study has several channels, or no images.
        UnreadableError: An image cannot be used.
    """
    _require_images(study)
    if len(study.data.channels) > 1:
        msg = (
            f"images were named for the channels {', '.join(study.data.channels)}: name images for "
            "a study of one channel, or use its data set."
        )
        raise InputError(msg)
    if missing := next((path for path in files if not path.exists()), None):
        msg = f"there is no image {missing}: give the file of a public image."
        raise InputError(msg)
    what = f"{len(files)} images" if len(files) > 1 else "one image"
    return _with_landmarks(study, [[Location(path)] for path in files], what)


def write_landmarks(found: Landmarks, out: Path | None) -> str:
    """Write the study where a file is named, and return what is said of the landmarks.

    Raises:
        InputError: The file is there already, or cannot be written.
    """
    source = f"{found.reference} ({found.examinations} examinations)"
    asked = found.study.data.harmonisation
    content = {"data": {"harmonisation": asked.model_dump(mode="json")}}
    if out is None:
        return f"# Landmarks of {source}.\n{tomli_w.dumps(content)}"
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(found.study.to_toml())
    except OSError as error:
        msg = f"{out} cannot be written ({error.strerror}): choose another --out."
        raise InputError(msg) from None
    licence = f" Licence of the reference: {found.licence}." if found.licence else ""
    return f"{out} matches images to {source}.{licence}\n"


def _require_images(study: Study) -> None:
    if study.data.kind == "table":
        msg = "landmarks are of images, and data.kind = 'table' has none: choose another study."
        raise InputError(msg)


def _with_landmarks(
    study: Study, examinations: Sequence[Sequence[Location]], reference: str, licence: str = ""
) -> Landmarks:
    totals: list[list[np.ndarray]] = [[] for _ in range(study.data.planes)]
    for locations in examinations:
        for place, found in enumerate(_of_examination(locations, study)):
            if found is not None:
                totals[place].append(found)
    if not all(totals):
        msg = f"plane {totals.index([])} of the reference is empty: choose another reference."
        raise InputError(msg)
    rows = [[round(float(v), 4) for v in np.mean(found, axis=0)] for found in totals]
    changed = with_changes(study, {"data.harmonisation.landmarks": rows})
    return Landmarks(changed, len(examinations), reference, licence)


def _of_examination(locations: Sequence[Location], study: Study) -> Iterator[np.ndarray | None]:
    """Yield the quantiles of each plane of an examination, on the network's grid."""
    data = study.data
    try:
        channels = [readers.read_image(one, data.dimensions, data.colour) for one in locations]
        greys = grey_channels(channels, data)
    except UnreadableError as error:
        msg = f"an image of the reference cannot be used: {error}"
        raise InputError(msg) from None
    for grey in greys:
        for plane in grey[0]:
            even = plane / shading(plane) if data.harmonisation.bias_correction else plane
            yield quantiles(even, data.harmonisation)
