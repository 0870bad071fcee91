"""Any strategy class that Flower ships, by name, as combination and server step in one."""

import inspect
import logging
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, strategy

from wardround.common.errors import RunError
from wardround.common.flower.local import Run, empty_run
from wardround.common.parameters import Parameters, from_array_record, to_array_record
from wardround.common.strategy import FLOWER, StrategyPlan
from wardround.common.update import SiteUpdate
from wardround.server.strategies.strategy import Site

logger = logging.getLogger(__name__)


class StockStrategy:
    """Hands the updates of a round to a class of ``flwr.serverapp.strategy``.

    Only its public ``configure_train`` (which tells it the model) and ``aggregate_train`` are
    called. It needs all updates at once, so memory grows with the number of sites. Integers are
    averaged by it as floats and rounded back; running means and variances are treated as it does.
    """

    def __init__(self, plan: StrategyPlan, sites: int) -> None:
        stock = getattr(strategy, plan.combination.removeprefix(FLOWER))
        self._strategy = stock(**_accepted(stock, plan))
        self._grid = _Nodes(sites)
        self._number = 0
        self._model: Parameters = {}
        self._replies: list[Message] = []

    def waves(self, sites: Sequence[Site]) -> Sequence[Sequence[Site]]:
        """Return all sites at once."""
        return [sites]

    def begin(self, number: int, parameters: Parameters) -> None:
        """Tell it the round and the model."""
        self._number, self._model, self._replies = number, parameters, []
        list(
            self._strategy.configure_train(
                number, to_array_record(parameters), ConfigRecord(), self._grid
            )
        )

    def model(self) -> Parameters:
        """Return the round's model."""
        return self._model

    def extras(self) -> Parameters:
        """Return nothing: the model is all a site gets."""
        return {}

    def fold(self, update: SiteUpdate) -> None:
        """Keep one site's update for the end of the round."""
        metrics = MetricRecord({"num-examples": update.examinations})
        content = RecordDict({"arrays": to_array_record(update.parameters), "metrics": metrics})
        self._replies.append(Message(content, len(self._replies) + 1, "train"))

    def finish(self) -> Parameters:
        """Return what it makes of the updates.

        Raises:
            RunError: It makes nothing of them, e.g. because they are too few.
        """
        name = type(self._strategy).__name__
        try:
            record, _ = self._strategy.aggregate_train(self._number, self._replies)
        except Exception as error:  # a stock class refuses in many ways
            logger.exception("stock strategy %s failed", name)
            msg = f"Flower's {name} could not combine {len(self._replies)} updates: {error}"
            raise RunError(msg) from None
        if not record:
            msg = f"Flower's {name} made no model of {len(self._replies)} updates."
            raise RunError(msg)
        self._replies = []
        combined = from_array_record(record)
        return {
            name: _as(combined[name].reshape(before.shape), before.dtype)
            for name, before in self._model.items()
        }

    def state(self) -> Parameters:
        """Return every array it remembers, as ``attribute/parameter``."""
        return {
            f"{attribute}/{name}": torch.from_numpy(np.array(array))
            for attribute, arrays in vars(self._strategy).items()
            if isinstance(arrays, Mapping)
            for name, array in arrays.items()
            if isinstance(array, np.ndarray) and attribute != "current_arrays"
        }

    def restore(self, state: Parameters) -> None:
        """Give its arrays back."""
        for path, tensor in state.items():
            attribute, _, name = path.partition("/")
            if not isinstance(getattr(self._strategy, attribute), dict):
                setattr(self._strategy, attribute, {})
            getattr(self._strategy, attribute)[name] = tensor.numpy()


class _Nodes(Grid):
    """As many nodes as there are sites, for a class that wants to count them; sends nothing."""

    def __init__(self, count: int) -> None:
        self._count = count

    def set_run(self, run: Run) -> None:
        """Ignore the run."""

    @property
    def run(self) -> Run:
        """Return a run of no number."""
        return empty_run(0)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message that is never sent."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return one id a site."""
        return list(range(1, self._count + 1))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send nothing."""
        return []

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return nothing."""
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Return nothing."""
        return []


def _accepted(stock: type, plan: StrategyPlan) -> dict[str, float | int]:
    """Return the study's options under the names that a stock class has for them."""
    options, rate = plan.options, plan.options.server_learning_rate
    ours: dict[str, float | int] = {
        "min_train_nodes": 1,
        "min_evaluate_nodes": 1,
        "min_available_nodes": 1,
        "num_malicious_nodes": options.assumed_hostile,
        "beta": options.trim_fraction,
        "beta_1": options.server_betas[0],
        "beta_2": options.server_betas[1],
        "tau": options.server_epsilon,
        "server_momentum": options.server_momentum,
    }
    if rate is not None:
        ours.update({"eta": rate, "server_learning_rate": rate})
    known = _parameters_of(stock)
    return {name: value for name, value in ours.items() if name in known}


def _parameters_of(stock: type) -> set[str]:
    return set(inspect.signature(stock).parameters)


def _as(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if dtype.is_floating_point else tensor.round().to(dtype)
