"""The combinations that trust their sites and need more than the updates."""

from collections.abc import Iterator

from torch import Tensor

from wardround.common.errors import RunError
from wardround.common.messages.replies import SiteUpdate
from wardround.common.models.sharing import RECEIVED_LOSS
from wardround.common.parameters.schema import Model, Parameters
from wardround.common.parameters.steps import effective_steps
from wardround.common.study.sections.training import TrainingSection
from wardround.server.strategies.aggregation.base import WeightedMean

_LARGEST_LOSS = 1e6  # beyond any of a model that learns; its powers stay finite
_LEAST_LOSS = 1e-10  # a loss of 0 to a negative power is no number


class Mean:
    """The mean in which every site counts the same, however many patients it has. Streams."""

    streams = True

    def __init__(self) -> None:
        self._mean = WeightedMean()

    def accumulate(self, update: SiteUpdate) -> None:
        """Add one site's model to the sum."""
        self._mean.accumulate_tensors(update.parameters.items(), 1)

    def finish(self) -> Parameters:
        """Return the mean and forget the sum."""
        return self._mean.finish()


class NormalisedMean:
    """FedNova (Wang et al. 2020, equation 9 and section 4.2): changes divided by their steps.

    ``x + tau_eff * sum_i p_i (y_i - x) / |a_i|`` with ``tau_eff = sum_i p_i |a_i|``. A site that
    makes more steps then no longer pulls the model to its own optimum. ``|a_i|`` is the number of
    steps, or for SGD with momentum the sum of what each gradient contributes. The paper treats SGD;
    a step of Adam counts as one, which is right in so far as each has the same length.

    Streams.
    """

    streams = True

    def __init__(self, model: Model, trainable: frozenset[str], training: TrainingSection) -> None:
        self._model = model
        self._trainable = trainable
        self._momentum = training.momentum
        self._whole = WeightedMean()
        self._steps = 0.0
        self._weight = 0

    def accumulate(self, update: SiteUpdate) -> None:
        """Add one site's change, divided by its steps."""
        if update.examinations < 1:
            msg = "the site trained on no examinations: its update has no weight."
            raise RunError(msg)
        length = effective_steps(update.updates, self._momentum)
        self._steps += update.examinations * length
        self._weight += update.examinations
        scaled = (
            (name, (tensor - self._model[name]).div_(length) if name in self._trainable else tensor)
            for name, tensor in update.parameters.items()
        )
        self._whole.accumulate_tensors(scaled, update.examinations)

    def finish(self) -> Parameters:
        """Return the model moved by the effective number of mean steps."""
        combined = self._whole.finish()
        effective = self._steps / self._weight
        for name in self._trainable & combined.keys():
            combined[name] = self._model[name] + combined[name].mul_(effective)
        self._steps, self._weight = 0.0, 0
        return combined


class FairMean:
    """q-FedAvg (Li et al. 2020, ICLR, algorithm 2): sites where the model does badly count more.

    With ``L = 1 / learning rate``, ``D_k = L (x - y_k)`` and the received model's loss ``F_k``:
    ``x - sum_k F_k^q D_k / sum_k (q F_k^(q-1) |D_k|^2 + L F_k^q)``. All sites count the same
    but for their loss; with q = 0 it is their plain mean.

    Streams.
    """

    streams = True

    def __init__(
        self, model: Model, trainable: frozenset[str], learning_rate: float, fairness: float
    ) -> None:
        self._model = model
        self._trainable = trainable
        self._lipschitz = 1 / learning_rate
        self._fairness = fairness
        self._whole = WeightedMean()
        self._divisor = 0.0
        self._sites = 0

    def accumulate(self, update: SiteUpdate) -> None:
        """Add one site's direction, times its loss to the power q."""
        loss = max(float(update.auxiliary[RECEIVED_LOSS]), _LEAST_LOSS)
        if loss > _LARGEST_LOSS:
            msg = f"the site says a loss of {loss:.3g}, above {_LARGEST_LOSS:g}: not counted."
            raise RunError(msg)
        force = loss**self._fairness
        squared = 0.0
        for name in sorted(self._trainable & update.parameters.keys()):
            direction = (self._model[name] - update.parameters[name]).mul_(self._lipschitz)
            squared += float(direction.double().square().sum())
        self._divisor += self._fairness * loss ** (self._fairness - 1) * squared
        self._divisor += self._lipschitz * force
        self._sites += 1
        self._whole.accumulate_tensors(self._forced(update.parameters, force), 1)

    def finish(self) -> Parameters:
        """Return the model moved against the sum of the directions."""
        combined = self._whole.finish()
        factor = self._sites / self._divisor
        for name in self._trainable & combined.keys():
            combined[name] = self._model[name] - combined[name].mul_(factor)
        self._divisor, self._sites = 0.0, 0
        return combined

    def _forced(self, parameters: Parameters, force: float) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in parameters.items():
            if name in self._trainable:
                yield name, (self._model[name] - tensor).mul_(self._lipschitz * force)
            else:
                yield name, tensor


class InTurn:
    """The model of the site that was visited last (Chang et al. 2018)."""

    streams = True

    def __init__(self) -> None:
        self._model: Parameters = {}

    def accumulate(self, update: SiteUpdate) -> None:
        """Keep this site's model."""
        self._model = update.parameters

    def finish(self) -> Parameters:
        """Return the last site's model.

        Raises:
            RunError: No update was taken in.
        """
        if not self._model:
            msg = "no update to combine: every site refused or is empty."
            raise RunError(msg)
        return dict(self._model)
