"""How sure a segmentation is of each voxel, as a map; and whether that is where it errs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wardround.client.clinic.explanations.attribution import ExplanationError, Floats
from wardround.client.data.batch import Batch
from wardround.client.training.evaluation import evaluating, predict
from wardround.common.runtime.seeds import dropout_seeded
from wardround.common.study.study import Study

_PASSES = 10  # with dropout
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)

Uncertainty: TypeAlias = Callable[[Sequence[nn.Module], Batch, Study], Tensor]
"""From networks (the first is the one explained) to mean probabilities ``(K, *spatial)``."""


def one_pass(networks: Sequence[nn.Module], batch: Batch, study: Study) -> Tensor:
    """Return the network's own probabilities ``(K, *spatial)``."""
    with evaluating(networks[0]):
        return _probabilities(networks[0], batch, study)


def flipped(networks: Sequence[nn.Module], batch: Batch, study: Study) -> Tensor:
    """Return the mean ``(K, *spatial)`` over the image as it is and flipped along each axis."""
    if batch.images is None:
        msg = "test-time-augmentation needs an image: use entropy."
        raise ExplanationError(msg)
    found = []
    with evaluating(networks[0]):
        for axes in ((), *((axis,) for axis in range(2, batch.images.ndim))):
            turned = Batch(batch.images.flip(axes), batch.covariates, batch.targets)
            probabilities = _probabilities(networks[0], turned, study)
            found.append(probabilities.flip([axis - 1 for axis in axes]))
    return torch.stack(found).mean(0)


def with_dropout(networks: Sequence[nn.Module], batch: Batch, study: Study) -> Tensor:
    """Return the mean over passes with other values dropped (Gal and Ghahramani 2016).

    Raises:
        ExplanationError: The network drops none.
    """
    network = networks[0]
    drops = dropout_layers(network)
    if not drops:
        msg = (
            "dropout needs a network that was trained with it, and this one drops nothing: use "
            "entropy or test-time-augmentation, or train with model.dropout."
        )
        raise ExplanationError(msg)
    device = batch.targets.device
    with evaluating(network), dropout_seeded(0, device), dropping(drops):
        passes = [_probabilities(network, batch, study) for _ in range(_PASSES)]
    return torch.stack(passes).mean(0)


def together(networks: Sequence[nn.Module], batch: Batch, study: Study) -> Tensor:
    """Return the mean over several networks: all sites' own, in a simulation.

    Raises:
        ExplanationError: There is only one.
    """
    if len(networks) < 3:  # the one explained, and two or more beside it
        msg = (
            "ensemble needs the models that two or more sites trained alone, and the run has none: "
            "use entropy, or run the study with simulation.compare = true."
        )
        raise ExplanationError(msg)
    return torch.stack([one_pass([one], batch, study) for one in networks[1:]]).mean(0)


UNCERTAINTIES: Mapping[str, Uncertainty] = {
    "entropy": one_pass,
    "test-time-augmentation": flipped,
    "dropout": with_dropout,
    "ensemble": together,
}


def entropy(probabilities: Tensor) -> Floats:
    """Return ``(*spatial)``: the entropy of ``(K, *spatial)`` probabilities, 1 if all are equal."""
    p = probabilities.double().clamp_min(1e-12)
    bits = -(p * p.log()).sum(0) / np.log(len(p))
    return np.asarray(bits.cpu().numpy(), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class ErrorLikeness:
    """Whether a map of uncertainty shows where the marks are wrong.

    Attributes:
        auroc: That a wrong voxel is less sure than a right one; NaN where none, or all, are wrong.
        wrong: Share of voxels that are marked wrongly.
        caught: Share of the wrong voxels among the twentieth of voxels that is least sure.
    """

    auroc: float
    wrong: float
    caught: float


def errors_found(uncertainty: Floats, wrong: NDArray[np.bool_]) -> ErrorLikeness:
    """Say whether a map of uncertainty shows where the marks are wrong.

    Args:
        uncertainty: ``(*spatial)``.
        wrong: ``(*spatial)``.
    """
    from scipy.stats import rankdata

    ranks, is_wrong = rankdata(uncertainty.ravel()), wrong.ravel()
    bad, good = int(is_wrong.sum()), int((~is_wrong).sum())
    if not bad or not good:
        return ErrorLikeness(float("nan"), bad / max(1, bad + good), float("nan"))
    auroc = (float(ranks[is_wrong].sum()) - bad * (bad + 1) / 2) / (bad * good)
    least_sure = ranks > 0.95 * len(ranks)
    return ErrorLikeness(auroc, bad / len(ranks), float((is_wrong & least_sure).sum()) / bad)


def _probabilities(network: nn.Module, batch: Batch, study: Study) -> Tensor:
    return predict(network, batch, study)[0].softmax(0)


def dropout_layers(network: nn.Module) -> list[nn.Module]:
    """Return the layers of a network that drop values while it is trained."""
    return [m for m in network.modules() if isinstance(m, _DROPOUTS) and m.p > 0]


@contextmanager
def dropping(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Have the layers drop values; :func:`evaluating`, around it, puts their modes back."""
    for layer in layers:
        layer.training = True
    yield
