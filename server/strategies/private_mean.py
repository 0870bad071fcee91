"""Differential privacy of whole sites: each one's change is clipped, their sum is noised.

McMahan et al. 2018 (ICLR), algorithm 1, with all sites in every round, and the clip norm of Andrew
et al. 2021, algorithm 1, where a study asks for it. The noise is of the operating system and is
never drawn twice: a run that is resumed, or made again with the same seed, ends in another model.
A round that is trained again because its commit was damaged is spent again.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wardround.common.errors import RunError, StudyError
from wardround.common.messages.replies import SiteUpdate
from wardround.common.parameters.schema import Model, Parameters
from wardround.common.study.plans.site_privacy import SitePrivacyPlan

if TYPE_CHECKING:
    from wardround.common.privacy.secure_random import Randomness

_CLIP_NORM = "clip-norm"


class PrivateMean:
    """``x + (sum_i clip(y_i - x) + N(0, (sigma C)^2)) / n`` over all sites, each counting the same.

    A site that does not answer, or is refused, adds nothing, and ``n`` stays the number of all: the
    divisor would tell who did. Integers keep the round's values. Streams; the sum is of double
    precision, so that its rounding is far below the noise.

    Args:
        plan: Clipping and noise.
        sites: All sites of the run, n.
        trainable: Names of what a gradient changes.
        randomness: Where the noise comes from; a new stream of the operating system if absent.
    """

    streams = True

    def __init__(
        self,
        plan: SitePrivacyPlan,
        sites: int,
        trainable: frozenset[str],
        randomness: "Randomness | None" = None,
    ) -> None:
        self._plan = plan
        self._sites = sites
        self._trainable = trainable
        self._randomness = randomness
        self._clip_norm = plan.clip_norm
        self._start: Model = {}
        self._sum: Parameters = {}
        self._halves = 0.0

    @property
    def clip_norm(self) -> float:
        """The largest norm of a site's change in this round."""
        return self._clip_norm

    def begin(self, model: Model) -> None:
        """Start a round from a model.

        Raises:
            StudyError: It holds running means, which noise would spoil.
        """
        self._start, self._sum, self._halves = model, {}, 0.0
        for name, tensor in model.items():
            if not tensor.is_floating_point():
                continue
            if name not in self._trainable:
                msg = (
                    f"{name!r} is shared and no gradient changes it, so privacy.mode = 'site' "
                    "cannot noise it: set model.normalisation = 'group', or share less."
                )
                raise StudyError(msg)
            self._sum[name] = torch.zeros_like(tensor, dtype=torch.float64)

    def accumulate(self, update: SiteUpdate) -> None:
        """Add one site's clipped change to the sum.

        Raises:
            RunError: It holds a value that is not finite.
        """
        norm = math.hypot(*(float(self._change(update, name).norm()) for name in self._sum))
        if not math.isfinite(norm):
            msg = "the update holds values that are not finite: lower training.learning_rate."
            raise RunError(msg)
        factor = min(1.0, self._clip_norm / norm) if norm else 1.0
        for name, total in self._sum.items():
            total.add_(self._change(update, name), alpha=factor)
        self._halves += 0.5 if norm <= self._clip_norm else -0.5

    def finish(self) -> Parameters:
        """Return the round's model moved by the noised mean, and set the next clip norm."""
        model: Parameters = {}
        deviation = self._plan.sum_noise * self._clip_norm
        for name, start in self._start.items():
            if name in self._sum:
                mean = self._noised(self._sum.pop(name), deviation).div_(self._sites)
                model[name] = mean.add_(start).to(start.dtype)
            else:
                model[name] = start
        self._follow()
        return model

    def state(self) -> Parameters:
        """Return the clip norm."""
        return {_CLIP_NORM: torch.tensor(self._clip_norm, dtype=torch.float64)}

    def restore(self, state: Parameters) -> None:
        """Go on with a clip norm."""
        if _CLIP_NORM in state:
            self._clip_norm = float(state[_CLIP_NORM])

    def _change(self, update: SiteUpdate, name: str) -> Tensor:
        # The same numbers each time it is made: what is added is as long as what was measured.
        return update.parameters[name].double().sub_(self._start[name])

    def _follow(self) -> None:
        adaptive = self._plan.adaptive
        if adaptive is None:
            return
        # A site adds a half to the count or takes it away: half the sensitivity of 0 or 1.
        halves = torch.tensor(self._halves, dtype=torch.float64)
        share = 0.5 + float(self._noised(halves, adaptive.count_noise)) / self._sites
        self._clip_norm = adaptive.followed(self._clip_norm, share)

    def _noised(self, value: Tensor, deviation: float) -> Tensor:
        # Needs the package cryptography, which a server without privacy has no use for.
        from wardround.common.privacy.gaussian_mechanism import noised
        from wardround.common.privacy.secure_random import Randomness

        if self._randomness is None:
            self._randomness = Randomness()
        return noised(value, deviation, self._randomness)
