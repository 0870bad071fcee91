"""FedSR's first term: small features, which have little room for what a scanner adds."""

import weakref
from typing import Any

from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.training.objectives.base import LocalStart
from wardround.common.models.sharing import head_layer
from wardround.common.parameters.schema import Parameters


class SmallFeatures:
    """``loss + alpha mean |z|^2`` (Nguyen et al. 2022, NeurIPS, "FedSR", equation 5).

    ``z`` is what enters the last layer, of an image or of each voxel; its mean square over the
    channels is taken, so that alpha means the same in a wide network. Nothing leaves but the model:
    each site has one domain, so a discriminator of domains (Ganin et al. 2016) would see one class
    at a site, and matching moments between sites would send those of each site's features.
    """

    def __init__(self, start: LocalStart) -> None:
        self._weight = start.plan.options.feature_weight
        self._latest: Tensor | None = None
        own = weakref.ref(self)

        def keep(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            if (objective := own()) is not None:
                objective._latest = inputs[0]

        # The network outlives the round, and is that of the next site too.
        hook = head_layer(start.network).register_forward_pre_hook(keep)
        weakref.finalize(self, hook.remove)

    def adjust(self, loss: Tensor, batch: Batch) -> Tensor:
        """Return the loss plus the squared features, a scalar."""
        if self._latest is None:
            return loss
        return loss + self._weight * self._latest.float().square().mean()

    def correct(self) -> None:
        """Leave the gradients as they are."""

    def memory(self) -> Parameters:
        """Return nothing."""
        return {}

    def auxiliary(self) -> Parameters:
        """Return nothing."""
        return {}
