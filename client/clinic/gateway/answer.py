"""One study answered: asked whether it is, fetched, predicted, and the results stored.

Each step may be the last one of this process. Done again, it finds what is in the archive already:
the identifiers of a result follow from study, series and model.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from wardround.client.clinic.gateway.incoming import IncomingFolder
from wardround.client.clinic.gateway.queue import Work
from wardround.client.clinic.inference.prediction import (
    Classified,
    Detected,
    Estimated,
    Prediction,
    Segmented,
)
from wardround.client.clinic.inference.predictor import Predictor
from wardround.client.clinic.pacs.archive import Archive, PacsError
from wardround.client.clinic.pacs.identity import Algorithm, series_digest
from wardround.client.clinic.pacs.results.box_report import report_boxes
from wardround.client.clinic.pacs.results.fhir import make_fhir
from wardround.client.clinic.pacs.results.report import report_classes, report_volumes, rounded
from wardround.client.clinic.pacs.results.segmentation import (
    ResultNames,
    make_segmentation,
    result_names,
)
from wardround.client.clinic.pacs.source import Source, in_source_order, read_source
from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.image import Image, fill_absent
from wardround.client.data.reading.readers import read_image
from wardround.common.errors import DataError, InputError
from wardround.common.files.atomic import make_private_folder, replace_file
from wardround.common.study.sections.data import DataSection
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from pydicom import Dataset


NO_NUMBERS = (
    "the model estimates a number or a time, and a result in an archive has classes or masks: "
    "name another model, or use 'wardround predict', which writes a table."
)


Watch: TypeAlias = Callable[[tuple[str, str], Source, Sequence[Image], Prediction], None]
"""Is shown a series and a digest of its objects, its header and image, and what was said of it."""


class RefusedError(PacsError):
    """A series is not one that the model can answer; another try changes nothing."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What answering needs.

    Attributes:
        spool: Where the images of the study in hand lie.
        results: Where results are kept as FHIR resources; None to keep none.
        watch: Is shown what each new study is like; None where nobody monitors.
    """

    archive: Archive
    predictor: Predictor
    incoming: IncomingFolder | None
    spool: Path
    results: Path | None
    watch: Watch | None = None

    @property
    def algorithm(self) -> Algorithm:
        """The model, as results name it, with what no series of an archive can give it."""
        contract, data = self.predictor.contract, self.predictor.study.data
        others = [name for name in data.optional_channels if name != served_channel(data)]
        missing = (*data.optional_covariates, *others)
        return Algorithm(contract.name, self.predictor.digest, missing=missing)


def served_channel(data: DataSection) -> str:
    """Return which channel a series is: the only one that an examination may not lack.

    Raises:
        InputError: It could be one of several.
    """
    needed = [name for name in data.channels if name not in data.optional_channels]
    if len(data.channels) == 1 or len(needed) == 1:
        return (needed or list(data.channels))[0]
    if needed:
        msg = (
            f"the model needs the images {', '.join(needed)} of an examination, and a series is "
            "one of them: name another model, or use 'wardround predict' with a manifest."
        )
        raise InputError(msg)
    msg = (
        f"a series could be any of {', '.join(data.channels)}, which the model may lack: name a "
        "model that needs one of them, or use 'wardround predict' with a manifest."
    )
    raise InputError(msg)


def require_servable(study: Study) -> None:
    """Refuse a model that cannot answer a series, before one is asked for.

    Raises:
        InputError: It needs more than a series has, or gives what an archive does not take.
    """
    data = study.data
    if data.kind == "table":
        msg = "the model reads tables, and an archive holds images: name another model."
        raise InputError(msg)
    if study.task.outcome:
        raise InputError(NO_NUMBERS)
    needed = [one.name for one in data.covariates if one.name not in data.optional]
    if needed:
        msg = (
            f"the model needs {', '.join(needed)}, which is not read from images: name a model "
            "that may lack it (data.optional), or use 'wardround predict' with a manifest."
        )
        raise InputError(msg)
    served_channel(data)


def answer(work: Work, desk: Desk) -> bool:
    """Answer one entry of the queue; return whether it was not answered before.

    Raises:
        RefusedError: The series is not one that the model was made for.
        PacsError: The archive refuses, or PacsAwayError: it is away.
    """
    listed = [one.uid for one in desk.archive.find_objects(work.study, work.series)]
    paths = _received(work, desk, listed)
    objects = listed if paths is None else [uid for uid, _ in paths]
    if series_digest(objects) != work.objects:
        msg = "the series has changed since it was found: what it is now is an entry of its own."
        raise RefusedError(msg)
    names = result_names(work.study, objects, desk.algorithm)
    missing = missing_results(work.study, names, desk)
    if not missing:
        return False
    files = [path for _, path in paths] if paths is not None else fetch_images(work, desk)
    source = read_source(files)
    prediction, images = predict_series(source, files, desk)
    made = make_objects(source, prediction, desk.algorithm)
    # Before the objects: once these are all in the archive, the study is never done again.
    if desk.results is not None:
        keep_fhir(source, made, prediction, desk, desk.results / names.report)
    for one in made:
        if str(one.SOPInstanceUID) in missing:
            store_object(one, desk)
    # Last: a study that fails is done again, and shall count once.
    if desk.watch is not None:
        desk.watch((work.series, work.objects), source, images, prediction)
    return True


def missing_results(study: str, names: ResultNames, desk: Desk) -> set[str]:
    """Return the identifiers of the results that the archive does not hold."""
    wanted = {names.report: names.report_series}
    if desk.predictor.study.task.dense:
        wanted[names.seg] = names.seg_series
    held = {
        found.uid
        for series in wanted.values()
        for found in desk.archive.find_objects(study, series)
    }
    return set(wanted) - held


def fetch_images(work: Work, desk: Desk) -> list[Path]:
    """Fetch the series into an empty folder; what an earlier try left there is removed."""
    shutil.rmtree(desk.spool, ignore_errors=True)
    return desk.archive.fetch_series(work.study, work.series, desk.spool)


def predict_series(
    source: Source, files: Sequence[Path], desk: Desk
) -> tuple[Prediction, list[Image]]:
    """Return what the model says of a series, and its image as it was read, a channel each.

    Raises:
        RefusedError: It is not one that the model was made for; says why.
    """
    data = desk.predictor.study.data
    place = files[0] if data.dimensions == 2 and len(files) == 1 else files[0].parent
    try:
        image = read_image(Location(place), data.dimensions, data.colour)
        served = served_channel(data)
        images = fill_absent([image if name == served else None for name in data.channels])
        values = ("",) * len(data.covariates)
        prediction = desk.predictor.predict(images, values, source.modality or None)
        return prediction, list(images)
    except DataError as error:
        raise RefusedError(str(error)) from None


def make_objects(source: Source, prediction: Prediction, algorithm: Algorithm) -> list["Dataset"]:
    """Return the objects of a result: a report, and a segmentation before it where there is one."""
    if isinstance(prediction, Classified):
        report = report_classes(
            source, prediction.classes, prediction.probabilities, prediction.found, algorithm
        )
        return [report]
    if isinstance(prediction, Detected):
        return [report_boxes(source, prediction, algorithm)]
    if isinstance(prediction, Estimated):
        raise RefusedError(NO_NUMBERS)
    labels = in_source_order(prediction.labels, prediction.affine, source)
    segmentation = make_segmentation(source, labels, prediction.classes, algorithm)
    voxels = np.bincount(labels.ravel(), minlength=len(prediction.classes)).tolist()
    report = report_volumes(source, segmentation, prediction.classes, voxels, algorithm)
    return [segmentation, report]


def store_object(one: "Dataset", desk: Desk) -> None:
    """Store one object, and look by a query whether it is there."""
    desk.archive.store([one])


def keep_fhir(
    source: Source, made: Sequence["Dataset"], prediction: Prediction, desk: Desk, folder: Path
) -> None:
    """Write the result as FHIR resources into the site folder."""
    resources = make_fhir(source, made, _sentences(source, prediction), desk.algorithm)
    make_private_folder(folder)
    for name, text in (
        ("imaging-study", resources.imaging_study),
        ("diagnostic-report", resources.report),
        ("device", resources.device),
    ):
        replace_file(folder / f"{name}.json", text)


def _sentences(source: Source, prediction: Prediction) -> list[str]:
    if isinstance(prediction, Segmented):
        millilitres = source.voxel_ml or 0.0
        pairs = zip(prediction.classes[1:], prediction.voxels[1:], strict=True)
        return [f"{name}: {rounded(voxels * millilitres):g} ml." for name, voxels in pairs]
    if isinstance(prediction, Detected):
        counts = zip(prediction.classes, prediction.counts, strict=True)
        return [f"{name}: {count} found." for name, count in counts]
    if isinstance(prediction, Estimated):
        raise RefusedError(NO_NUMBERS)
    pairs_of = zip(prediction.classes, prediction.probabilities, strict=True)
    return [f"{name}: probability {rounded(value):g}." for name, value in pairs_of]


def _received(work: Work, desk: Desk, listed: Sequence[str]) -> list[tuple[str, Path]] | None:
    """Return the objects that were sent, by identifier; None to take those of the archive.

    Where the archive holds others than were sent, it knows better: a sender may still be at it.
    """
    if desk.incoming is None:
        return None
    place = desk.incoming.place(work.study, work.series)
    if not place.is_dir():
        return None
    paths = sorted(place.glob("*.dcm"))
    named = object_uids(paths)
    if series_digest(named) != work.objects or (listed and set(listed) != set(named)):
        return None
    return list(zip(named, paths, strict=True))


def object_uids(paths: Sequence[Path]) -> list[str]:
    """Return the identifiers of the objects in files that were received."""
    import pydicom

    try:
        return [
            str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
            for path in paths
        ]
    except Exception as error:  # of a foreign file anything may be wrong
        msg = f"an object that was sent is no valid DICOM ({type(error).__name__})."
        raise PacsError(msg) from None
