"""Occlusion (Zeiler 2014): how far a class's score falls where a part of the image is hidden."""

import warnings

import torch
from torch import nn

from wardround.client.clinic.explanations.attribution import (
    Attribution,
    Inputs,
    OfImage,
    image_and_covariates,
    working_copy,
)

_BOXES_A_SIDE = {2: 8, 3: 4}  # with half overlap 15 x 15 and 7 x 7 x 7 runs of the network
_OVERLAP = 0.5  # MONAI's own default has changed between versions, and coarse maps with it
_SMALLEST = 2  # voxels: a side of a hidden box
_AT_ONCE = 16


def occlusion(network: nn.Module, inputs: Inputs, class_index: int) -> Attribution:
    """Return by how much the logit falls where a soft box around a place is hidden.

    MONAI's occlusion sensitivity. A box is an eighth of a side of a picture and a quarter of a
    side of a volume, so that the network runs at most 225 or 343 times whatever the size.

    Args:
        network: Its mode and numbers stay as they are.
        inputs: One examination with an image.
        class_index: Which logit.

    Raises:
        ExplanationError: There is no image.
    """
    from monai.visualize import OcclusionSensitivity

    image, covariates = image_and_covariates(inputs)
    copy = OfImage(working_copy(network), covariates).requires_grad_(False)
    spatial = tuple(image.shape[2:])
    sides = _BOXES_A_SIDE[len(spatial)]
    box = tuple(min(side, max(_SMALLEST, -(-side // sides))) for side in spatial)
    method = OcclusionSensitivity(
        nn_module=copy,
        mask_size=box,
        n_batch=_AT_ONCE,
        verbose=False,
        mode="gaussian",
        overlap=_OVERLAP,
        activate=False,
    )
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # MONAI indexes as torch 2.9 will not
        whole = copy(image)[0, class_index]
        hidden, _ = method(image)
    values = (whole - hidden[0, class_index]).cpu().double().numpy()
    cells = tuple(
        -(-side // max(1, length // 2)) for side, length in zip(spatial, box, strict=True)
    )
    return Attribution(values, cells)
