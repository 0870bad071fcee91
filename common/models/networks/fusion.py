"""How images and clinical values come together, and what stands for a part that is missing.

Whatever an examination lacks has a flag, the last columns of the covariates. The flag's weights
are the token that stands for the missing part, learnt where it is missing. A missing channel itself
is multiplied by 0, so that what reads that channel gets no gradient from such an examination.

Early: the channels are planes of one network, and the values are added to its logits.
Intermediate: each channel has layers of its own, and what they find is joined inside.
Late: each channel and the values have a network of their own, whose logits are added.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from wardround.common.models.networks.small import (
    ACTIVATIONS,
    CONVOLUTION,
    MLP,
    Layers,
    normalisation_layer,
)
from wardround.common.study.sections.data import DataSection
from wardround.common.study.study import Study

Build = Callable[[Study], nn.Module]
_FEATURES = 32  # that an encoder tells of a whole image, and of the clinical values
_STEM = 8  # maps that a stem makes of a channel of a segmentation


def fused(study: Study, build: Build) -> nn.Module:
    """Return the network of a study of images.

    It takes images ``(B, planes, *spatial)`` and, where the study has covariates or lets something
    be missing, ``(B, F)`` values and flags, as :attr:`DataSection.covariate_width` says.

    Args:
        study: Says channels, covariates, and ``model.fusion``.
        build: Makes a network of images alone, of a study's channels and classes.
    """
    if study.model.fusion == "late":
        return LateFusion(study, build)
    if study.model.fusion == "intermediate":
        if study.task.dense:
            return StemFusion(study, build)
        return IntermediateFusion(study, build)
    data = study.data
    network = build(study)
    if not data.covariate_width:
        return network
    gate = MarkedPlanes(data) if data.optional_channels else None
    return WithCovariates(network, data.covariate_width, study.output_count, gate)


class WithCovariates(nn.Module):
    """Early fusion of channels, and late fusion of what the clinical values say.

    ``logits = image_network(images) + linear(covariates)``; the image network has the bias.
    """

    def __init__(
        self,
        image_network: nn.Module,
        covariate_width: int,
        outputs: int,
        gate: "MarkedPlanes | None" = None,
    ) -> None:
        super().__init__()
        self.image_network = image_network
        self.covariate_layer = nn.Linear(covariate_width, outputs, bias=False)
        self.gate = gate

    def forward(self, images: Tensor, covariates: Tensor) -> Tensor:
        """Return logits ``(B, K)``, or ``(B, K, *spatial)`` with the same shift at every pixel."""
        seen = images if self.gate is None else self.gate(images, covariates)
        logits: Tensor = self.image_network(seen)
        return logits + _at_every_place(self.covariate_layer(covariates), logits)


class MarkedPlanes(nn.Module):
    """Planes with those that are missing set to 0, and behind them a plane of flags a channel."""

    def __init__(self, data: DataSection) -> None:
        super().__init__()
        self._flags = len(data.optional_channels)
        colours = data.planes // len(data.channels)
        planes = [name for name in data.channels for _ in range(colours)]
        spread = [[float(name == one) for name in planes] for one in data.optional_channels]
        self.register_buffer("spread", torch.tensor(spread), persistent=False)

    def forward(self, images: Tensor, covariates: Tensor) -> Tensor:
        """Return ``(B, planes + optional channels, *spatial)``."""
        flags = covariates[:, -self._flags :]
        spread: Tensor = self.spread  # type: ignore[assignment] # a buffer
        kept = images * _at_every_place(1 - flags @ spread, images)
        marks = _at_every_place(flags, images).expand(-1, -1, *images.shape[2:])
        return torch.cat([kept, marks.to(kept.dtype)], dim=1)


class _Channels(nn.Module):
    """What networks with layers of a channel's own have in common.

    Args:
        study: Says the channels and which may be missing.
        parts: One a channel: takes its planes.
        width: Of what a part returns, on the second axis.
    """

    def __init__(self, study: Study, parts: Sequence[nn.Module], width: int) -> None:
        super().__init__()
        data = study.data
        self._flags = len(data.optional_channels)
        self._values = data.covariate_width - self._flags
        self._places = [
            data.optional_channels.index(name) if name in data.optional_channels else None
            for name in data.channels
        ]
        self._colours = data.planes // len(data.channels)
        self.encoders = nn.ModuleList(parts)
        self.tokens = nn.ModuleList(nn.Linear(1, width, bias=False) for _ in range(self._flags))

    def parts_of(self, images: Tensor, covariates: Tensor | None) -> list[Tensor]:
        """Return what is seen of each channel, ``(B, width, ...)``; its token where it is missing.

        The token is a linear layer of the flag, as every other one: so a patient's gradient of it
        is clipped with the rest.
        """
        found = []
        for at, planes in enumerate(torch.split(images, self._colours, dim=1)):
            place = self._places[at]
            seen: Tensor = self.encoders[at](planes)
            if place is not None and covariates is not None:
                flag = covariates[:, self._values + place :][:, :1]
                token: Tensor = self.tokens[place](flag)
                seen = seen * _at_every_place(1 - flag, seen) + _at_every_place(token, seen)
            found.append(seen)
        return found

    def values_of(self, covariates: Tensor) -> Tensor:
        """Return the columns of the clinical values, with their flags."""
        return covariates[:, : self._values]


class IntermediateFusion(_Channels):
    """Features of each channel and of the clinical values, joined before the last layer."""

    def __init__(self, study: Study, build: Build) -> None:
        encoders = [build(_alone(study, name, _FEATURES)) for name in study.data.channels]
        super().__init__(study, encoders, _FEATURES)
        count = len(encoders)
        self.covariate_network: nn.Module | None = None
        if study.data.covariates:
            self.covariate_network = MLP(self._values, _FEATURES, Layers((_FEATURES,)))
            count += 1
        self.activation = nn.ReLU()
        self.head = nn.Linear(count * _FEATURES, study.output_count)

    def forward(self, images: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Return logits ``(B, K)``."""
        parts = self.parts_of(images, covariates)
        if self.covariate_network is not None and covariates is not None:
            parts.append(self.covariate_network(self.values_of(covariates)))
        logits: Tensor = self.head(self.activation(torch.cat(parts, dim=1)))
        return logits


class StemFusion(_Channels):
    """A segmentation whose channels each pass a convolution of their own before they are joined."""

    def __init__(self, study: Study, build: Build) -> None:
        data = study.data
        stems = [_stem(study) for _ in data.channels]
        super().__init__(study, stems, _STEM)
        maps = tuple(str(number) for number in range(len(stems) * _STEM))
        joined = data.model_copy(update={"channels": maps, "colour": False, "optional": ()})
        self.image_network = build(study.model_copy(update={"data": joined}))
        self.covariate_layer: nn.Linear | None = None
        if self._values:
            self.covariate_layer = nn.Linear(self._values, study.output_count, bias=False)

    def forward(self, images: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Return logits ``(B, K, *spatial)``."""
        logits: Tensor = self.image_network(torch.cat(self.parts_of(images, covariates), dim=1))
        if self.covariate_layer is None or covariates is None:
            return logits
        return logits + _at_every_place(self.covariate_layer(self.values_of(covariates)), logits)


class LateFusion(_Channels):
    """A network a channel and one of the clinical values, whose logits are added.

    Log-odds of independent findings add up; what is missing adds its token instead.
    """

    def __init__(self, study: Study, build: Build) -> None:
        encoders = [build(_alone(study, name, None)) for name in study.data.channels]
        super().__init__(study, encoders, study.output_count)
        self.covariate_network: nn.Module | None = None
        if study.data.covariates:
            self.covariate_network = MLP(self._values, study.output_count, Layers((_FEATURES,)))

    def forward(self, images: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Return logits ``(B, K)`` or ``(B, K, *spatial)``."""
        parts = self.parts_of(images, covariates)
        logits = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
        if self.covariate_network is None or covariates is None:
            return logits
        return logits + _at_every_place(self.covariate_network(self.values_of(covariates)), logits)


def _alone(study: Study, channel: str, outputs: int | None) -> Study:
    """Return a study of one channel, with so many outputs in the place of its classes."""
    classes = study.data.classes if outputs is None else tuple(map(str, range(outputs)))
    if outputs is not None:  # of a number there would be one
        section = study.study.model_copy(update={"task": "classification"})
        study = study.model_copy(update={"study": section})
    update = {"channels": (channel,), "classes": classes, "optional": (), "covariates": ()}
    return study.model_copy(update={"data": study.data.model_copy(update=update)})


def _stem(study: Study) -> nn.Module:
    chosen, dimensions = study.model.normalisation, study.data.dimensions
    # Over an image by itself: what one patient lacks must not change what is seen of another.
    kind = chosen if chosen in ("instance", "none") else "group"
    colours = study.data.planes // len(study.data.channels)
    return nn.Sequential(
        CONVOLUTION[dimensions](colours, _STEM, 3, padding=1),
        normalisation_layer(kind, _STEM, dimensions),
        ACTIVATIONS["leakyrelu"](),
    )


def _at_every_place(values: Tensor, like: Tensor) -> Tensor:
    """Return ``(B, W)`` as ``(B, W, 1, ...)``, with as many axes as another tensor has."""
    return values.reshape(*values.shape, *(1 for _ in like.shape[2:]))
