"""Grad-CAM (Selvaraju 2017): where the last layer that still has places speaks for a class."""

from math import prod

import torch
from torch import Tensor, nn

from wardround.client.explanations.attribution import (
    Attribution,
    ExplanationError,
    Inputs,
    OfImage,
    image_and_covariates,
    working_copy,
)
from wardround.client.explanations.layers import ran_layers

_NO_PLACES = (
    "grad-cam needs a convolutional layer whose output still has places, and {why}: use "
    "integrated-gradients or occlusion, which work with any network."
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

    image, covariates = image_and_covariates(inputs)
    copy = OfImage(working_copy(network), covariates)
    name, cells = target_layer(copy, image)
    shown = image.clone().requires_grad_(True)  # frozen layers then still hand gradients down
    camera = GradCAM(nn_module=copy, target_layers=name, postprocessing=_as_it_is)
    values = camera(shown, class_idx=class_index)[0, 0]
    return Attribution(values.detach().cpu().double().numpy(), cells)


def target_layer(network: nn.Module, image: Tensor) -> tuple[str, tuple[int, ...]]:
    """Return the name of the last layer that still has places, and its grid.

    A layer that works several times is none: its gradient could not be told from the others'.

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
