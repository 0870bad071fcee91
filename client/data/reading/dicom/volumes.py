"""Several volumes in one series: echoes, time points, cardiac phases, stacks. Never one stacked."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from wardround.client.data.reading.dicom.frames import Frame
from wardround.client.data.reading.dicom.series import Choice
from wardround.client.data.reading.image import UnreadableError

_SAME_PLACE = 0.01  # millimetres
_SAME_DIRECTION = 1e-3  # of unit vectors
# What tells volumes of one series apart, the surest first: (in words, functional group, element).
_TELLERS = (
    ("stack", "FrameContentSequence", "StackID"),
    ("time point", "FrameContentSequence", "TemporalPositionIndex"),
    ("time point", "", "TemporalPositionIdentifier"),
    ("diffusion weighting", "MRDiffusionSequence", "DiffusionBValue"),
    ("echo time", "MREchoSequence", "EffectiveEchoTime"),
    ("echo time", "", "EchoTime"),
    ("echo", "", "EchoNumbers"),
    ("inversion time", "", "InversionTime"),
    ("flip angle", "", "FlipAngle"),
    ("cardiac phase", "CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    ("cardiac phase", "", "NominalPercentageOfCardiacPhase"),
    ("cardiac phase", "", "TriggerTime"),
    ("part of a complex number", "MRImageFrameTypeSequence", "ComplexImageComponent"),
    ("part of a complex number", "", "ComplexImageComponent"),
    ("image type", "MRImageFrameTypeSequence", "FrameType"),
    ("image type", "CTImageFrameTypeSequence", "FrameType"),
    ("image type", "", "ImageType"),
    ("reconstruction kernel", "", "ConvolutionKernel"),
    ("tube voltage", "", "KVP"),
    ("acquisition", "FrameContentSequence", "FrameAcquisitionNumber"),
    ("acquisition", "", "AcquisitionNumber"),
    ("temporal position", "", "FrameReferenceTime"),
    ("acquisition time", "", "AcquisitionTime"),
    ("time of the image", "", "ContentTime"),
)


def one_volume(frames: list[Frame], choice: Choice) -> list[Frame]:
    """Return the frames of one volume: all, or those of the one that is chosen.

    Raises:
        UnreadableError: Places stand more than once and no volume is chosen, or the frames do not
            fall into volumes.
    """
    counts = Counter(_places(frames))
    times = set(counts.values())
    if times <= {1} and _has_one_stack(frames):
        if choice.volume not in (None, 0):
            msg = f"there is one volume, and no volume {choice.volume}: mend the number."
            raise UnreadableError(msg)
        return frames
    word, volumes = _told_apart(frames)
    if not volumes:
        low, high = min(times), max(times)
        often = f"{high} times" if low == high else f"{low} to {high} times"
        msg = (
            f"its {len(frames)} slices lie at {len(counts)} places, each {often}, and nothing in "
            "their headers tells whole volumes apart: keep one volume a folder."
        )
        raise UnreadableError(msg)
    if choice.volume is None:
        sizes = sorted({len(volume) for volume in volumes})
        size = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        msg = (
            f"it holds {len(volumes)} volumes of {size} slices, which differ in {word}: keep one "
            f"volume, or name one (0 to {len(volumes) - 1}) in the cell, as in SERIES#volume=0."
        )
        raise UnreadableError(msg)
    if choice.volume >= len(volumes):
        msg = (
            f"there are {len(volumes)} volumes, counted from 0, and no volume {choice.volume}: "
            "mend the number."
        )
        raise UnreadableError(msg)
    return volumes[choice.volume]


def _places(frames: Sequence[Frame]) -> list[tuple[int, ...]]:
    """Return a key of each frame's place, the same for frames at one place."""
    keys: list[tuple[int, ...]] = []
    turns: dict[bytes, tuple[int, ...]] = {}
    for number, frame in enumerate(frames):
        position, normal = frame.place.position, frame.place.normal
        if position is None:
            keys.append((number,))
        elif normal is None:
            keys.append(tuple(np.round(position / _SAME_PLACE).astype(int).tolist()))
        else:
            turn = turns.get(normal.tobytes())
            if turn is None:
                turn = tuple(np.round(normal / _SAME_DIRECTION).astype(int).tolist())
                turns[normal.tobytes()] = turn
            keys.append((*turn, round(float(position @ normal) / _SAME_PLACE)))
    return keys


def _has_one_stack(frames: Sequence[Frame]) -> bool:
    stacks = {
        str(frame.header.get("FrameContentSequence", "StackID"))
        for frame in frames
        if frame.header.groups
    } or {""}
    return len(stacks) == 1


def _told_apart(frames: Sequence[Frame]) -> tuple[str, list[list[Frame]]]:
    """Return whole volumes and what they differ in; none where nothing tells them apart."""
    for word, sequence, name in _TELLERS:
        groups: dict[Any, list[Frame]] = {}
        for frame in frames:
            groups.setdefault(_key(frame.header.get(sequence, name)), []).append(frame)
        if len(groups) < 2 or None in groups:
            continue
        volumes = [groups[key] for key in sorted(groups)]
        if all(len(set(_places(volume))) == len(volume) for volume in volumes) and (
            word == "stack" or len({frozenset(_places(volume)) for volume in volumes}) == 1
        ):
            return word, volumes
    return "", []


def _key(value: Any) -> tuple[int, float, str] | None:
    """Return what sorts values of one element: numbers by size, words by letter."""
    if value in (None, ""):
        return None
    try:
        return 0, float(value), ""
    except (TypeError, ValueError):
        return 1, 0.0, str(value)
