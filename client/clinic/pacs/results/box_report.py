"""A structured report (SR, TID 1500) of boxes: how many of each class, and where each lies.

In a picture a box is a rectangle in columns and rows (TID 1410). In a volume it is a closed surface
of six faces in millimetres of the patient (TID 1411), right for slices that lie at any angle.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wardround.client.clinic.pacs.archive import PacsError, value_of
from wardround.client.clinic.pacs.identity import Algorithm
from wardround.client.clinic.pacs.results.codes import COUNT, NO_UNIT, SCORE, terms_of
from wardround.client.clinic.pacs.results.report import (
    algorithm_id,
    make_report,
    measured_images,
    rounded,
)
from wardround.client.clinic.pacs.results.segmentation import (
    ResultNames,
    import_highdicom,
    names_for,
    segment_uid,
)
from wardround.client.clinic.pacs.source import Source

if TYPE_CHECKING:
    from pydicom import Dataset

_LPS = np.array([-1.0, -1.0, 1.0])  # DICOM counts to the left and to the back


class PlacedBox(Protocol):
    """A thing that was found: its class, its score, and its corners in edges of voxels."""

    @property
    def name(self) -> str:
        """Of its class."""

    @property
    def score(self) -> float:
        """How sure the model is, 0 to 1."""

    @property
    def low(self) -> tuple[float, ...]:
        """First corner: of a picture (x, y), of a volume the axes of its array."""

    @property
    def high(self) -> tuple[float, ...]:
        """Last corner; the voxel there is outside."""


class BoxesOfImage(Protocol):
    """What was found in an image: as a prediction says it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """K names."""

    @property
    def boxes(self) -> Sequence[PlacedBox]:
        """By falling score."""

    @property
    def threshold(self) -> float:
        """From which score on a box is reported."""

    @property
    def counts(self) -> tuple[int, ...]:
        """How many boxes of each class have at least that score."""

    @property
    def affine(self) -> NDArray[Any] | None:
        """4x4, from the image's voxels to RAS millimetres; None where nothing says."""


def report_boxes(source: Source, found: BoxesOfImage, algorithm: Algorithm) -> "Dataset":
    """Return a report of the boxes from the model's threshold on, and of how many there are.

    A class of which nothing was found stands there with the count 0.

    Raises:
        PacsError: The images do not say where they lie, or lack what a report has to repeat.
    """
    import_highdicom()
    from highdicom.sr import (
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        TrackingIdentifier,
    )

    names = names_for(source, algorithm)
    images = measured_images(source)
    groups: list[object] = []
    for number, (name, count) in enumerate(zip(found.classes, found.counts, strict=True), 1):
        measured = Measurement(name=COUNT.concept, value=count, unit=NO_UNIT.concept)
        groups.append(
            MeasurementsAndQualitativeEvaluations(
                tracking_identifier=TrackingIdentifier(
                    uid=segment_uid(names, number), identifier=f"class {number}"
                ),
                **_finding(name, algorithm),
                measurements=[measured],
                source_images=images,
            )
        )
    told = [box for box in found.boxes if box.score >= found.threshold]
    groups += _boxes(told, found.affine, source, (names, algorithm, len(found.classes)))
    in_space = bool(told) and len(told[0].low) == 3
    return make_report(source, groups, names, algorithm, list(source.datasets), in_space=in_space)


def _finding(name: str, algorithm: Algorithm) -> dict[str, Any]:
    category, kind = terms_of(name)
    return {
        "finding_category": category.concept,
        "finding_type": kind.concept,
        "algorithm_id": algorithm_id(algorithm),
    }


def _boxes(
    boxes: Sequence[PlacedBox],
    affine: NDArray[np.float64] | None,
    source: Source,
    of: tuple[ResultNames, Algorithm, int],
) -> Iterator[object]:
    """Yield a group a box: its class, its score and its place."""
    from highdicom.sr import (
        Measurement,
        PlanarROIMeasurementsAndQualitativeEvaluations,
        TrackingIdentifier,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )

    names, algorithm, before = of
    for number, box in enumerate(boxes, 1):
        said: dict[str, Any] = {
            "tracking_identifier": TrackingIdentifier(
                uid=segment_uid(names, before + number), identifier=f"box {number}"
            ),
            **_finding(box.name, algorithm),
            "measurements": [
                Measurement(name=SCORE.concept, value=rounded(box.score), unit=NO_UNIT.concept)
            ],
        }
        if len(box.low) == 2:
            region = _rectangle(box, source)
            yield PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **said)
        else:
            yield VolumetricROIMeasurementsAndQualitativeEvaluations(
                referenced_volume_surface=_surface(box, affine, source), **said
            )


def _rectangle(box: PlacedBox, source: Source) -> Any:
    """Return the edge of a box in columns and rows; (0, 0) is the corner of the first pixel."""
    from highdicom.sr import ImageRegion, SourceImageForRegion

    if len(source.datasets) != 1 or source.frames is not None:
        msg = "boxes of a picture were found, and the series has several: nothing is stored."
        raise PacsError(msg)
    (left, top), (right, bottom) = box.low, box.high
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    image = source.datasets[0]
    return ImageRegion(
        graphic_type="POLYLINE",
        graphic_data=np.array(corners),
        source_image=SourceImageForRegion(str(image.SOPClassUID), str(image.SOPInstanceUID)),
    )


def _surface(box: PlacedBox, affine: NDArray[np.float64] | None, source: Source) -> Any:
    """Return the six faces of a box in millimetres of the patient."""
    from highdicom.sr import SourceSeriesForSegmentation, VolumeSurface

    frame = value_of(source.datasets[0], "FrameOfReferenceUID")
    if affine is None or not frame:
        msg = "the images do not say where they lie in the patient, so no box can be reported."
        raise PacsError(msg)
    faces = [_in_space(face, affine) for face in _faces(box)]
    return VolumeSurface(
        graphic_type="POLYGON",
        graphic_data=faces,
        frame_of_reference_uid=frame,
        source_series=SourceSeriesForSegmentation(source.series_uid),
    )


def _faces(box: PlacedBox) -> Iterator[NDArray[np.float64]]:
    """Yield each face as five corners ``(5, 3)`` in edges of voxels, the last one the first."""
    ends = np.array([box.low, box.high])
    for axis, end in product(range(3), (0, 1)):
        others = [one for one in range(3) if one != axis]
        face = np.empty((5, 3))
        face[:, axis] = ends[end, axis]
        for at, turn in enumerate(((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))):
            face[at, others] = ends[turn, others]
        yield face


def _in_space(corners: NDArray[np.float64], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return corners in millimetres of the patient, as DICOM counts them."""
    voxels = corners - 0.5  # voxel 3 reaches from 3 to 4 in a box, and from 2.5 to 3.5 in an affine
    placed: NDArray[np.float64] = (voxels @ affine[:3, :3].T + affine[:3, 3]) * _LPS
    return placed
