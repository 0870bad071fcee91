"""A segmentation as a DICOM object (SEG, PS3.3 A.51): one binary segment a foreground class."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wardround.client.clinic.pacs.archive import PacsError, silence_libraries
from wardround.client.clinic.pacs.identity import (
    MANUFACTURER,
    NOT_FOR_DIAGNOSIS,
    Algorithm,
    derived_uid,
    series_digest,
)
from wardround.client.clinic.pacs.results.codes import label_of, terms_of
from wardround.client.clinic.pacs.source import Source
from wardround.common.errors import InputError, install_command

if TYPE_CHECKING:
    from pydicom import Dataset

SEG_SERIES_NUMBER, SR_SERIES_NUMBER = 9001, 9002


@dataclass(frozen=True, slots=True)
class ResultNames:
    """The identifiers of a result, known before it is computed.

    Attributes:
        seg: Of the segmentation, and of its series.
        report: Of the structured report, and of its series.
        dimensions: Of how the frames of the segmentation are ordered.
        device: Of the model as a device: the same for all studies.
    """

    seg: str
    seg_series: str
    report: str
    report_series: str
    dimensions: str
    device: str


def result_names(study_uid: str, objects: Sequence[str], algorithm: Algorithm) -> ResultNames:
    """Return the identifiers of what a model says of a series.

    Args:
        objects: Identifiers of the series' objects, in any order.
    """
    digest = series_digest(objects)

    def name(what: str) -> str:
        return derived_uid(study_uid, digest, algorithm, what)

    return ResultNames(
        seg=name("SEG"),
        seg_series=name("SEG series"),
        report=name("SR"),
        report_series=name("SR series"),
        dimensions=name("SEG dimensions"),
        device=derived_uid("", "", algorithm, "device"),
    )


def names_for(source: Source, algorithm: Algorithm) -> ResultNames:
    """Return the identifiers of what a model says of these images."""
    objects = [str(one.SOPInstanceUID) for one in source.datasets]
    return result_names(source.study_uid, objects, algorithm)


def make_segmentation(
    source: Source, labels: NDArray[np.uint8], classes: Sequence[str], algorithm: Algorithm
) -> "Dataset":
    """Return a segmentation of a series.

    Every foreground class is a segment, also one that was found nowhere, and every slice has a
    frame: viewers misplace segments of objects without their empty frames (highdicom#214).

    Args:
        source: The images, sorted.
        labels: (slices, rows, columns) as :func:`in_source_order` gives them, values in
            0 .. ``len(classes)`` - 1.
        classes: K names, background first.

    Raises:
        PacsError: The images are of a kind that no segmentation can refer to.
        InputError: highdicom is not installed.
    """
    import_highdicom()
    import highdicom.seg

    if len(classes) < 2 or int(labels.max(initial=0)) >= len(classes):
        msg = f"a segmentation of {len(classes)} classes has labels beyond them, or nothing to find"
        raise ValueError(msg)
    names = names_for(source, algorithm)
    with repeating("a segmentation"):
        made = highdicom.seg.Segmentation(
            source_images=list(source.datasets),
            pixel_array=labels if source.frames is None or len(labels) > 1 else labels[0],
            segmentation_type="BINARY",
            segment_descriptions=[
                _segment(number, name, names, algorithm)
                for number, name in enumerate(classes[1:], 1)
            ],
            series_instance_uid=names.seg_series,
            series_number=SEG_SERIES_NUMBER,
            sop_instance_uid=names.seg,
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=algorithm.label,
            software_versions=algorithm.version,
            device_serial_number=algorithm.short_digest,
            content_label="WARDROUND",
            content_description=NOT_FOR_DIAGNOSIS,
            omit_empty_frames=False,
        )
    made.SeriesDescription = series_description(algorithm)
    _name_dimensions(made, names.dimensions)
    return made


@contextmanager
def repeating(what: str) -> Iterator[None]:
    """Say it in words where an object cannot repeat what it has to of the images.

    Args:
        what: The object, e.g. "a report".

    Raises:
        PacsError: The images lack it.
    """
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        msg = (
            f"the images of the series lack what {what} has to repeat of them "
            f"({type(error).__name__}): nothing is stored."
        )
        raise PacsError(msg) from None


def series_description(algorithm: Algorithm) -> str:
    """Return what a viewer shows of a series that a model made."""
    return f"{NOT_FOR_DIAGNOSIS}: {algorithm.label}"[:64]


def _segment(number: int, name: str, names: ResultNames, algorithm: Algorithm) -> object:
    import highdicom
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes

    category, kind = terms_of(name)
    return SegmentDescription(
        segment_number=number,
        segment_label=label_of(name),
        segmented_property_category=category.concept,
        segmented_property_type=kind.concept,
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=algorithm.label,
            family=codes.DCM.ArtificialIntelligence,
            version=algorithm.version,
            source=MANUFACTURER,
            parameters={"model": algorithm.digest, "use": NOT_FOR_DIAGNOSIS},
        ),
        tracking_uid=segment_uid(names, number),
        tracking_id=f"segment {number}",
    )


def segment_uid(names: ResultNames, number: int) -> str:
    """Return the identifier under which a segment is tracked from object to object."""
    return f"2.25.{int(names.seg.removeprefix('2.25.')) ^ number}"


def _name_dimensions(made: "Dataset", uid: str) -> None:
    """Have the same result be the same object: highdicom draws this identifier anew each time."""
    for item in made.DimensionOrganizationSequence:
        item.DimensionOrganizationUID = uid
    for item in made.DimensionIndexSequence:
        item.DimensionOrganizationUID = uid


def import_highdicom() -> None:
    """Import it, or say how to get it.

    Raises:
        InputError: It is not installed.
    """
    try:
        import highdicom  # noqa: F401 # slow, so only here
    except ImportError:
        msg = f"highdicom is missing. Install it: {install_command('pacs')}"
        raise InputError(msg) from None
    silence_libraries()
