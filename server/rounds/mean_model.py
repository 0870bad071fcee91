"""The mean of the models that the rounds made, the latest counting most: evaluated and released."""

from wardround.common.parameters.schema import Model, Parameters, prefixed, under
from wardround.server.checkpoints.store import MEAN


class MeanModel:
    """An exponential moving average over rounds; training goes on from the last model.

    ``e_t = sum_j d^(t-j) w_j / sum_j d^(t-j)`` over the rounds ``j = 1..t`` (Kingma and Ba 2015,
    section 3, for the division). Integers are those of the last model. It is computed from models
    alone, so it costs no privacy.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._mean: Parameters = {}

    def restore(self, state: Model) -> Parameters:
        """Go on from what a commit remembers; return the rest of it, the strategy's own."""
        self._mean = under(MEAN, state)
        return {name: tensor for name, tensor in state.items() if not name.startswith(MEAN)}

    def take(self, number: int, parameters: Model) -> None:
        """Take the model of a round in; the first is 1."""
        share = (1 - self._decay) / (1 - self._decay**number)
        before = self._mean
        self._mean = {
            name: (
                before[name].lerp(newest, share)
                if name in before and newest.is_floating_point()
                else newest
            )
            for name, newest in parameters.items()
        }

    def state(self) -> Parameters:
        """Return what a commit remembers."""
        return prefixed(MEAN, self._mean)

    def parameters(self) -> Parameters:
        """Return the mean; nothing before the first round."""
        return self._mean
