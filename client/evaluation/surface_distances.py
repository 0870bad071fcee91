"""How far apart two surfaces lie, in mm: HD95 and surface Dice of one structure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Distances = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SurfaceDistances:
    """Distances between the surface voxels of two masks, neither of them empty.

    A surface voxel belongs to the mask and touches, by a face, a voxel that does not; the edge of
    the image counts as such. Distances run between voxel centres.

    Attributes:
        from_truth: From each surface voxel of the truth to the prediction's surface, in mm.
        from_prediction: The other way round, in mm.
    """

    from_truth: Distances
    from_prediction: Distances

    @property
    def hd95(self) -> float:
        """95th-percentile Hausdorff distance in mm: the larger of the two directed percentiles."""
        return float(
            max(np.percentile(self.from_truth, 95), np.percentile(self.from_prediction, 95))
        )

    def surface_dice(self, tolerance_mm: float) -> float:
        """Return the share of both surfaces that lies within the tolerance of the other one.

        Nikolov et al., "Deep learning to achieve clinically applicable segmentation of head and
        neck anatomy for radiotherapy", 2018, eq. 1, counted in surface voxels.
        """
        near = (self.from_truth <= tolerance_mm).sum() + (
            self.from_prediction <= tolerance_mm
        ).sum()
        return float(near / (len(self.from_truth) + len(self.from_prediction)))


def measure_surfaces(
    truth: Mask, prediction: Mask, spacing_mm: tuple[float, ...]
) -> SurfaceDistances:
    """Measure the distances between the surfaces of two masks of one shape.

    Args:
        truth: ``(*spatial)``, at least one voxel set.
        prediction: ``(*spatial)``, at least one voxel set.
        spacing_mm: Voxel size along each axis.
    """
    from scipy.ndimage import binary_erosion, distance_transform_edt

    box = _bounding_box(truth | prediction)
    truth, prediction = truth[box], prediction[box]
    truth_surface = truth & ~binary_erosion(truth)
    prediction_surface = prediction & ~binary_erosion(prediction)
    to_prediction = distance_transform_edt(~prediction_surface, sampling=spacing_mm)
    to_truth = distance_transform_edt(~truth_surface, sampling=spacing_mm)
    return SurfaceDistances(to_prediction[truth_surface], to_truth[prediction_surface])


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """Return the smallest box around a mask: outside it no surface begins or ends."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        (filled,) = np.nonzero(mask.any(axis=others))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)
