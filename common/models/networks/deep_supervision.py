"""A U-Net whose coarser levels answer too while it is trained; it imports MONAI."""

import torch
from monai.networks.nets import DynUNet
from torch import Tensor

_NOTHING = torch.zeros(0)


class SupervisedDynUNet(DynUNet):  # type: ignore[misc] # MONAI says no types
    """The U-Net of nnU-Net with its deep supervision (Isensee et al. 2021; Lee et al. 2015).

    MONAI brings what each level says to the size of the image first; here it stays as coarse as
    its level is, and the loss looks at a mask as coarse, as in nnU-Net: a step is faster so.
    Evaluated it answers once, as any network.
    """

    def forward(self, images: Tensor) -> "Tensor | tuple[Tensor, ...]":
        """Return logits ``(B, K, *spatial)``; in training those of all levels, the finest first."""
        logits: Tensor = self.output_block(self.skip_layers(images))
        coarser = tuple(self.heads)
        self.heads[:] = [_NOTHING] * len(coarser)  # or their graph stays in memory
        return (logits, *coarser) if self.training else logits
