"""Grad-CAM (Selvaraju 2017) and HiResCAM (Draelos 2020): the last layer that still has places."""

from math import prod

import torch
from torch import Tensor, nn

from wardround.client.clinic.explanations.attribution import (
    Attribution,
    ExplanationError,
    Inputs,
    OfImage,
    image_and_covariates,
    working_copy,
)
from wardround.client.clinic.explanations.layers import ran_layers
from wardround.common.models.networks.fusion import IntermediateFusion, LateFusion

_NO_PLACES = (
    "grad-cam and hires-cam need a convolutional layer whose output still has places, and {why}: "
    "use integrated-gradients or occlusion, which work with any network."
)


def grad_cam(network: nn.Module, inputs: Inputs, class_index: int) -> Attribution:
    """Return MONAI's Grad-CAM of the logit of a class; it has no negative values.

    The target layer is the last one that has places: at the output of the convolutions.

    Args:
        network: Its layers may work in place: a copy does not.
        inputs: One examination with an image.
        class_index: Which logit.

    Raises:
        ExplanationError: There is no image, or the network has no such layer.
    """
    from monai.visualize import GradCAM

    copy, shown, name, cells = _seen(network, inputs)
    camera = GradCAM(nn_module=copy, target_layers=name, postprocessing=_as_it_is)
    values = camera(shown, class_idx=class_index)[0, 0]
    return Attribution(values.detach().cpu().double().numpy(), cells)


def hires_cam(network: nn.Module, inputs: Inputs, class_index: int) -> Attribution:
    """Return the gradient of a class's logit times the feature maps, place by place.

    Grad-CAM takes the mean of the gradient over all places first, and loses what a network without
    global pooling has learnt of each place: then this is the one to take (Draelos and Carin 2020).

    Args:
        network: As for :func:`grad_cam`.
        inputs: One examination with an image.
        class_index: Which logit.

    Raises:
        ExplanationError: There is no image, or the network has no such layer.
    """
    from monai.visualize.class_activation_maps import ModelWithHooks, default_upsampler

    copy, shown, name, cells = _seen(network, inputs)
    hooked = ModelWithHooks(copy, name, register_forward=True, register_backward=True)
    _, features, gradients = hooked(shown, class_idx=class_index)
    small = torch.relu((features[-1] * gradients[-1]).sum(1, keepdim=True))
    values = default_upsampler(shown.shape[2:])(small)[0, 0]
    return Attribution(values.detach().cpu().double().numpy(), cells)


def _seen(network: nn.Module, inputs: Inputs) -> tuple[nn.Module, Tensor, str, tuple[int, ...]]:
    """Return a copy to be hooked, the image, and the name and grid of the target layer."""
    image, covariates = image_and_covariates(inputs)
    for part in network.modules():
        if isinstance(part, IntermediateFusion | LateFusion) and len(part.encoders) > 1:
            why = "each channel of this network has layers of its own"
            raise ExplanationError(_NO_PLACES.format(why=why))
    copy = OfImage(working_copy(network), covariates)
    name, cells = target_layer(copy, image)
    # Frozen layers hand gradients down only to an input that asks for them.
    return copy, image.clone().requires_grad_(True), name, cells


def target_layer(network: nn.Module, image: Tensor) -> tuple[str, tuple[int, ...]]:
    """Return the name of the last layer that still has places, and its grid.

    A layer that works several times is none: its gradient could not be told from the others'.

    Args:
        image: ``(1, C, *spatial)``.

    Raises:
        ExplanationError: There is none, or what follows is a transformer, whose tokens exchange
            what they know of each other's places.
    """
    found, transforms = None, False
    for layer in ran_layers(network, (image,)):
        spatial = layer.shape[2:]
        if len(spatial) == image.ndim - 2 and prod(spatial) > 1 and layer.calls == 1:
            found, transforms = layer, False
        elif len(layer.shape) == 3 and layer.shape[1] > 1:
            transforms = True
    if transforms:
        raise ExplanationError(_NO_PLACES.format(why="this network is a transformer"))
    if found is None:
        raise ExplanationError(_NO_PLACES.format(why="this network has none"))
    return found.name, found.shape[2:]


def _as_it_is(values: torch.Tensor) -> torch.Tensor:
    """MONAI turns maps upside down unless it is given another postprocessing."""
    return values
