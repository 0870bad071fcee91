"""``explanations/METHOD.csv`` and ``.npz``: maps of predictions, and whether to believe them.

The maps are pictures of patients like ``samples.npz``, and stay in the run folder; the table holds
scores alone.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wardround.common.files.tables import read_table, write_table

FOLDER = "explanations"
_KEPT_PICTURES = 48
_ARRAYS = ("images", "maps", "masks", "site", "case", "class_name")


@dataclass(frozen=True, slots=True)
class ExplanationRow:
    """One explained prediction: whose, of what, and what the checks of its map said.

    Attributes:
        model: Whose prediction.
        site: Whose examination.
        case: The row of the site's manifest.
        patient: Number of the patient within the site's test patients, from 0.
        true_class: Class names joined with ``;``.
        class_name: The class that is explained: the one that the model predicted.
        score: The model's score of it, in [0, 1].
        last_layer: Rank correlation with the map of the same network with a random last layer.
        quarter, half, all_layers: With so many of its layers random, from the last one down.
        completeness_error: Of integrated gradients, as a share of the score's difference.
        inside: Share of the positive attribution that lies in the lesion; NaN without a mask.
        area: Share of the image that the lesion takes.
        agreement_rank, agreement_ssim: Mean over pairs of sites' own models of how alike their
            maps of this class are; NaN with fewer than two.
        repeatability: Rank correlation with the map of another round's model; NaN without.
        cells: The grid on which the method looked, e.g. ``8x8``.
        marks: Why the map is not to be believed, joined with ``; ``; empty where nothing speaks
            against it.
    """

    method: str
    model: str
    site: str
    case: int
    patient: int
    true_class: str
    class_name: str
    score: float
    last_layer: float
    quarter: float
    half: float
    all_layers: float
    completeness_error: float
    inside: float
    area: float
    agreement_rank: float
    agreement_ssim: float
    repeatability: float
    cells: str
    marks: str


@dataclass(frozen=True, slots=True)
class UncertaintyRow:
    """One segmented examination: how sure the model was, and whether that is where it errs.

    Attributes:
        dice: Mean over the foreground classes that the truth holds.
        uncertainty: Mean of the map over the voxels, 0 sure to 1.
        auroc: That a wrong voxel is less sure than a right one; NaN where none is wrong.
        wrong: Share of voxels marked wrongly.
        caught: Share of the wrong voxels among the twentieth that is least sure.
    """

    method: str
    model: str
    site: str
    case: int
    patient: int
    dice: float
    uncertainty: float
    auroc: float
    wrong: float
    caught: float


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """How much one clinical value spoke for a class in one patient's prediction."""

    method: str
    model: str
    site: str
    case: int
    class_name: str
    covariate: str
    attribution: float


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """Pictures with their maps, N of them; of a volume the slice that the map is strongest in.

    Attributes:
        images: ``(N, H, W)`` grey or ``(N, H, W, 3)`` colour, in [0, 1].
        maps: ``(N, H, W)`` from 0 to 1.
        masks: ``(N, H, W)`` bool: the lesion, or where a segmentation errs; empty where unknown.
        site: ``(N,)`` names.
        case: ``(N,)`` rows of the manifest.
        class_name: ``(N,)``; "" for a segmentation.
    """

    images: NDArray[np.float32]
    maps: NDArray[np.float32]
    masks: NDArray[np.bool_]
    site: NDArray[np.str_]
    case: NDArray[np.int64]
    class_name: NDArray[np.str_]


Row = ExplanationRow | UncertaintyRow


def explained_methods(run: Path) -> tuple[str, ...]:
    """Return the methods of which a run has explanations."""
    return tuple(sorted(path.stem for path in (run / FOLDER).glob("*.csv") if "." not in path.stem))


def write_explanations(
    run: Path,
    method: str,
    rows: Sequence[ExplanationRow] | Sequence[UncertaintyRow],
    features: Sequence[FeatureRow],
    maps: Maps | None,
) -> None:
    """Write what a method said; what it said before is gone.

    Raises:
        OSError: It cannot be written.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    if rows and isinstance(rows[0], UncertaintyRow):
        marked = [row for row in rows if isinstance(row, UncertaintyRow)]
        write_table(folder / f"{method}.csv", marked, UncertaintyRow)
    else:
        told = [row for row in rows if isinstance(row, ExplanationRow)]
        write_table(folder / f"{method}.csv", told, ExplanationRow)
    for path in (folder / f"{method}.features.csv", folder / f"{method}.npz"):
        path.unlink(missing_ok=True)
    if features:
        write_table(folder / f"{method}.features.csv", features, FeatureRow)
    if maps is not None and len(maps.images):
        chosen = {name: getattr(maps, name)[:_KEPT_PICTURES] for name in _ARRAYS}
        np.savez_compressed(folder / f"{method}.npz", allow_pickle=False, **chosen)


def read_explanations(run: Path, method: str) -> list[ExplanationRow]:
    """Return the explained predictions of a classification; empty where there are none.

    Raises:
        ValueError, TypeError, KeyError: The file is not such a table.
        OSError: It cannot be read.
    """
    return read_table(run / FOLDER / f"{method}.csv", ExplanationRow)


def read_uncertainties(run: Path, method: str) -> list[UncertaintyRow]:
    """Return the examinations of a segmentation likewise."""
    return read_table(run / FOLDER / f"{method}.csv", UncertaintyRow)


def read_features(run: Path, method: str) -> list[FeatureRow]:
    """Return what each clinical value said; empty where the study has none."""
    return read_table(run / FOLDER / f"{method}.features.csv", FeatureRow)


def read_maps(run: Path, method: str) -> Maps | None:
    """Return the pictures; None where there are none.

    Raises:
        ValueError: The file is damaged.
    """
    path = run / FOLDER / f"{method}.npz"
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Maps(*(arrays[name] for name in _ARRAYS))
    except (OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(str(path)) from error
