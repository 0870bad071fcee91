"""What the network says of a batch: whole images, or windows that slide over them."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product

import torch
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.training.schedule import mixed_precision
from wardround.common.study.registry import NETWORKS
from wardround.common.study.study import Study

Box = tuple[slice, ...]
# Sizes of Isensee et al., "nnU-Net", 2021: a window counts less towards its border.
_SIGMA_PER_SIZE = 0.125
_SMALLEST_WEIGHT = 1e-3


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put the network in evaluation mode without gradients; every module's mode is restored."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


def predict(network: nn.Module, batch: Batch, study: Study) -> Tensor:
    """Return the network's logits, float32: ``(B, K)``, or ``(B, K, *spatial)``.

    Segmentations slide windows of ``training.patch_size`` over the images where it is set;
    otherwise each image is seen whole, padded to what the network can divide and cropped back.
    Covariates go with every window of their examination.

    The batch lies on the network's device; call inside :func:`evaluating`.
    """
    images, covariates = batch.images, batch.covariates

    def forward(windows: Tensor, cases: Tensor) -> Tensor:
        inputs = (windows,) if covariates is None else (windows, covariates[cases])
        return _first_output(network(*inputs)).float()

    with mixed_precision(study.training, batch.targets.device):
        if images is None or study.study.task == "classification":
            return _first_output(network(*batch.inputs)).float()
        patch, overlap = study.training.patch_size, study.evaluation.overlap
        if patch is not None:
            return slide_windows(forward, images, patch, overlap, study.training.batch_size)
        padded, inside = _pad(images, _accepted_sizes(images.shape[2:], study))
        every_case = torch.arange(len(images), device=images.device)
        return forward(padded, every_case)[inside]


def slide_windows(
    forward: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    patch: tuple[int, ...],
    overlap: float,
    windows_at_once: int,
) -> Tensor:
    """Return the mean of overlapping windows' logits, each weighted by a Gaussian about its centre.

    Args:
        forward: From windows ``(W, C, *patch)`` and their cases ``(W,)`` to ``(W, K, *patch)``.
        images: ``(B, C, *spatial)``; axes smaller than the patch are padded and cropped back.
        patch: Size of a window, in voxels.
        overlap: Share of a window that the next one covers again, in [0, 1).
        windows_at_once: Windows that make one batch.

    Returns:
        ``(B, K, *spatial)``.
    """
    padded, inside = _pad(images, [max(pair) for pair in zip(images.shape[2:], patch, strict=True)])
    boxes = _window_boxes(padded.shape[2:], patch, overlap)
    weight = gaussian_weight(patch, images.device)
    weights = torch.zeros(padded.shape[2:], device=images.device)
    for box in boxes:
        weights[box] += weight
    windows = [(case, _of_case(case, box)) for case in range(len(images)) for box in boxes]
    total = images.new_zeros(0)
    for start in range(0, len(windows), windows_at_once):
        chunk = windows[start : start + windows_at_once]
        cases = torch.tensor([case for case, _ in chunk], device=images.device)
        logits = forward(torch.cat([padded[place] for _, place in chunk]), cases)
        if start == 0:
            total = logits.new_zeros((len(images), logits.shape[1], *padded.shape[2:]))
        for (_, place), window in zip(chunk, logits, strict=True):
            total[place] += window * weight
    return total.div_(weights)[inside]


def gaussian_weight(patch: tuple[int, ...], device: torch.device) -> Tensor:
    """Return ``(*patch)`` weights in [0.001, 1]: a Gaussian whose sigma is 1/8 of each side."""
    weight = torch.ones(patch, device=device)
    for axis, size in enumerate(patch):
        offset = torch.arange(size, device=device) - (size - 1) / 2
        profile = torch.exp(-0.5 * (offset / (_SIGMA_PER_SIZE * size)) ** 2)
        weight *= profile.reshape([-1 if other == axis else 1 for other in range(len(patch))])
    return weight.clamp_(min=_SMALLEST_WEIGHT)


def _window_boxes(sizes: Sequence[int], patch: tuple[int, ...], overlap: float) -> list[Box]:
    axes = []
    for size, window in zip(sizes, patch, strict=True):
        step = max(int(window * (1 - overlap)), 1)
        count = math.ceil((size - window) / step) + 1
        starts = [min(index * step, size - window) for index in range(count)]
        axes.append([slice(start, start + window) for start in starts])
    return list(product(*axes))


def _accepted_sizes(sizes: Sequence[int], study: Study) -> list[int]:
    """Return the least sizes that hold the image and that the study's network accepts."""
    network, features = NETWORKS[study.model.network], study.model.features
    divisor, minimum = network.divisor_for(features), network.minimum_for(features)
    return [max(math.ceil(size / divisor) * divisor, minimum) for size in sizes]


def _of_case(case: int, box: Box) -> Box:
    return (slice(case, case + 1), slice(None), *box)


def _pad(images: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Box]:
    """Return images padded around their centres, and where the originals lie in them.

    The border takes each image's darkest value, as patches are padded for training.
    """
    given = images.shape[2:]
    before = [(size - had) // 2 for size, had in zip(sizes, given, strict=True)]
    inside = [slice(start, start + had) for start, had in zip(before, given, strict=True)]
    box: Box = (slice(None), slice(None), *inside)
    if list(sizes) == list(given):
        return images, box
    darkest = images.amin(dim=tuple(range(1, images.ndim)), keepdim=True)
    padded = darkest.expand(*images.shape[:2], *sizes).clone()
    padded[box] = images
    return padded, box


def _first_output(outputs: Tensor | Sequence[Tensor]) -> Tensor:
    """Return the final output of a network with deep supervision, or the only one."""
    return outputs if isinstance(outputs, Tensor) else outputs[0]
