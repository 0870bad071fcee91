"""Regression: one number an examination, as an age, an ejection fraction or a score."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.client.tasks.classification import CountsAtTheEnd
from wardround.client.tasks.task import Forward, Label, UnusableLabelError
from wardround.client.tasks.words import number_in
from wardround.common.metrics.noised.encoding import encode_estimates
from wardround.common.metrics.regression import count_estimates
from wardround.common.metrics.task_sums import Sums
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.client.data.batch import Batch


class NumberLabels:
    """Numbers within the study's range."""

    def read(self, text: str, study: Study) -> Label:
        """Return the number of a cell.

        Raises:
            UnusableLabelError: It is empty, no number, or outside ``data.outcome.range``.
        """
        outcome = study.outcome
        number = number_in(text)
        if number is None:
            fact = "the column label is not a number" if text else "the column label is empty"
            raise UnusableLabelError(fact, _remedy(study))
        high = outcome.low + outcome.width
        if not outcome.low <= number <= high:
            fact = (
                f"the column label lies outside data.outcome.range, {outcome.low:g} to "
                f"{outcome.with_unit(high)}"
            )
            raise UnusableLabelError(fact, "mend it, or have the study widen the range")
        return (number,)

    def stack(self, labels: Sequence[Label], study: Study) -> Tensor:
        """Return ``(N, 1)`` float32: what the network is to put out."""
        outcome = study.outcome
        numbers = torch.tensor(labels, dtype=torch.float64).reshape(len(labels), 1)
        return ((numbers - outcome.centre) / outcome.step).float()


def _remedy(study: Study) -> str:
    unit = study.outcome.unit
    return f"write the number of {unit}, and no unit beside it" if unit else "write a number"


class Regression:
    """One number an examination."""

    labels = NumberLabels()

    def cases_of_classes(self, targets: Tensor, study: Study) -> None:
        """Return None: examinations have no classes."""
        return

    def predict(self, forward: Forward, batch: "Batch", study: Study) -> Tensor:
        """Return ``(B, 1)``: the estimates, on the scale of the targets."""
        return forward(*batch.inputs)

    def decide(self, outputs: Tensor, study: Study) -> Tensor:
        """Return the estimates ``(B, 1)``, cut to the range."""
        outcome = study.outcome
        low = (outcome.low - outcome.centre) / outcome.step
        return outputs.clamp(low, low + outcome.width / outcome.step)

    def answers(self, outputs: Tensor, study: Study) -> tuple[tuple[str, ...], Tensor]:
        """Return the outcome's name, and ``(B, 1)``: the estimates in its unit."""
        outcome = study.outcome
        return (outcome.name,), self.decide(outputs.double(), study) * outcome.step + outcome.centre

    def bounded(self, outputs: Tensor, targets: Tensor, study: Study) -> NDArray[np.float64]:
        """Return the moments of each examination, ``(B, D - 2)``."""
        return encode_estimates(in_range(targets, study), in_range(outputs, study))

    def counter(self, study: Study, surfaces: bool) -> CountsAtTheEnd:
        """Return a counter of a new evaluation; there are no surfaces."""
        return CountsAtTheEnd(
            lambda found, truth: count_estimates(in_range(truth, study), in_range(found, study))
        )


def in_range(numbers: Tensor, study: Study) -> Sums:
    """Return ``(N,)`` float64: 0 at the low end of the range, 1 at the high end.

    Args:
        numbers: ``(N, 1)``, on the scale of the targets.
        study: Says range and scale.
    """
    outcome = study.outcome
    values = numbers[:, 0].detach().cpu().double().numpy() * outcome.step + outcome.centre
    found: Sums = (values - outcome.low) / outcome.width
    return found
