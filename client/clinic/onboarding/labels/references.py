"""To which series a segmentation or a structure set refers, and which regions it names."""

from collections.abc import Iterator

from pydicom.dataset import Dataset

from wardround.client.clinic.onboarding.archive_images.series import text_of

_DEEPEST = 12


def refers_to(mask: Dataset, series_uid: str, image_uids: frozenset[str]) -> bool:
    """Whether a mask names a series, or images of it, anywhere in its references."""
    for item in _items(mask, 0):
        if text_of(item, "SeriesInstanceUID") == series_uid and item is not mask:
            return True
        if text_of(item, "ReferencedSOPInstanceUID") in image_uids:
            return True
    return False


def region_names(mask: Dataset) -> frozenset[str]:
    """Return the names of its segments or structures."""
    segments = [text_of(item, "SegmentLabel") for item in mask.get("SegmentSequence") or ()]
    structures = [text_of(item, "ROIName") for item in mask.get("StructureSetROISequence") or ()]
    return frozenset(segments + structures)


def _items(item: Dataset, depth: int) -> Iterator[Dataset]:
    yield item
    if depth > _DEEPEST:
        return
    for element in item:
        if element.VR == "SQ":
            for child in element.value or ():
                yield from _items(child, depth + 1)
