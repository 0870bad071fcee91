"""A prepared image with its map as a picture: upright, of a volume the slice that says most."""

import numpy as np
import torch
from numpy.typing import NDArray

from wardround.client.data.batch import Batch
from wardround.client.data.manifest.examination import Examination
from wardround.client.site.folder import Site
from wardround.common.study.study import Study
from wardround.simulations.experiment.testing.samples import (
    as_picture,
    as_stored,
    axes_of,
    upright,
)

Shown = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]


def as_shown(
    seen: tuple[Examination, Batch],
    place: tuple[Site, Study],
    values: NDArray[np.float64],
    mask: NDArray[np.bool_],
) -> Shown:
    """Return the image in 0..1, the map scaled to 0..1, and the mask, of one plane, upright.

    Args:
        seen: The examination and its batch of one, with an image.
        place: Whose it is, and the study.
        values: ``(*spatial)`` of the map, not negative.
        mask: ``(*spatial)``.

    Raises:
        ValueError: The batch has no image.
    """
    examination, batch = seen
    site, study = place
    axes = axes_of(examination, study)
    images = as_stored(examination, batch, site, study).images
    if images is None:
        msg = "a map needs an image"
        raise ValueError(msg)
    image, strength, marked = images[0], torch.from_numpy(values), torch.from_numpy(mask)
    if image.ndim == 4:
        best = int(strength.sum(dim=(0, 1)).argmax())
        image, strength, marked = (part[..., best] for part in (image, strength, marked))
    (image, _), (strength, _), (marked, _) = (
        upright(part, axes, study) for part in (image, strength, marked)
    )
    most = float(strength.max())
    scaled = strength / most if most > 0 else strength
    return as_picture(image, study), scaled.numpy().astype(np.float32), marked.numpy()
