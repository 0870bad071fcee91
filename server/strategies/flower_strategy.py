"""Any strategy class that Flower ships, by name, as combination and server step in one."""

import inspect
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy
from numpy.typing import NDArray

from wardround.common.errors import RunError
from wardround.common.flower.logs import overhear_flower, quieten_flower
from wardround.common.flower.site_grid import SiteGrid, empty_run
from wardround.common.messages.replies import SiteUpdate
from wardround.common.parameters.array_records import from_array_record, to_array_record
from wardround.common.parameters.schema import Model, Parameters
from wardround.common.study.plans.strategy import FLOWER, StrategyPlan
from wardround.server.strategies.aggregation.base import WeightedMean
from wardround.server.strategies.strategy import Site

logger = logging.getLogger(__name__)
_STEPPING = ("FedAdagrad", "FedAdam", "FedAvgM", "FedYogi")  # those with a server optimiser
_LIST = "[]"
_REMEDY = "add sites, or choose another federation.strategy."


class StockStrategy:
    """Hands the updates of a round to a class of ``flwr.serverapp.strategy``.

    Only its public ``configure_train`` (which tells it the model) and ``aggregate_train`` are
    called. It needs all updates at once, so memory grows with the number of sites. Integers are
    averaged by it as floats and rounded back. A class with a server optimiser is given only what a
    gradient changes, since it would step a running variance below zero; the rest is averaged.
    """

    def __init__(self, plan: StrategyPlan, trainable: frozenset[str], sites: int) -> None:
        name = plan.aggregation.removeprefix(FLOWER)
        stock = getattr(strategy, name)
        self._given = trainable if name in _STEPPING else None
        self._others = WeightedMean()
        self._strategy = stock(**_accepted(stock, plan))
        self._grid = _Nodes(sites)
        self._number = 0
        self._model: Parameters = {}
        self._replies: list[Message] = []

    def cohorts(self, sites: Sequence[Site]) -> Sequence[Sequence[Site]]:
        """Return all sites at once."""
        return [sites]

    def begin(self, number: int, parameters: Model) -> None:
        """Tell it the round and the model."""
        self._number, self._model, self._replies = number, dict(parameters), []
        self._others = WeightedMean()
        arrays = to_array_record(self._for_it(self._model))
        with quieten_flower(logging.WARNING):
            list(self._strategy.configure_train(number, arrays, ConfigRecord(), self._grid))

    def model(self) -> Parameters:
        """Return the round's model."""
        return self._model

    def auxiliary(self) -> Parameters:
        """Return nothing: the model is all a site gets."""
        return {}

    def accumulate(self, update: SiteUpdate) -> None:
        """Keep one site's update for the end of the round."""
        metrics = MetricRecord({"num-examples": update.examinations})
        arrays = to_array_record(self._for_it(update.parameters))
        content = RecordDict({"arrays": arrays, "metrics": metrics})
        others = (item for item in update.parameters.items() if not self._is_given(item[0]))
        self._others.accumulate_tensors(others, update.examinations)
        self._replies.append(Message(content, len(self._replies) + 1, "train"))

    def finish(self) -> Parameters:
        """Return what it makes of the updates.

        Raises:
            RunError: It makes nothing of them, e.g. because they are too few.
        """
        name = type(self._strategy).__name__
        try:
            with overhear_flower() as heard:
                record, _ = self._strategy.aggregate_train(self._number, self._replies)
        except Exception as error:  # a stock class refuses in many ways
            logger.exception("stock strategy %s failed", name)
            msg = (
                f"Flower's {name} could not combine {_updates(self._replies)} ({error}): {_REMEDY}"
            )
            raise RunError(msg) from None
        if not record:
            why = f" ({heard[-1].rstrip('.')})" if heard else ""
            msg = f"Flower's {name} made no model of {_updates(self._replies)}{why}: {_REMEDY}"
            raise RunError(msg)
        for line in heard:
            logger.warning("%s: %s", name, line)
        self._replies = []
        combined = {**self._others.finish(), **from_array_record(record)}
        return {
            name: _as(combined[name].reshape(before.shape), before.dtype)
            for name, before in self._model.items()
        }

    def state(self) -> Parameters:
        """Return every array it remembers, as ``attribute/parameter``."""
        return {
            f"{attribute}/{name}": torch.from_numpy(np.array(array))
            for attribute, arrays in _remembered(vars(self._strategy))
            for name, array in arrays
            if isinstance(array, np.ndarray | np.generic)
        }

    def restore(self, state: Parameters) -> None:
        """Give its arrays back."""
        found: dict[str, dict[str, NDArray[np.generic]]] = {}
        for path, tensor in state.items():
            attribute, _, name = path.partition("/")
            found.setdefault(attribute, {})[name] = tensor.numpy()
        for attribute, arrays in found.items():
            if attribute.endswith(_LIST):
                ordered = [arrays[str(place)] for place in range(len(arrays))]
                setattr(self._strategy, attribute.removesuffix(_LIST), ordered)
            else:
                setattr(self._strategy, attribute, arrays)

    def _is_given(self, name: str) -> bool:
        return self._given is None or name in self._given

    def _for_it(self, parameters: Parameters) -> Parameters:
        """Return what it is given, in the model's order: it pairs arrays by their place."""
        return {name: parameters[name] for name in self._model if self._is_given(name)}


def _updates(replies: Sequence[Message]) -> str:
    return f"{len(replies)} update{'' if len(replies) == 1 else 's'}"


def _remembered(
    attributes: Mapping[str, object],
) -> Iterator[tuple[str, Iterable[tuple[str, object]]]]:
    for attribute, arrays in attributes.items():
        if attribute == "current_arrays":
            continue  # the model itself, which each round tells it anew
        if isinstance(arrays, Mapping):
            yield attribute, arrays.items()
        elif isinstance(arrays, list):
            yield attribute + _LIST, ((str(place), array) for place, array in enumerate(arrays))


class _Nodes(SiteGrid):
    """As many nodes as there are sites, for a class that wants to count them; sends nothing."""

    def __init__(self, count: int) -> None:
        super().__init__(empty_run(0))
        self._count = count

    def get_node_ids(self) -> Iterable[int]:
        """Return one id a site."""
        return list(range(1, self._count + 1))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send nothing."""
        return []

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
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
