"""Segmentations as a reader's viewer stores them: a new series of the same study."""

from collections.abc import Sequence

import highdicom
import highdicom.seg
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from wardround.client.clinic.pacs.results.codes import terms_of
from wardround.client.clinic.pacs.source import sort_source


def drawn_segmentation(
    series: Sequence[pydicom.Dataset],
    labels: NDArray[np.uint8],
    term: str,
    label: str = "",
    kind: str = "MANUAL",
    creator: str = "Reader^Ada",
) -> pydicom.Dataset:
    """Return a segmentation of one segment.

    Args:
        labels: ``(slices, rows, columns)``, slices in order of position.
        term: The class whose code the segment has.
        label: What the segment is called; the class if left out.
        kind: MANUAL, SEMIAUTOMATIC or AUTOMATIC.
        creator: Whom it names as who made it.
    """
    category, meant = terms_of(term)
    program = highdicom.AlgorithmIdentificationSequence(
        name="brush", family=codes.DCM.ArtificialIntelligence, version="1"
    )
    return highdicom.seg.Segmentation(
        source_images=list(sort_source(series).datasets),
        pixel_array=labels,
        segmentation_type="BINARY",
        segment_descriptions=[
            highdicom.seg.SegmentDescription(
                segment_number=1,
                segment_label=label or term,
                segmented_property_category=category.concept,
                segmented_property_type=meant.concept,
                algorithm_type=kind,
                algorithm_identification=None if kind == "MANUAL" else program,
            )
        ],
        series_instance_uid=generate_uid(),
        series_number=300,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="a viewer",
        manufacturer_model_name="viewer",
        software_versions="1",
        device_serial_number="1",
        content_creator_name=creator,
        omit_empty_frames=False,
    )
