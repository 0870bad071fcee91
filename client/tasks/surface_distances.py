"""How far apart two surfaces lie, in mm: HD95 and surface Dice of one structure.

The surfaces and their distances are MONAI's. HD95 and surface Dice are both read off them here:
``compute_hausdorff_distance`` and ``compute_surface_dice`` would measure the distances twice.
"""

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
    """Measure the distances between the surfaces of two masks of one shape, to float32.

    Args:
        truth: ``(*spatial)``, at least one voxel set.
        prediction: ``(*spatial)``, at least one voxel set.
        spacing_mm: Voxel size along each axis.
    """
    from monai.metrics import get_mask_edges, get_surface_distance

    found, true = get_mask_edges(prediction, truth)  # cropped to both structures: faster
    to_prediction = get_surface_distance(true, found, spacing=spacing_mm)
    to_truth = get_surface_distance(found, true, spacing=spacing_mm)
    return SurfaceDistances(to_prediction.astype(np.float64), to_truth.astype(np.float64))
