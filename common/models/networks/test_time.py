"""Batch normalisation that looks at the image it is given too, for scanners never trained on."""

import torch
from torch import Tensor, nn


class _Mixed:
    """Part of the statistics of a layer that is evaluated are the image's own.

    ``(1 - w)`` of the training's running mean and variance and ``w`` of those of the image over its
    voxels (Schneider et al. 2020, NeurIPS, equation 2, for one image). Each image by itself: no
    patient enters another's answer, and the batch that an image is in does not matter. In training
    nothing is different.
    """

    own_weight: float

    def forward(self: nn.modules.batchnorm._BatchNorm, images: Tensor) -> Tensor:  # type: ignore[misc] # a mixin of its layers
        """Return normalised images ``(B, C, *spatial)``."""
        trained, spread = self.running_mean, self.running_var
        voxels = images[0, 0].numel()
        if self.training or voxels < 2 or trained is None or spread is None:
            return nn.modules.batchnorm._BatchNorm.forward(self, images)
        weight = float(self.own_weight)  # type: ignore[arg-type] # read through torch's __getattr__
        dims = tuple(range(2, images.ndim))
        own_mean = images.mean(dim=dims, keepdim=True)
        own_spread = images.var(dim=dims, keepdim=True, unbiased=False)
        view = (1, -1, *(1,) * len(dims))
        mean = torch.lerp(trained.to(images).view(view).expand_as(own_mean), own_mean, weight)
        variance = torch.lerp(spread.to(images).view(view).expand_as(own_mean), own_spread, weight)
        result = (images - mean) * torch.rsqrt(variance + self.eps)
        if self.affine:
            result = result * self.weight.view(view) + self.bias.view(view)
        return result


class _Mixed2d(_Mixed, nn.BatchNorm2d):
    pass


class _Mixed3d(_Mixed, nn.BatchNorm3d):
    pass


_TYPES: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: _Mixed2d,
    nn.BatchNorm3d: _Mixed3d,
}


def mix_statistics(network: nn.Module, own_weight: float) -> None:
    """Give each batch normalisation of a network its own part of the image's statistics.

    The names and shapes of the network's numbers stay as they are.
    """
    for layer in network.modules():
        if (mixed := _TYPES.get(type(layer))) is not None:
            layer.__class__ = mixed
            layer.own_weight = own_weight  # type: ignore[assignment] # torch types it a module
    if hasattr(network, "monai_definition"):
        del network.monai_definition  # MONAI alone would build another
