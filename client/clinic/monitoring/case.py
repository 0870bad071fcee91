"""What is kept of one examination: numbers, and nothing that names a patient or a file."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from wardround.client.clinic.inference.prediction import (
    Classified,
    Detected,
    Estimated,
    Prediction,
)


@dataclass(frozen=True, slots=True)
class Case:
    """One examination that a model has seen.

    Attributes:
        key: Of its file or series: a keyed hash, whose key never leaves the site's folder.
        state: Of the file as it lay there: the same file again is not counted twice.
        scanner: As the manifest or the DICOM header says; "" where neither does.
        looks: Image statistics, or a table's values, by name.
        outputs: What the model said, by name: probabilities of classes, volumes, counts, numbers.
        found: The most probable class; of a multi-label study those that were reported.
        confidence: The highest probability, or the best score of a box; NaN where there is none.
        entropy: Of the prediction, 0 (certain) to 1; NaN where it is not known.
        outside: Whether the model was not made for it.
    """

    key: str
    state: str
    scanner: str
    looks: Mapping[str, float]
    outputs: Mapping[str, float]
    found: tuple[str, ...] = ()
    confidence: float = math.nan
    entropy: float = math.nan
    outside: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as a line of a table holds it; what is not known is null."""
        content = asdict(self)
        for name in ("confidence", "entropy"):
            value = content[name]
            content[name] = value if math.isfinite(value) else None
        return content


def case_from_json(content: Mapping[str, Any]) -> Case:
    """Return a case as :meth:`Case.as_json` wrote it.

    Raises:
        KeyError, TypeError, ValueError: It is not one.
    """
    known = {name: content[name] for name in Case.__slots__}
    for name in ("confidence", "entropy"):
        known[name] = math.nan if known[name] is None else float(known[name])
    for name in ("looks", "outputs"):
        known[name] = {str(key): float(value) for key, value in known[name].items()}
    return Case(**{**known, "found": tuple(map(str, known["found"]))})


@dataclass(frozen=True, slots=True)
class Said:
    """What a model said of one examination, in the numbers that are kept."""

    outputs: Mapping[str, float]
    found: tuple[str, ...] = ()
    confidence: float = math.nan
    entropy: float = math.nan


def said_by(prediction: Prediction, multi_label: bool) -> Said:
    """Return the numbers of a prediction.

    Args:
        multi_label: Whether the study's classes go together.
    """
    if isinstance(prediction, Classified):
        named = dict(zip(prediction.classes, prediction.probabilities, strict=True))
        found = prediction.found if multi_label else (max(named, key=named.__getitem__),)
        return Said(named, found, max(named.values()), prediction.entropy)
    if isinstance(prediction, Estimated):
        return Said(dict(zip(prediction.names, prediction.values, strict=True)))
    if isinstance(prediction, Detected):
        counts = zip(prediction.classes, map(float, prediction.counts), strict=True)
        scores = [box.score for box in prediction.boxes]
        return Said(
            {f"boxes of {name}": count for name, count in counts},
            confidence=max(scores, default=math.nan),
        )
    total = max(sum(prediction.voxels), 1)
    shares = [100.0 * count / total for count in prediction.voxels]
    volumes = prediction.volumes_ml
    unit, sizes = ("ml", volumes) if volumes is not None else ("% of the image", shares)
    outputs = {
        f"{name} ({unit})": float(size)
        for name, size in zip(prediction.classes[1:], sizes[1:], strict=True)
    }
    found = tuple(
        name
        for name, count in zip(prediction.classes[1:], prediction.voxels[1:], strict=True)
        if count
    )
    entropy = math.nan if prediction.entropy is None else prediction.entropy
    return Said(outputs, found, entropy=entropy)
