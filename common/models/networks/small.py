"""The networks that are our own: small enough to read, quick enough for a laptop."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import gcd, prod

from torch import Tensor, nn

from wardround.common.models.networks.pooling import MaxPool2d

CONVOLUTION: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_POOLING: dict[int, Callable[[], nn.Module]] = {2: MaxPool2d, 3: lambda: nn.MaxPool3d(2)}
_BATCH: dict[int, type[nn.Module]] = {0: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_INSTANCE: dict[int, type[nn.Module]] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_PER_CHANNEL = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)
_MOST_GROUPS = 8  # Wu and He 2018 find little difference between 2 and 32 groups

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "default": nn.ReLU,
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "swish": nn.SiLU,
}


def normalisation_layer(kind: str, width: int, dimensions: int, eps: float = 1e-5) -> nn.Module:
    """Return a normalisation of ``width`` channels with a learnt scale and shift.

    Args:
        kind: "batch", "instance", "group", "layer" or "none".
        width: Number of channels.
        dimensions: Spatial dimensions; 0 for a table.
        eps: Added to the variance.
    """
    if kind == "batch":
        return _BATCH[dimensions](width, eps=eps)
    if kind == "instance":
        return _INSTANCE[dimensions](width, eps=eps, affine=True)
    if kind == "group":
        return nn.GroupNorm(group_count(width), width, eps=eps)
    if kind == "layer":
        return nn.LayerNorm(width, eps=eps)
    return nn.Identity()


def group_count(width: int) -> int:
    """Return a number of groups that always leaves two channels in a group.

    A group of one channel cannot be normalised where the image has shrunk to a single pixel.
    """
    pairs = gcd(width, _MOST_GROUPS)
    return pairs if width // pairs >= 2 else max(1, pairs // 2)


@dataclass(frozen=True, slots=True)
class Layers:
    """The free choices of a small network.

    Attributes:
        widths: Channels of each hidden layer.
        dropout: Probability of dropping a value, in [0, 1).
    """

    widths: tuple[int, ...]
    normalisation: str = "none"
    activation: str = "default"
    dropout: float = 0.0


class SmallCNN(nn.Sequential):
    """Blocks of convolution 3, normalisation, activation and max-pooling 2; then a linear layer."""

    def __init__(self, planes: int, outputs: int, size: tuple[int, ...], layers: Layers) -> None:
        dimensions = len(size)
        blocks: list[nn.Module] = []
        for before, after in pairwise((planes, *layers.widths)):
            blocks += [
                CONVOLUTION[dimensions](before, after, 3, padding=1),
                normalisation_layer(layers.normalisation, after, dimensions),
                ACTIVATIONS[layers.activation](),
                _POOLING[dimensions](),
            ]
        values = layers.widths[-1] * prod(length >> len(layers.widths) for length in size)
        super().__init__(
            *_without_idle(blocks),
            nn.Flatten(),
            *_without_idle([nn.Dropout(layers.dropout)]),
            nn.Linear(values, outputs),
        )


class MLP(nn.Sequential):
    """Fully connected layers on a table, or on an image laid out flat.

    Without hidden layers this is logistic regression.
    """

    def __init__(self, values: int, outputs: int, layers: Layers) -> None:
        blocks: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise((values, *layers.widths)):
            blocks += [
                nn.Linear(before, after),
                normalisation_layer(layers.normalisation, after, 0),
                ACTIVATIONS[layers.activation](),
                nn.Dropout(layers.dropout),
            ]
        last = (values, *layers.widths)[-1]
        super().__init__(*_without_idle(blocks), nn.Linear(last, outputs))


class FirstOutput(nn.Module):
    """A network that returns its logits first, and more after them; only logits are kept."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, K)``, or ``(B, K, *spatial)``."""
        logits: Tensor = self.network(images)[0]
        return logits


def replace_normalisation(network: nn.Module, kind: str, dimensions: int) -> None:
    """Put another normalisation in the place of every batch, instance or group normalisation."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.GroupNorm):
            width = layer.num_channels
        elif isinstance(layer, _PER_CHANNEL):
            width = layer.num_features
        else:
            continue
        parent, _, child = name.rpartition(".")
        replacement = normalisation_layer(kind, width, dimensions, layer.eps)
        setattr(network.get_submodule(parent), child, replacement)


def _without_idle(layers: list[nn.Module]) -> list[nn.Module]:
    """Drop the layers that do nothing, so that they cost no time and no name."""
    return [
        layer
        for layer in layers
        if not isinstance(layer, nn.Identity)
        and not (isinstance(layer, nn.Dropout) and layer.p == 0)
    ]
