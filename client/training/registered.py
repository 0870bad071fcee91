"""The loss and the metrics that an installed package registers, each example by itself."""

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.common.errors import RunError
from wardround.common.files.packages.importing import component
from wardround.common.files.packages.protocols import Loss
from wardround.common.metrics.registered import STEPS, metric_of, sizes
from wardround.common.study.study import Study

Sums = NDArray[np.float64]


class RegisteredLoss:
    """A loss of a package, whose answer is held against its protocol at each call."""

    def __init__(self, name: str, loss: Loss) -> None:
        self._name, self._loss = name, loss

    def __call__(self, logits: Tensor, targets: Tensor, class_weights: Tensor | None) -> Tensor:
        """Return the loss of each example, ``(B,)``.

        Raises:
            RunError: It fails, or gives something else.
        """
        try:
            found = self._loss(logits, targets, class_weights)
        except Exception as error:  # another's code fails in many ways; its text may name data
            msg = (
                f"{self._name} failed ({type(error).__name__}) on outputs of "
                f"{list(logits.shape[1:])}: choose another training.loss, or tell its author."
            )
            raise RunError(msg) from None
        if not isinstance(found, Tensor) or found.shape != logits.shape[:1]:
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            msg = (
                f"{self._name} gives {shape} for {len(logits)} examples, and a loss is one number "
                "an example: choose another training.loss, or tell its author."
            )
            raise RunError(msg)
        if not found.is_floating_point() or (logits.requires_grad and not found.requires_grad):
            kind = "numbers without a gradient" if found.is_floating_point() else str(found.dtype)
            msg = (
                f"{self._name} gives {kind}, by which nothing can be trained: choose another "
                "training.loss, or tell its author."
            )
            raise RunError(msg)
        return found


def registered_loss(study: Study) -> RegisteredLoss:
    """Return the loss that a study names as ``package:name``.

    Raises:
        PackageError: The package is not installed as the study names it.
    """
    name = study.loss
    return RegisteredLoss(name, cast(Loss, component("losses", name, study.packages)))


class RegisteredCounts:
    """Takes in predictions batch by batch, and ends in sums of a package's metrics."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._sums = {name: np.zeros(size) for name, size in sizes(study).items()}

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Count B examinations.

        Raises:
            RunError: A metric fails, or gives something else than ``(B, size)`` finite numbers.
        """
        for name, total in self._sums.items():
            total += self._counted(name, outputs, targets, len(total))

    def sums(self) -> dict[str, Sums]:
        """Return what was counted, by the metric's name."""
        return self._sums

    def _counted(self, name: str, outputs: Tensor, targets: Tensor, size: int) -> Sums:
        found: object
        try:
            found = metric_of(name, self._study).count(outputs.clone(), targets.clone())
        except Exception as error:  # another's code fails in many ways; its text may name data
            msg = f"{name} failed ({type(error).__name__}): remove it, or tell its author."
            raise RunError(msg) from None
        is_table = isinstance(found, Tensor) and found.shape == (len(outputs), size)
        if not isinstance(found, Tensor) or not is_table or found.is_complex():
            msg = f"{name} gives no {size} numbers an examination: remove it, or tell its author."
            raise RunError(msg)
        numbers = found.detach().to("cpu", torch.float64)
        if not bool(numbers.isfinite().all()):
            msg = f"{name} counts something that is no number: remove it, or tell its author."
            raise RunError(msg)
        # Coarse steps: what is summed has room for a count, and for little else.
        kept: Sums = ((numbers.clamp(0, 1) * STEPS).round() / STEPS).sum(0).numpy()
        return kept
