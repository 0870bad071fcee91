"""Virtual patients: one anatomy, deformed smoothly and differently for each.

Free-form deformation by cubic B-splines (Rueckert et al. 1999, IEEE TMI 18:712, eq. 1-2): the
displacement at a point is the B-spline blend of random displacements on a coarse grid of control
points. It cannot fold while every control displacement stays below the spacing of the control
points divided by 2.48 (Choi and Lee 2000, Graph. Models 62:411, theorem for 3D).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (3, N), millimetres
INJECTIVE_FRACTION = 1 / 2.48  # of the spacing, for cubic B-splines in 3D: Choi and Lee 2000


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Volumes on one grid of cubic voxels.

    Attributes:
        volumes: ``(V, X, Y, Z)`` float32.
        origin_mm: World position of the first voxel's centre.
        spacing_mm: Edge of a voxel.
    """

    volumes: NDArray[np.float32]
    origin_mm: NDArray[np.float64]
    spacing_mm: float

    def sample(self, points: Points) -> NDArray[np.float32]:
        """Return all volumes at world points, linearly interpolated: ``(V, N)``; 0 outside."""
        from scipy.ndimage import map_coordinates

        indices = (points - self.origin_mm[:, None]) / self.spacing_mm
        return np.stack(
            [map_coordinates(volume, indices, order=1, cval=0.0) for volume in self.volumes]
        ).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Deformation:
    """How one patient's anatomy differs from the template's.

    Attributes:
        linear: ``(3, 3)``: small scaling, rotation and shear around ``centre_mm``.
        control_mm: ``(3, A, B, C)`` displacements of the control points.
        origin_mm: World position of the first control point.
        control_spacing_mm: Distance of control points.
    """

    linear: NDArray[np.float64]
    control_mm: NDArray[np.float64]
    centre_mm: NDArray[np.float64]
    origin_mm: NDArray[np.float64]
    control_spacing_mm: float

    def template_points(self, points: Points) -> Points:
        """Return where in the template a patient's points lie: ``(3, N)`` to ``(3, N)``."""
        from scipy.ndimage import map_coordinates

        indices = (points - self.origin_mm[:, None]) / self.control_spacing_mm
        # prefilter=False: the control displacements are the B-spline's coefficients themselves.
        moved = np.stack(
            [
                map_coordinates(axis, indices, order=3, mode="nearest", prefilter=False)
                for axis in self.control_mm
            ]
        )
        centred = points - self.centre_mm[:, None]
        return np.asarray(self.linear @ centred + self.centre_mm[:, None] + moved)


def draw_deformation(
    generator: np.random.Generator,
    lower_mm: NDArray[np.float64],
    upper_mm: NDArray[np.float64],
    displacement_mm: float,
    control_spacing_mm: float = 28.0,
) -> Deformation:
    """Draw one patient's deformation over a box.

    Args:
        generator: The patient's own.
        lower_mm: ``(3,)``: one corner of the box.
        upper_mm: ``(3,)``: the other corner.
        displacement_mm: Largest displacement of a control point along an axis; cut at what
            cannot fold.
        control_spacing_mm: Distance of control points.
    """
    largest = min(displacement_mm, 0.99 * INJECTIVE_FRACTION * control_spacing_mm)
    margin = 2 * control_spacing_mm
    counts = np.ceil((upper_mm - lower_mm + 2 * margin) / control_spacing_mm).astype(int) + 1
    drawn = generator.normal(0.0, largest / 2, size=(3, *counts))
    linear = np.diag(generator.uniform(0.94, 1.06, size=3)) @ _rotation(generator, degrees=4.0)
    return Deformation(
        linear=linear,
        control_mm=np.clip(drawn, -largest, largest),
        centre_mm=(lower_mm + upper_mm) / 2,
        origin_mm=lower_mm - margin,
        control_spacing_mm=control_spacing_mm,
    )


def _rotation(generator: np.random.Generator, degrees: float) -> NDArray[np.float64]:
    from scipy.spatial.transform import Rotation

    angles = generator.uniform(-degrees, degrees, size=3)
    return np.asarray(Rotation.from_euler("xyz", angles, degrees=True).as_matrix())
