"""What a task must say of itself, so that the rest of a site need not know which one it is.

A new task is a file beside ``classification.py`` and a row in ``registry.py``; its sums are a file
in ``common/metrics``, and what it asks of a study is a row in ``common/study/registry.py``.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Generator, Tensor

from wardround.common.metrics.task_sums import TaskSums
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.client.data.batch import Batch

# From the network's positional arguments (images, covariates, or both) to float32 outputs.
Forward = Callable[..., Tensor]
Spacing = tuple[float, ...]
Box = tuple[slice, ...]
Label = tuple[float, ...]


class UnusableLabelError(ValueError):
    """A cell of the column label cannot be used; says the fact and the remedy, never the cell."""

    def __init__(self, fact: str, remedy: str) -> None:
        super().__init__(fact)
        self.fact = fact
        self.remedy = remedy


class Labels(Protocol):
    """How the column label of a manifest becomes what the loss compares with."""

    def read(self, text: str, study: Study) -> Label:
        """Return the numbers that a cell stands for.

        Raises:
            UnusableLabelError: It is empty, or not a label of the study.
        """

    def stack(self, labels: Sequence[Label], study: Study) -> Tensor:
        """Return the targets ``(N, ...)`` of N examinations, in the type that the loss takes."""


class Counter(Protocol):
    """Takes in the predictions for a cohort, batch by batch, and ends in sums."""

    def add(self, outputs: Tensor, targets: Tensor, spacings_mm: Sequence[Spacing] | None) -> None:
        """Count a batch of B examinations.

        Args:
            outputs: ``(B, ...)`` float32, as :meth:`Task.predict` returned them.
            targets: ``(B, ...)`` on the same device.
            spacings_mm: The voxel size of each image; None where surfaces are not asked for.
        """

    def sums(self) -> TaskSums:
        """Return what was counted; called once, after every output was found to be finite."""


class PartsCounter(Protocol):
    """Counts one batch whose outputs come in parts."""

    def add(self, place: Box, outputs: Tensor) -> Tensor:
        """Count a part.

        Args:
            place: Where it lies in ``(B, K, *spatial)``.
            outputs: ``(B, K, *part)`` float32.

        Returns:
            Its targets, ``(B, *part)``.
        """


@runtime_checkable
class CountsParts(Protocol):
    """A counter that needs no batch's outputs whole."""

    def in_parts(self, targets: Tensor, keeps_classes: bool) -> PartsCounter:
        """Return a counter of one batch.

        Args:
            targets: ``(B, *spatial)``.
            keeps_classes: Whether surfaces will be measured.
        """

    def add_parts(self, parts: PartsCounter, spacings_mm: Sequence[Spacing] | None) -> None:
        """Count a batch of which all parts were taken in."""


@runtime_checkable
class CountsLabels(Protocol):
    """A counter of masks that also takes what was found on an image's own grid."""

    def add_labels(self, found: Tensor, truth: Tensor, spacing_mm: Spacing | None) -> None:
        """Count one examination.

        Args:
            found: ``(*spatial)`` classes, of any whole type.
            truth: ``(*spatial)`` classes, on the same device.
            spacing_mm: The voxel size; None where surfaces are not asked for.
        """


@runtime_checkable
class PredictsInParts(Protocol):
    """A task whose outputs may be too large to be kept, so that they are reduced on the way."""

    def predict_in_parts(
        self, forward: Forward, batch: "Batch", study: Study
    ) -> Iterator[tuple[Box, Tensor]] | None:
        """Yield where each part lies in ``(B, K, *spatial)`` and its outputs, float32.

        None where a study has outputs that are small enough.
        """


@runtime_checkable
class AnswersNumbers(Protocol):
    """A task without classes: what it says of an examination is numbers with names."""

    def answers(self, outputs: Tensor, study: Study) -> tuple[tuple[str, ...], Tensor]:
        """Return M names, and ``(B, M)`` float64: the numbers of each examination.

        Args:
            outputs: ``(B, ...)``, as :meth:`Task.predict` returned them.
            study: Says unit and scale.
        """


@runtime_checkable
class BoundsLabels(Protocol):
    """A task of masks whose measurement can be taken on an image's own grid."""

    def bounded_labels(self, found: Tensor, truth: Tensor, study: Study) -> NDArray[np.float64]:
        """Return what :meth:`Task.bounded` returns, of one examination, ``(1, D - 2)``.

        Args:
            found: ``(*spatial)`` classes, of any whole type.
            truth: ``(*spatial)`` classes, on the same device.
        """


@runtime_checkable
class AnswersFromOutputs(Protocol):
    """A task whose answer is made of a network's outputs, of which the loss is."""

    def outputs(self, forward: Forward, batch: "Batch", study: Study) -> Tensor:
        """Return what the loss takes, ``(B, ...)`` float32."""

    def answer(self, outputs: Tensor, study: Study) -> Tensor:
        """Return what :meth:`Task.predict` returns, of outputs that need not be finite."""


@runtime_checkable
class HidesParts(Protocol):
    """A task that hides parts of the images from the network, which is to restore them."""

    def hide(self, batch: "Batch", study: Study, generator: Generator | None) -> "Batch":
        """Return the batch with hidden parts, and what they were as its targets.

        Args:
            batch: Images ``(B, C, *spatial)`` on any device.
            generator: Of the CPU, draws the parts; None hides the same ones of every image.
        """


class Task(Protocol):
    """One task, from the manifest to the sums that may leave a site."""

    @property
    def labels(self) -> Labels | None:
        """How labels are read; None where the target is a mask on the image's grid, or boxes."""

    def cases_of_classes(self, targets: Tensor, study: Study) -> Tensor | None:
        """Return ``(K,)`` int64: examinations that are of each class, or whose mask holds it.

        Args:
            targets: Of N examinations, as :meth:`Labels.stack` returns them; ``(N, K)`` 0/1 for
                masks: which classes each holds; ``(N, M, 1 + 2 dims)`` boxes.
            study: Says the classes.

        Returns:
            None where examinations have no classes.
        """

    def predict(self, forward: Forward, batch: "Batch", study: Study) -> Tensor:
        """Return the network's outputs for whole examinations, ``(B, ...)`` float32."""

    def decide(self, outputs: Tensor, study: Study) -> Tensor:
        """Return what outputs ``(B, ...)`` say is to be found: in the shape of the targets."""

    def bounded(self, outputs: Tensor, targets: Tensor, study: Study) -> NDArray[np.float64]:
        """Return what each of B examinations adds to a measurement that noise is added to.

        Args:
            outputs: ``(B, ...)`` float32, as :meth:`predict` returned them; need not be finite.
            targets: ``(B, ...)`` on the same device.
            study: Says the classes.

        Returns:
            ``(B, D - 2)``, as :mod:`wardround.common.metrics.noised.encoding` says for the task.
        """

    def counter(self, study: Study, surfaces: bool) -> Counter:
        """Return a counter of a new evaluation.

        Args:
            surfaces: Measure what takes far longer than the network, too: HD95, surface Dice.
        """
