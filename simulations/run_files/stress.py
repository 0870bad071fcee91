"""``corruptions.csv`` and ``adversarial.csv``: how a run's models stand up to worse images.

And ``corruptions.npz``: what the corruptions look like.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wardround.common.errors import InputError
from wardround.common.files.tables import read_table

CORRUPTIONS, ADVERSARIAL, EXAMPLES = "corruptions.csv", "adversarial.csv", "corruptions.npz"
CLEAN = "none"  # the corruption and the attack of images as they are
BOX_F1 = "F1 of boxes"  # from a score of one half on, hits at IoU .50; the mean over classes
LOCAL = "local"  # each site's own model on its own patients


@dataclass(frozen=True, slots=True)
class CorruptionRow:
    """How often one model errs on one site's test images under one corruption.

    Attributes:
        model: ``federated``, ``local``, ``pooled``, ...
        site: Whose patients; ``all`` for the patients of all sites together.
        corruption: Its name; ``none`` for the images as they are.
        severity: 1 to 5; 0 for the images as they are.
        error: Balanced error, 1 less the mean recall of the classes that are present (for
            multi-label of each label's presence and absence); of a segmentation 1 - Dice, of a
            detection 1 - F1 of its boxes. NaN where nothing is defined.
        low: Lower end of its 95 % interval over patients.
        high: Upper end.
    """

    model: str
    site: str
    corruption: str
    severity: int
    error: float
    low: float
    high: float
    examinations: int
    patients: int


@dataclass(frozen=True, slots=True)
class AttackRow:
    """What is left of one model when its test images are changed on purpose.

    Attributes:
        attack: ``fgsm``, ``pgd``, ``transfer`` (made against another model), or ``none``.
        epsilon: How far a grey value may go, in 255ths of the image's range.
        steps: Gradient steps of each start.
        restarts: Starts, of which the worst is taken for each image.
        measure: ``auroc``, ``balanced-accuracy``, ``dice`` or ``F1 of boxes``.
        value: Of the measure; NaN where it is not defined.
        low: Lower end of its 95 % interval over patients.
        high: Upper end.
    """

    model: str
    site: str
    attack: str
    epsilon: float
    steps: int
    restarts: int
    measure: str
    value: float
    low: float
    high: float
    examinations: int
    patients: int


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """One test image under each corruption.

    Attributes:
        names: ``(N,)`` corruptions; the first is ``none``.
        images: ``(N, H, W)`` or ``(N, H, W, 3)`` in 0..1.
        severity: Of all but the first.
    """

    names: tuple[str, ...]
    images: NDArray[np.float32]
    severity: int


def read_corruptions(run: Path) -> list[CorruptionRow]:
    """Return the rows of a run; none where no stress test was made.

    Raises:
        InputError: The file is damaged.
    """
    try:
        return read_table(run / CORRUPTIONS, CorruptionRow)
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(_damaged(run / CORRUPTIONS)) from None


def read_attacks(run: Path) -> list[AttackRow]:
    """Return the rows of a run; none where it was not attacked so.

    Raises:
        InputError: The file is damaged.
    """
    try:
        return read_table(run / ADVERSARIAL, AttackRow)
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(_damaged(run / ADVERSARIAL)) from None


def write_examples(run: Path, examples: Examples) -> None:
    """Write the pictures in place of earlier ones."""
    np.savez_compressed(
        run / EXAMPLES,
        allow_pickle=False,
        names=np.array(examples.names),
        images=np.rint(examples.images * 255).astype(np.uint8),
        severity=np.array(examples.severity),
    )


def read_examples(run: Path) -> Examples | None:
    """Return the pictures; None where there are none.

    Raises:
        InputError: The file is damaged.
    """
    path = run / EXAMPLES
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = tuple(str(name) for name in arrays["names"])
            images = arrays["images"].astype(np.float32) / np.float32(255)
            return Examples(names, images, int(arrays["severity"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise InputError(_damaged(path)) from None


def _damaged(path: Path) -> str:
    return f"{path} is damaged or of another version of wardround: run 'wardround stress' again."
