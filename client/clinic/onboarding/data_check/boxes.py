"""What the boxes of a site hold: how many of each class, and those that are no box of an image."""

from collections import Counter
from collections.abc import Callable, Sequence

from wardround.client.clinic.onboarding.data_check.findings import Counts, Finding, Status, found
from wardround.client.clinic.onboarding.data_check.looks import Look
from wardround.client.clinic.onboarding.data_check.subjects import Subject
from wardround.client.data.boxes import BoxCounts, usable_boxes
from wardround.client.data.manifest.label_words import label_words
from wardround.client.data.reading.boxes.reader import read_boxes
from wardround.client.data.reading.image import Image
from wardround.client.site.folder import Site
from wardround.common.study.study import Study

NAME = "boxes"
Looked = Sequence[tuple[Subject, Look]]

# What may be said of boxes: the count of BoxCounts, whether training is refused, fact, remedy.
_SAID = (
    (
        "unknown",
        True,
        "are of a class that the study does not list",
        "add it to data.classes, or to [labels.words] of site.toml.",
    ),
    ("outside", True, "lie outside their image", "write x before y, in voxels of the image."),
    (
        "reversed",
        True,
        "have the last corner before the first",
        "write first x0, y0, then x1, y1.",
    ),
    ("sizeless", False, "have no size, and are left out", "draw them anew, or take them out."),
    ("cut", False, "reach over the edge of their image, and are cut off there", ""),
    ("other", False, "are of no class of the study, or of a crowd, and are left out", ""),
)


def counter_of(site: Site, study: Study) -> Callable[[Subject, Image], BoxCounts | None]:
    """Return what counts the boxes of one examination, given its first channel as it was read."""
    words = label_words(site, study)

    def count(subject: Subject, image: Image) -> BoxCounts | None:
        source = next(iter(subject.images.values()), None)
        if subject.boxes is None or source is None:
            return None
        found_boxes = read_boxes(subject.boxes, image, source, study.data, words.classes)
        return usable_boxes(found_boxes, image.array.shape[1:], words, study)[1]

    return count


def check_boxes(looked: Looked) -> list[Finding]:
    """Return what is to be said of boxes: unusable ones with their rows, images without any."""
    counted = [(subject.row, look.boxes) for subject, look in looked if look.boxes is not None]
    if not counted:
        return []
    findings = []
    for name, refuses, what, remedy in _SAID:
        rows = [row for row, counts in counted if getattr(counts, name)]
        if rows:
            total = sum(int(getattr(counts, name)) for _, counts in counted)
            status: Status = "fault" if refuses else "look"
            findings.append(found(NAME, status, f"{total} boxes {what}", remedy, rows))
    if misfits := [row for row, counts in counted if counts.misfit]:
        fact = "files say another size of the image than the image has"
        findings.append(found(NAME, "fault", fact, "take the boxes of this image.", misfits))
    without = [row for row, counts in counted if not counts.classes.total()]
    if without:
        fact = f"{len(without)} of {len(counted)} images have no box"
        remedy = "is nothing there, or was nobody asked?"
        findings.append(found(NAME, "look", fact, remedy, without))
    if not findings:
        total = sum(counts.classes.total() for _, counts in counted)
        findings.append(Finding(NAME, "ok", f"all {total} lie within their images"))
    return findings


def count_boxes(looked: Looked, study: Study | None) -> list[Counts]:
    """Return how many boxes of each class each part has."""
    if study is None or not any(look.boxes for _, look in looked):
        return []
    parts = list(dict.fromkeys(subject.part for subject, _ in looked))
    held: dict[str, Counter[str]] = {part: Counter() for part in parts}
    for subject, look in looked:
        if look.boxes is not None:
            held[subject.part] += look.boxes.classes
    bars = tuple(
        (name, tuple(float(held[part][name]) for part in parts)) for name in study.data.classes
    )
    shown = tuple(part or "part not known" for part in parts)
    return [Counts("Boxes of each class, in each part.", shown, bars, "boxes")]
