"""Strategies on plain arrays: a researcher's updates through the rules that the server runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn

from wardround.common.errors import InputError, ModelError, RunError, known_names, nearest
from wardround.common.messages.replies import SiteUpdate
from wardround.common.models.sharing import Layout
from wardround.common.parameters.schema import Parameters
from wardround.common.study.plans.strategy import (
    AGGREGATION_RULES,
    FLOWER,
    PRESETS,
    StrategyPlan,
    describe_aggregation,
    fewest_sites,
    plan_from,
)
from wardround.common.study.sections.federation import FederationSection, StrategyOptions
from wardround.common.study.sections.training import TrainingSection
from wardround.server.strategies.composed import ComposedStrategy, Setting
from wardround.simulations.notebook.tables import Table, as_table

Array: TypeAlias = Tensor | NDArray[Any]
Update: TypeAlias = Mapping[str, Array] | nn.Module


@dataclass(frozen=True, slots=True)
class StrategyRow:
    """A strategy as its four choices, and where it is described."""

    strategy: str
    shared: str
    objective: str
    aggregation: str
    server_optimiser: str
    paper: str


def list_strategies() -> Table:
    """Return every strategy that a study may name, as a table."""
    rows = [
        StrategyRow(
            name, row.share, row.objective, row.aggregation, row.server_optimiser, row.paper
        )
        for name, row in PRESETS.items()
    ]
    return as_table(rows, StrategyRow)


def aggregate(
    updates: Sequence[Update],
    strategy: str = "fedavg",
    *,
    weights: Sequence[float] | None = None,
    model: Update | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Return the model that a strategy makes of the sites' models in one round.

    Args:
        updates: The sites' models after their training: arrays or tensors by name, or torch
            modules. Integers are averaged and rounded.
        strategy: A strategy (``"fedavg"``) or a rule of aggregation (``"krum"``), see
            :func:`list_strategies`.
        weights: How much each site counts, e.g. its training examinations; all the same if absent.
        model: The model that the round started from; rules that look at the sites' changes need
            it, and take zeros where it is absent.
        options: Keys of the study's ``[federation.options]``, e.g. ``assumed_hostile=1``.

    Returns:
        Arrays by name, tensors where the first update holds tensors.

    Raises:
        InputError: There is no such strategy or option, or it needs more than updates.
        ModelError: The updates are not of one model.
        RunError: They are too few for the rule.
    """
    if not updates:
        msg = "no update to combine: give one a site."
        raise InputError(msg)
    start = _zeros(_named(updates[0], "update 1")) if model is None else model
    aggregator = Aggregator(start, strategy, **options)
    combined = aggregator.step(updates, weights=weights)
    return _as_given(combined, updates[0])


class Aggregator:
    """A strategy over rounds: it remembers what its server step remembers (FedAdam's moments, ...).

    ``model`` is the latest model; :meth:`step` makes the next one of the sites' updates.
    """

    def __init__(self, model: Update, strategy: str = "fedavg", **options: Any) -> None:
        """Begin with a model.

        Args:
            model: Arrays or tensors by name, or a torch module.
            strategy: As for :func:`aggregate`.
            options: Keys of the study's ``[federation.options]``.

        Raises:
            InputError: There is no such strategy or option, or it needs more than updates.
        """
        self._given = model
        self._model = _named(model, "the model")
        self._plan = _plan(strategy, options)
        self._strategy: ComposedStrategy | None = None
        self._round = 0
        self._state: Parameters = {}

    @property
    def model(self) -> dict[str, Any]:
        """The latest model, arrays or tensors by name as the first one was given."""
        return _as_given(self._model, self._given)

    @property
    def description(self) -> str:
        """How the updates are combined, in words."""
        return describe_aggregation(self._plan)

    def step(
        self, updates: Sequence[Update], *, weights: Sequence[float] | None = None
    ) -> dict[str, Any]:
        """Take a round's updates in, and return the next model.

        Args:
            updates: As for :func:`aggregate`.
            weights: As for :func:`aggregate`.

        Raises:
            InputError: The weights are not one an update, or not above 0.
            ModelError: An update is not of this model.
            RunError: They are too few for the rule.
        """
        models = [_named(update, f"update {at}") for at, update in enumerate(updates, start=1)]
        counts = _counts(weights, len(models))
        for at, one in enumerate(models, start=1):
            _require_alike(one, self._model, at)
            models[at - 1] = {name: one[name].to(self._model[name].dtype) for name in self._model}
        if len(models) < fewest_sites(self._plan):
            msg = (
                f"{len(models)} updates are too few for {self._plan.aggregation} against "
                f"{self._plan.options.assumed_hostile} hostile: give at least "
                f"{fewest_sites(self._plan)}, or another assumed_hostile."
            )
            raise RunError(msg)
        trainable = frozenset(n for n, t in self._model.items() if t.is_floating_point())
        layout = Layout(trainable, tuple(self._model), ())
        setting = Setting(self._plan, TrainingSection(), layout, sum(counts), len(models))
        server = ComposedStrategy(setting)
        server.restore(self._state)
        server.begin(self._round + 1, self._model)
        for at, (one, count) in enumerate(zip(models, counts, strict=True), start=1):
            server.accumulate(_update(at, one, count, self._round + 1))
        self._model = server.finish()
        self._state = server.state()
        self._round += 1
        return self.model


def _plan(strategy: str, options: Mapping[str, Any]) -> StrategyPlan:
    known = {*PRESETS, *AGGREGATION_RULES}
    if strategy.startswith(FLOWER) or strategy not in known:
        raise InputError(known_names("strategy", strategy, known))
    if unknown := sorted(options.keys() - StrategyOptions.model_fields.keys()):
        raise InputError(
            known_names("option of a strategy", unknown[0], StrategyOptions.model_fields)
        )
    try:
        numbers = StrategyOptions(**options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name, said = ".".join(map(str, first["loc"])), str(first["msg"])
        msg = f"{name} = {first['input']!r} cannot be used: {said[0].lower()}{said[1:]}."
        raise InputError(msg) from None
    federation = (
        FederationSection(strategy=strategy, options=numbers)
        if strategy in PRESETS
        else FederationSection(aggregation=strategy, options=numbers)
    )
    plan = plan_from(federation)
    needs = {
        "control-variates": "each site's control variate",
        "dynamic": "what each site remembers of its drift",
        "fair-mean": "each site's loss",
        "normalised-mean": "each site's number of steps",
    }
    for choice in (plan.objective, plan.aggregation):
        if choice in needs:
            msg = (
                f"strategy {strategy!r} needs {needs[choice]} beside the updates: run it with "
                "wardround.simulate."
            )
            raise InputError(msg)
    return plan


def _named(update: Update, what: str) -> Parameters:
    """Return tensors by name, copied.

    Raises:
        ModelError: It is not what a model is.
    """
    held = update.state_dict() if isinstance(update, nn.Module) else update
    if not isinstance(held, Mapping) or not held:
        msg = (
            f"{what} is {type(update).__name__}: give arrays or tensors by name, e.g. "
            "network.state_dict(), or a torch module."
        )
        raise ModelError(msg)
    return {str(name): _tensor(name, value, what) for name, value in held.items()}


def _tensor(name: str, value: Array, what: str) -> Tensor:
    try:
        tensor = value.detach().cpu() if isinstance(value, Tensor) else torch.tensor(value)
    except (TypeError, ValueError, RuntimeError):
        msg = f"{name} of {what} is {type(value).__name__}: give an array of numbers or a tensor."
        raise ModelError(msg) from None
    return tensor.clone()


def _require_alike(update: Parameters, model: Parameters, at: int) -> None:
    missing = [name for name in model if name not in update]
    further = [name for name in update if name not in model]
    if missing or further:
        name = (missing or further)[0]
        has = "lacks" if missing else "has"
        close = nearest(name, further if missing else model)
        hint = f" (it has {close!r})" if missing and close else ""
        msg = f"update {at} {has} {name!r}{hint}: give the same names in each."
        raise ModelError(msg)
    for name, tensor in update.items():
        if tensor.shape != model[name].shape:
            shapes = [tuple(one.shape) for one in (tensor, model[name])]
            msg = (
                f"{name} of update {at} has the shape {shapes[0]}, and the model's {shapes[1]}: "
                "give models of one network."
            )
            raise ModelError(msg)


def _counts(weights: Sequence[float] | None, updates: int) -> list[int]:
    """Return whole weights in the given proportions."""
    if weights is None:
        return [1] * updates
    numbers = [float(one) for one in weights]
    if len(numbers) != updates:
        msg = f"{len(numbers)} weights were given for {updates} updates: give one an update."
        raise InputError(msg)
    for at, one in enumerate(numbers, start=1):
        if not 0 < one < float("inf"):
            msg = f"weight {at} is {one:g}: give a number above 0, e.g. training examinations."
            raise InputError(msg)
    if all(one.is_integer() for one in numbers):
        return [int(one) for one in numbers]
    return [max(1, round(one / max(numbers) * 1_000_000)) for one in numbers]


def _update(at: int, parameters: Parameters, count: int, number: int) -> SiteUpdate:
    return SiteUpdate(f"site-{at}", "", number, 0, parameters, count, 1, 0.0, 0.0)


def _zeros(update: Parameters) -> Parameters:
    return {name: torch.zeros_like(tensor) for name, tensor in update.items()}


def _as_given(parameters: Mapping[str, Any], given: Update) -> dict[str, Any]:
    held = given.state_dict() if isinstance(given, nn.Module) else given
    arrays = not any(isinstance(value, Tensor) for value in held.values())
    return {
        name: np.asarray(value) if arrays else torch.as_tensor(value)
        for name, value in parameters.items()
    }
