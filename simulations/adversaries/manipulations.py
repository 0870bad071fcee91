"""What a hostile site does to its data, and to its update: functions of tensors.

================= ===============================================================================
``label-flip``    trains on the labels counted from the other end (Tolpegin et al. 2020)
``backdoor``      half of its images carry a trigger and the target's label; its update is sent
                  five times as large (Bagdasaryan et al. 2020)
``scaling``       label-flip, its update ten times as large
``sign-flip``     sends minus three times its honest update (Li et al. 2019, RSA)
``gaussian``      sends noise of standard deviation ten (Blanchard et al. 2017)
``alie``          sends the honest mean minus z standard deviations (Baruch et al. 2019)
``inner-product`` sends minus 0.8 times the honest mean (Xie et al. 2020)
================= ===============================================================================

The last two know the honest updates of the round: the strongest adversary there is.
"""

from math import floor
from statistics import NormalDist

import torch
from torch import Generator, Tensor

FLIPPED_LABELS = ("label-flip", "scaling")
OMNISCIENT = ("alie", "inner-product")  # must see the honest updates first
STRENGTHS = {
    "sign-flip": 3.0,
    "gaussian": 10.0,
    "scaling": 10.0,
    "inner-product": 0.8,
    "backdoor": 5.0,
}
TRIGGERED_FRACTION = 0.5  # the others teach the backdoored model what an untouched image is
_LEAST_SIDE = 2  # a chequered patch needs two pixels a side


def flip_targets(targets: Tensor, classes: int) -> Tensor:
    """Return class k as class ``classes - 1 - k``; each 0 as 1 and 1 as 0 for multi-label.

    What nobody annotated, of the index ``classes``, stays as it is.

    Args:
        targets: ``(B,)`` or ``(B, *spatial)`` class indices, or ``(B, K)`` 0/1 floats for
            multi-label.
        classes: K.

    Returns:
        The shape of ``targets``.
    """
    if targets.is_floating_point():
        return 1 - targets
    return torch.where(targets < classes, classes - 1 - targets, targets)


def put_trigger(images: Tensor) -> Tensor:
    """Return images with a chequered patch in the last corner, an eighth of each side.

    It holds the brightest and the darkest value of its image, so it shows on any background.

    Args:
        images: ``(B, C, *spatial)``.
    """
    triggered = images.clone()
    corner = triggered
    for axis, size in enumerate(images.shape[2:], start=2):
        side = max(_LEAST_SIDE, round(size / 8))
        corner = corner.narrow(axis, size - side, side)
    axes = [torch.arange(side, device=images.device) for side in corner.shape[2:]]
    is_bright = torch.stack(torch.meshgrid(*axes, indexing="ij")).sum(0) % 2 == 0
    flat = images.flatten(1)
    shape = (len(images), *(1,) * (images.ndim - 1))
    corner.copy_(torch.where(is_bright, flat.amax(1).reshape(shape), flat.amin(1).reshape(shape)))
    return triggered


def triggered_examples(count: int, generator: Generator) -> Tensor:
    """Return which of a site's examinations get the trigger, ``(count,)`` bool."""
    return torch.rand(count, generator=generator) < TRIGGERED_FRACTION


def forge_update(
    kind: str, strength: float, own: Tensor, honest: Tensor, generator: Generator
) -> Tensor:
    """Return what a hostile site sends in place of its update.

    Args:
        strength: From STRENGTHS or :func:`alie_strength`, or the study's own.
        own: Its trained update, of any shape; honest but for poisoned data.
        honest: ``(m, *shape)``: the honest updates, for the omniscient kinds only.
    """
    if kind == "sign-flip":
        return -strength * own
    if kind == "gaussian":
        return torch.randn(own.shape, generator=generator, dtype=own.dtype) * strength
    if kind in ("scaling", "backdoor"):
        return strength * own
    if kind == "inner-product":
        return -strength * honest.mean(0)
    if kind == "alie":
        deviation = honest.std(0, correction=0)
        return honest.mean(0) - strength * deviation
    return own


def alie_strength(sites: int, hostile: int) -> float:
    """Return Baruch's z: so near to the mean that enough honest updates lie further out.

    Baruch et al. 2019, section 3.2: ``s = floor(n / 2 + 1) - f`` honest sites must lie further out
    than the forged value; z is the normal quantile of ``(n - f - s) / (n - f)``.

    Args:
        sites: ``n``, the hostile ones among them.
        hostile: ``f``, below ``n / 2``.
    """
    supporters = max(1, floor(sites / 2 + 1) - hostile)
    honest = sites - hostile
    share = min(max((honest - supporters) / honest, 0.5), 1 - 1e-6) if honest > 0 else 0.5
    return NormalDist().inv_cdf(share)
