"""``samples.npz``: some public test images with what the federated model made of them."""

import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wardround.common.errors import InputError


@dataclass(frozen=True, slots=True)
class Samples:
    """Test images, one slice of a volume each; every array has the same length N.

    Attributes:
        images: ``(N, H, W)`` grey or ``(N, H, W, 3)`` colour, float in [0, 1].
        truth: ``(N, H, W)`` class indices of a segmentation, ``(N,)`` of a classification, or
            ``(N, K)`` 0/1 where a patient may have several classes. Of a detection ``(N, M, 6)``
            float: class, top, left, bottom, right in pixels, score; rows of class -1 fill up.
        prediction: Like truth; of a detection with as many rows as it needs.
        site: ``(N,)`` names of the sites.
        score: ``(N,)`` probability of the predicted class, or Dice of the image; NaN if not known,
            and of a detection.
        sides: ``(N,)`` what lies at the left and at the right edge of an image, e.g. "RL", or "";
            empty where no image says it.
    """

    images: NDArray[np.float32]
    truth: NDArray[np.integer | np.floating]
    prediction: NDArray[np.integer | np.floating]
    site: NDArray[np.str_]
    score: NDArray[np.floating]
    sides: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, "U2"))

    def __post_init__(self) -> None:
        count = len(self.images)
        if self.images.ndim not in (3, 4) or (self.images.ndim == 4 and self.images.shape[3] != 3):
            msg = f"images has shape {self.images.shape}: give (N, H, W) or (N, H, W, 3)."
            raise InputError(msg)
        if self.is_detection:
            _check_boxes(self.truth, self.prediction)
        elif self.truth.shape != self.prediction.shape or self.truth.ndim not in (1, 2, 3):
            msg = (
                f"truth has shape {self.truth.shape} and prediction {self.prediction.shape}: "
                "give both as (N,), (N, K) or (N, H, W)."
            )
            raise InputError(msg)
        if self.is_segmentation and self.truth.shape != self.images.shape[:3]:
            msg = f"truth has shape {self.truth.shape}: give {self.images.shape[:3]} as the images."
            raise InputError(msg)
        parts = (self.truth, self.prediction, self.site, self.score)
        if any(len(part) != count for part in parts):
            msg = f"truth, prediction, site and score must hold {count} items, one an image."
            raise InputError(msg)
        if len(self.sides) not in (0, count):
            msg = f"sides must hold {count} items, one an image, or none."
            raise InputError(msg)

    def edges(self, index: int) -> str:
        """Return what lies at the left and the right edge of an image: two letters, or ""."""
        letters = str(self.sides[index]) if len(self.sides) else ""
        return letters if letters in _EDGES else ""

    @property
    def is_segmentation(self) -> bool:
        """Whether truth and prediction are masks."""
        return self.truth.ndim == 3 and not self.is_detection

    @property
    def is_detection(self) -> bool:
        """Whether truth and prediction are boxes."""
        return self.truth.ndim == 3 and self.truth.dtype.kind == "f"

    def __len__(self) -> int:
        return len(self.images)


def _check_boxes(truth: NDArray[np.generic], prediction: NDArray[np.generic]) -> None:
    if prediction.ndim != 3 or (truth.shape[2], prediction.shape[2]) != (_BOX, _BOX):
        msg = (
            f"truth has shape {truth.shape} and prediction {prediction.shape}: give boxes as "
            f"(N, M, {_BOX})."
        )
        raise InputError(msg)


_BOX = 6  # class, top, left, bottom, right, score
_ARRAYS = ("images", "truth", "prediction", "site", "score", "sides")
_EDGES = ("RL", "AP")


def read_samples(path: Path) -> Samples | None:
    """Read the arrays of :class:`Samples`; None if there is no file or no image in it.

    Raises:
        InputError: The file is damaged or holds other arrays.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, truth, prediction, site, score, sides = (arrays[name] for name in _ARRAYS)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        msg = (
            f"{path} cannot be read as samples: it needs the arrays {', '.join(_ARRAYS)}. "
            "Delete it to have the report without pictures."
        )
        raise InputError(msg) from None
    samples = Samples(images.astype(np.float32), truth, prediction, site, score, sides)
    return samples if len(samples) else None
