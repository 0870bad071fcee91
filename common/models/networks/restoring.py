"""An image classifier's encoder, and what is put behind it to pretrain it without labels."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wardround.common.errors import StudyError
from wardround.common.models.networks.small import SmallCNN

_CONVOLUTION: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_SEEN = 64  # features by which views are compared
_INTERPOLATION = {2: "bilinear", 3: "trilinear"}
# Pixels a side that one place of the map of features restores. More would make the layer larger
# than the encoder; where the map is coarser, the restored image is enlarged.
_FINEST = {2: 16, 3: 4}
_Encode = Callable[[Any, Tensor], Tensor]


class Restoring(nn.Module):
    """The network of pretraining: the encoder of a classifier, without its head, and one layer.

    Xie et al. 2022 (SimMIM, table 2) find one linear layer as good a decoder as a heavier one. The
    encoder's numbers keep their names, so that a classifier can start from them.
    """

    def __init__(self, network: nn.Module, planes: int, size: tuple[int, ...]) -> None:
        """Take a classifier apart.

        Args:
            network: One of the catalogue that answers with one vector an image; it loses its head.
            planes: Of the images.
            size: Spatial size of the images.

        Raises:
            StudyError: The network has no map of features.
        """
        super().__init__()
        dimensions = len(size)
        self.network, self._encode, width, factors = _encoder(network, size)
        self._steps = tuple(min(factor, _FINEST[dimensions]) for factor in factors)
        self.decoder = _CONVOLUTION[dimensions](width, planes * prod(self._steps), 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return restored images ``(B, planes, *spatial)`` of images with hidden parts."""
        restored = _unfolded(self.decoder(self._encode(self.network, images)), self._steps)
        if restored.shape[2:] == images.shape[2:]:
            return restored
        mode = _INTERPOLATION[len(self._steps)]
        return F.interpolate(restored, size=images.shape[2:], mode=mode, align_corners=False)


class Contrasting(nn.Module):
    """The network of contrastive pretraining: a classifier's encoder, and a head on its mean.

    Chen et al. 2020 (SimCLR, section 4.2): the loss is taken behind two layers that are thrown away
    afterwards. The encoder's numbers keep their names, as in :class:`Restoring`.
    """

    def __init__(self, network: nn.Module, planes: int, size: tuple[int, ...]) -> None:
        """Take a classifier apart, as :class:`Restoring` does."""
        super().__init__()
        self.network, self._encode, width, _ = _encoder(network, size)
        self._planes = planes
        self.projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, _SEEN))

    def forward(self, views: Tensor) -> Tensor:
        """Return the features ``(B, V * 64)`` of V views ``(B, V * planes, *spatial)``."""
        images = views.reshape(-1, self._planes, *views.shape[2:])
        found: Tensor = self.projector(self._encode(self.network, images).flatten(2).mean(2))
        return found.reshape(len(views), -1)


def _unfolded(values: Tensor, steps: Sequence[int]) -> Tensor:
    """Return ``(B, C, g1 s1, g2 s2, ...)`` of ``(B, C s1 s2 ..., g1, g2, ...)``."""
    count, grid = len(steps), values.shape[2:]
    parted = values.reshape(len(values), -1, *steps, *grid)
    order = [axis for one in range(count) for axis in (2 + count + one, 2 + one)]
    sides = [length * step for length, step in zip(grid, steps, strict=True)]
    return parted.permute(0, 1, *order).reshape(len(values), parted.shape[1], *sides)


def _encoder(
    network: nn.Module, size: tuple[int, ...]
) -> tuple[nn.Module, _Encode, int, tuple[int, ...]]:
    """Return the encoder, what it is asked by, its width, and how much coarser its map is."""
    kind = type(network).__name__
    any_network: Any = network
    if isinstance(network, SmallCNN):
        layers = list(network)
        flat = next(at for at, layer in enumerate(layers) if isinstance(layer, nn.Flatten))
        convolutions = [one for one in layers[:flat] if isinstance(one, nn.Conv2d | nn.Conv3d)]
        factor = 2 ** len(convolutions)
        width = convolutions[-1].out_channels
        return nn.Sequential(*layers[:flat]), _as_it_is, width, (factor,) * len(size)
    if kind == "FirstOutput":
        return _transformer(any_network, size)
    parts = _HEADS.get(kind)
    if parts is None:
        msg = f"model.network is a {kind}, which has no map of features to restore images from."
        raise StudyError(msg)
    head, encode = parts
    width = _width_of(any_network.get_submodule(head))
    setattr(any_network, head, nn.Identity())
    small = kind == "ResNet" and bool(getattr(any_network, "no_max_pool", False))
    return any_network, encode, width, (8 if small else 32,) * len(size)


def _width_of(head: nn.Module) -> int:
    return next(one.in_features for one in head.modules() if isinstance(one, nn.Linear))


def _transformer(
    network: Any, size: tuple[int, ...]
) -> tuple[nn.Module, _Encode, int, tuple[int, ...]]:
    inner = network.network
    del inner.classification_head
    projection = next(
        one for one in inner.patch_embedding.modules() if isinstance(one, nn.Conv2d | nn.Conv3d)
    )
    patch = tuple(int(side) for side in projection.kernel_size)
    grid = tuple(side // step for side, step in zip(size, patch, strict=True))

    def encode(owner: Any, images: Tensor) -> Tensor:
        vit = owner.network
        tokens = vit.patch_embedding(images)
        tokens = torch.cat((vit.cls_token.expand(len(images), -1, -1), tokens), dim=1)
        for block in vit.blocks:
            tokens = block(tokens)
        found: Tensor = vit.norm(tokens)[:, 1:].transpose(1, 2)
        return found.reshape(len(images), -1, *grid)

    return network, encode, int(projection.out_channels), patch


def _as_it_is(network: Any, images: Tensor) -> Tensor:
    found: Tensor = network(images)
    return found


def _of_resnet(network: Any, images: Tensor) -> Tensor:
    found = network.act(network.bn1(network.conv1(images)))
    if not network.no_max_pool:
        found = network.maxpool(found)
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        found = layer(found)
    result: Tensor = found
    return result


def _of_densenet(network: Any, images: Tensor) -> Tensor:
    return F.relu(network.features(images))


def _of_efficientnet(network: Any, images: Tensor) -> Tensor:
    found = network._conv_stem(network._conv_stem_padding(images))
    found = network._swish(network._bn0(found))
    for block in network._blocks:
        found = block(found)
    found = network._conv_head(network._conv_head_padding(found))
    result: Tensor = network._swish(network._bn1(found))
    return result


# MONAI's name of the part that goes, and what stays.
_HEADS: dict[str, tuple[str, _Encode]] = {
    "ResNet": ("fc", _of_resnet),
    "DenseNet121": ("class_layers", _of_densenet),
    "EfficientNetBN": ("_fc", _of_efficientnet),
}
