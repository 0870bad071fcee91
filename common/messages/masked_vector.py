"""The vector that a site masks: its change, weighted, and all that it counts, as whole numbers.

What stands where follows from the study alone, and its hash is part of what all sites sign. So two
sites add the same things up, or nothing.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from wardround.common.errors import RunError
from wardround.common.metrics.records import array_schema, from_arrays, to_arrays
from wardround.common.metrics.sums import MetricSums, empty_sums, merge
from wardround.common.parameters.schema import Model, Parameters, Schema
from wardround.common.privacy.secure_aggregation.context import Configuration
from wardround.common.privacy.secure_aggregation.masks import Words
from wardround.common.study.plans.masking import FRACTION_BITS, MaskingPlan
from wardround.common.study.study import Study

Whole = NDArray[np.int64]
_FACTS = ("weight", "examinations", "steps", "loss")  # a number each, before the metrics
_FRACTION = float(2**FRACTION_BITS)
# From the name of a tensor, and its change as numbers, to whole numbers of the grid with noise.
Noised = Callable[[str, NDArray[np.float64]], Whole]


@dataclass(frozen=True, slots=True)
class Counted:
    """What a site, or all of them, say beside the update.

    Attributes:
        weight: What counts in the mean.
        loss: Sum of the training losses, an examination each.
        metrics: How the received model does on validation patients; None where nobody says.
    """

    weight: int
    examinations: int
    steps: int
    loss: float
    metrics: MetricSums | None


@dataclass(frozen=True, slots=True)
class VectorLayout:
    """What stands where.

    Attributes:
        model: The tensors of an update, in their order.
        metrics: The arrays of what is measured that two sites add up, behind them.
    """

    study: Study
    plan: MaskingPlan
    model: Schema
    metrics: Schema

    @classmethod
    def of(cls, study: Study, plan: MaskingPlan, model: Schema) -> "VectorLayout":
        """Return the layout of a study's vectors.

        Args:
            model: Of what the study shares, in any order.
        """
        named = sorted(model, key=lambda spec: spec.name)
        # Under privacy nothing that is measured is added up: it would have no noise.
        metrics = _added_up(study) if study.privacy.mode == "none" else ()
        return cls(study, plan, tuple(named), metrics)

    @property
    def configuration(self) -> Configuration:
        """What all sites must do alike."""
        parts = [[asdict(spec) for spec in part] for part in (self.model, self.metrics)]
        said = json.dumps([parts, _FACTS, self.plan.most_examinations, FRACTION_BITS])
        layout = hashlib.sha256(said.encode()).digest()
        return Configuration(self._length, self.plan.grid, layout, self.plan.smallest_roster)

    @property
    def _length(self) -> int:
        counted = sum(prod(spec.shape) for part in (self.model, self.metrics) for spec in part)
        return counted + len(_FACTS)

    def encode(
        self, trained: Model, start: Model, counted: Counted, noised: Noised | None = None
    ) -> Words:
        """Return ``(d,)`` words of a site.

        Args:
            noised: Codes the changes and adds a share of noise; None codes them as they are.

        Raises:
            MaskingError: A number is outside the range of the study.
        """
        changes = self._changes(trained, start, counted.weight, noised)
        parts = [*changes, *self._counts(counted)]
        return self.plan.grid.words_of(np.concatenate(parts))

    def decode(self, words: Words, start: Model, rate: float = 1.0) -> tuple[Parameters, Counted]:
        """Return the mean model and the counts of a sum.

        Args:
            rate: How far to go along the mean change.

        Raises:
            RunError: The sites in it have no training examination.
            InputError: What they measured cannot be true.
        """
        sums = self.plan.grid.sums_of(words)
        counted, model = self._counted(sums), dict[str, torch.Tensor]()
        if counted.weight < 1:
            msg = "the sites of the sum have trained on no examinations: nothing has a weight."
            raise RunError(msg)
        place = 0
        for spec in self.model:
            end = place + prod(spec.shape)
            before = start[spec.name]
            mean = sums[place:end] / counted.weight
            if before.is_floating_point():
                mean = mean * (self.plan.grid.step * self.plan.most_examinations * rate)
            else:
                mean = np.rint(mean)
            change = torch.from_numpy(mean).reshape(before.shape)
            model[spec.name] = (before.double() + change).to(before.dtype)
            place = end
        return model, counted

    def _changes(
        self, trained: Model, start: Model, weight: int, noised: Noised | None
    ) -> Iterator[Whole]:
        grid, share = self.plan.grid, weight / self.plan.most_examinations
        for spec in self.model:
            change = (trained[spec.name].double() - start[spec.name].double()).flatten().numpy()
            if noised is not None:
                yield noised(spec.name, change)
            elif start[spec.name].is_floating_point():
                grid.encode(change)  # refuses what is outside the range, however little it weighs
                yield np.rint(change * (share / grid.step)).astype(np.int64)
            else:
                yield np.rint(change).astype(np.int64) * weight

    def _counts(self, counted: Counted) -> Iterator[Whole]:
        loss = counted.loss if math.isfinite(counted.loss) else 0.0
        facts = [counted.weight, counted.examinations, counted.steps, round(loss * _FRACTION)]
        yield np.array(facts, dtype=np.int64)
        if not self.metrics:
            return
        sums = empty_sums(self.study) if counted.metrics is None else counted.metrics
        arrays = to_arrays(sums)
        for spec in self.metrics:
            values = arrays[spec.name].astype(np.float64).flatten()
            scale = _FRACTION if "float" in spec.dtype else 1.0
            yield np.rint(values * scale).astype(np.int64)

    def _counted(self, sums: Whole) -> Counted:
        place = sum(prod(spec.shape) for spec in self.model)
        weight, examinations, steps, loss = (int(x) for x in sums[place : place + len(_FACTS)])
        place += len(_FACTS)
        if not self.metrics:
            return Counted(weight, examinations, steps, loss / _FRACTION, None)
        arrays: dict[str, NDArray[np.generic]] = {}
        for spec in self.metrics:
            end = place + prod(spec.shape)
            values = sums[place:end].reshape(spec.shape)
            arrays[spec.name] = values / _FRACTION if "float" in spec.dtype else values
            place = end
        metrics = from_arrays(arrays, self.study)
        found = metrics if metrics.examinations else None
        return Counted(weight, examinations, steps, loss / _FRACTION, found)


def _added_up(study: Study) -> Schema:
    """Return the arrays that the sums of two sites have in common with those of each.

    Some, such as the pairs of examinations that are in order, are of one site alone.
    """
    one = replace(empty_sums(study), examinations=1)
    left = to_arrays(merge(one, one))
    return tuple(spec for spec in array_schema(study, surfaces=False) if spec.name in left)
