"""A site's share of the noise of a masked sum: added to its whole numbers before they are masked.

The sum of the shares is the noise that hides a patient (or a site); a share alone hides less, so
nothing of this may leave but under a mask.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from wardround.common.parameters.schema import Model, Parameters
from wardround.common.privacy.distributed_noise.discrete_gaussian import discrete_gaussian
from wardround.common.privacy.secure_aggregation.fixed_point import Grid
from wardround.common.privacy.secure_random import Randomness
from wardround.common.study.plans.distributed_noise import SHARE_BITS

Whole = NDArray[np.int64]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ShareAdder:
    """Codes the changes of tensors as whole numbers, and adds a share of noise to each number.

    Attributes:
        trained: The names of tensors that training changes; all others are said not to change.
        grid: Whose step follows from the noise.
        randomness: Of the operating system.
    """

    trained: frozenset[str]
    grid: Grid
    randomness: Randomness = field(default_factory=Randomness)

    def __call__(self, name: str, change: Numbers) -> Whole:
        """Return ``(d,)`` whole numbers for the ``(d,)`` numbers of a tensor."""
        if name not in self.trained:
            return np.zeros(len(change), dtype=np.int64)
        noise = discrete_gaussian(len(change), SHARE_BITS, self.randomness)
        # No sum of clipped parts leaves half of the range, 2^16 standard deviations of a share,
        # unless tens of thousands agree in one number; what does is cut and not refused, since a
        # refusal would tell of the patients. Noise beyond the other half has no chance at all.
        top = self.grid.top
        within = np.clip(self.rounded(change), -(top // 2), top // 2)
        coded: Whole = np.clip(within + noise, -top, top)
        return coded

    def rounded(self, change: Numbers) -> Whole:
        """Return numbers on the grid, each rounded up or down by chance, to its mean."""
        finite = np.nan_to_num(change / self.grid.step, nan=0.0, posinf=0.0, neginf=0.0)
        most = float(self.grid.top)
        chance = self.randomness.uniform(len(change)).numpy()
        whole: Whole = np.floor(np.clip(finite, -most, most) + chance).astype(np.int64)
        return whole


def clipped_change(
    trained: Model, start: Model, names: frozenset[str], clip_norm: float
) -> Parameters:
    """Return a model whose change from ``start`` is at most so long, in double precision.

    Args:
        names: The tensors that count; a change with what is no number is none at all.
    """
    changes = {n: trained[n].double() - start[n].double() for n in start if n in names}
    length = float(torch.stack([part.norm() for part in changes.values()]).norm())
    scale = min(1.0, clip_norm / length) if 0 < length < float("inf") else 0.0
    moved = {name: start[name].double() + part * scale for name, part in changes.items() if scale}
    return {**start, **moved}
