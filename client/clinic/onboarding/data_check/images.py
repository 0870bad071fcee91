"""What the images of a site have in common, and which differ: size, space, intensities, masks."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from wardround.client.clinic.onboarding.data_check.findings import Finding, found
from wardround.client.clinic.onboarding.data_check.looks import Look
from wardround.client.clinic.onboarding.data_check.subjects import Subject
from wardround.common.study.study import Study

OUTLYING = 6.0  # robust standard deviations: of 10,000 normal values none
_FEW = 0.05  # of the examinations: what so few have is pointed at
_FEWEST = 8  # values under which nothing can be called an outlier
Looked = Sequence[tuple[Subject, Look]]


def check_files(looked: Looked, optional: Sequence[str] = ()) -> list[Finding]:
    """Return what is to be said of files that cannot be read, and channels that are not there.

    Args:
        optional: Channels that an examination may lack; :func:`check_missing` counts them.
    """
    by_fault: dict[str, list[int]] = {}
    for subject, look in looked:
        if look.fault:
            by_fault.setdefault(look.fault, []).append(subject.row)
    findings = []
    for fault, rows in by_fault.items():
        fact, _, remedy = fault.partition(": ")
        findings.append(found("files", "fault", f"{fact} ({len(rows)})", remedy, rows))
    findings = findings or [Finding("files", "ok", f"all {len(looked)} examinations can be read")]
    for channel in sorted({name for _, look in looked for name in look.missing} - {*optional}):
        rows = [subject.row for subject, look in looked if channel in look.missing]
        fact = f"the channel {channel} is missing"
        findings.append(found("channels", "fault", fact, "name a file, or drop the row.", rows))
    for channel in sorted({name for _, look in looked for name in look.blank}):
        rows = [subject.row for subject, look in looked if channel in look.blank]
        fact = f"the channel {channel} holds one value alone"
        findings.append(found("channels", "look", fact, "look at the files.", rows))
    return findings


def check_space(looked: Looked, study: Study | None) -> list[Finding]:
    """Return what is to be said of sizes, voxel sizes and orientations."""
    same_size = study is not None and (
        study.input_size is not None or study.training.batch_size == 1
    )
    return [
        _rare("sizes", looked, lambda look: look.shape or None, "x", matters=not same_size),
        _rare("voxel sizes", looked, _spacing, " x ", unit=" mm"),
        _rare("orientations", looked, lambda look: look.axes or None, ""),
    ]


def _spacing(look: Look) -> tuple[float, ...] | None:
    return None if look.spacing is None else tuple(float(f"{one:.3g}") for one in look.spacing)


def _rare(
    name: str,
    looked: Looked,
    value: Callable[[Look], Hashable | None],
    between: str,
    unit: str = "",
    matters: bool = True,
) -> Finding:
    """Return how many values there are, and who has one that few have."""
    values = [(subject.row, one) for subject, look in looked if (one := value(look)) is not None]
    if not values:
        return Finding(name, "ok", "the files do not say any")
    counts = Counter(one for _, one in values)
    usual, often = counts.most_common(1)[0]
    shown = in_words(usual, between)
    if len(counts) == 1:
        return Finding(name, "ok", f"all are {shown}{unit}")
    rare = [row for row, one in values if counts[one] <= max(1, _FEW * len(values))]
    rare = rare if often > len(values) / 2 else []  # where all differ, nobody is an exception
    fact = f"{len(counts)} different, of which {shown}{unit} is the most frequent ({often})"
    if not rare or not matters:
        if not matters:
            return Finding(name, "ok", fact)
        remedy = "the study makes them alike: data.size or training.patch_size."
        return Finding(name, "look", fact, remedy if name == "sizes" else "")
    fact = f"{fact}; what few others have"
    return found(name, "look", fact, "look whether they are the examinations you meant.", rare)


def in_words(value: Hashable, between: str) -> str:
    """Return a size or a word."""
    return between.join(f"{one:g}" for one in value) if isinstance(value, tuple) else str(value)


def check_intensities(looked: Looked) -> list[Finding]:
    """Return who lies far from the others in the darkest, middle or brightest intensities."""
    channels = sorted({name for _, look in looked for name in look.levels})
    findings = []
    for channel in channels:
        held = [(s.row, look.levels[channel]) for s, look in looked if channel in look.levels]
        rows: set[int] = set()
        for place in range(3):
            far = far_from_others([levels[place] for _, levels in held])
            rows |= {held[index][0] for index in far}
        name = "intensities" if len(channels) == 1 else f"intensities of {channel}"
        if rows:
            fact = (
                f"{len(rows)} lie more than {OUTLYING:g} robust standard deviations from the rest"
            )
            remedy = "look at the unit, the window and the scanner of these."
            findings.append(found(name, "look", fact, remedy, sorted(rows)))
        else:
            findings.append(Finding(name, "ok", "none lies far from the rest"))
    return findings


def far_from_others(values: Sequence[float]) -> list[int]:
    """Return the places of values far from the median, in robust standard deviations.

    The spread is 1.4826 times the median distance from the median; where more than half of the
    values are the same, the mean distance of the others.
    """
    array = np.array(values, dtype=np.float64)
    if len(array) < _FEWEST:
        return []
    distance = np.abs(array - np.median(array))
    spread = 1.4826 * float(np.median(distance))
    if spread == 0:
        spread = float(distance[distance > 0].mean()) if (distance > 0).any() else math.inf
    return np.flatnonzero(distance > OUTLYING * spread).tolist()


def check_masks(looked: Looked, study: Study | None) -> list[Finding]:
    """Return what is to be said of masks: empty ones, values that are no class, sizes."""
    masked = [(s, look) for s, look in looked if look.labels is not None]
    if not masked:
        return []
    findings = []
    empty = [s.row for s, look in masked if not any(v for v in look.labels or {})]
    if empty:
        fact = f"{len(empty)} of {len(masked)} masks are empty"
        findings.append(
            found("masks", "look", fact, "is nothing there, or was nobody asked?", empty)
        )
    sizes = [s.row for s, look in masked if look.shape and look.mask_shape != _without_ones(look)]
    if sizes:
        fact = "masks have another size than their image"
        findings.append(found("masks", "fault", fact, "give them the image's grid.", sizes))
    if study is not None:
        known = set(range(study.class_count)) | {getattr(study.data, "ignore_label", None)}
        other = [s.row for s, look in masked if not set(look.labels or {}) <= known]
        white = [s.row for s, look in masked if set(look.labels or {}) <= {0.0, 255.0}]
        if wrong := sorted(set(other) - set(white if study.class_count == 2 else [])):
            fact = f"masks hold values that are none of the study's {study.class_count} classes"
            findings.append(found("masks", "fault", fact, "map them to the classes.", wrong))
    return findings or [
        Finding("masks", "ok", f"all {len(masked)} hold a class, on a fitting grid")
    ]


def _without_ones(look: Look) -> tuple[int, ...]:
    return tuple(size for size in look.shape if size > 1)
