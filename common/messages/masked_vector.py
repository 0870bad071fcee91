"""The vector that a site masks: its change, weighted, and all that it counts, as whole numbers.

What stands where follows from the study alone, and its hash is part of what all sites sign. So two
sites add the same things up, or nothing.
"""

import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from wardround.common.errors import InputError, RunError
from wardround.common.messages.masked_combination import (
    Combination,
    SiteFacts,
    WeightedSum,
    combination_of,
)
from wardround.common.metrics.records import array_schema, from_arrays, to_arrays
from wardround.common.metrics.sums import MetricSums, empty_sums, merge
from wardround.common.models.sharing import CONTROL
from wardround.common.parameters.schema import ArraySpec, Model, Parameters, Schema
from wardround.common.privacy.secure_aggregation.context import SMALLEST_ROSTER, Configuration
from wardround.common.privacy.secure_aggregation.masks import Words
from wardround.common.privacy.secure_aggregation.refusals import Refusal, refuse
from wardround.common.study.plans.masking import FRACTION_BITS, MaskingPlan
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.study import Study

Whole = NDArray[np.int64]
_FACTS = ("weight", "examinations", "steps", "loss", "divisor")  # before the metrics
_FRACTION = float(2**FRACTION_BITS)
# Of a count in narrow words, 64 bits: how many of them lie in each word, by the word's width.
_LIMB_BITS = {16: 4, 32: 16, 64: 64}
# From the name of a tensor, and its change as numbers, to whole numbers of the grid with noise.
Noised = Callable[[str, NDArray[np.float64]], Whole]


@dataclass(frozen=True, slots=True)
class Counted:
    """What a site, or all of them, say beside the update.

    Attributes:
        weight: What counts in the mean.
        loss: Sum of the training losses, an examination each.
        metrics: How the received model does on validation patients; None where nobody says.
        received_loss: Of the received model on a site's training patients, where the combination
            asks for it; it is no part of the vector.
        refused: Why what all sites measured together does not count; "" where it does.
    """

    weight: int
    examinations: int
    steps: int
    loss: float
    metrics: MetricSums | None
    received_loss: float = math.nan
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a sum says.

    Attributes:
        model: The mean of the sites' models, or what their combination makes of them.
        auxiliary: The mean of what they send beside it.
    """

    model: Parameters
    auxiliary: Parameters
    counted: Counted


@dataclass(frozen=True, slots=True)
class VectorLayout:
    """What stands where.

    Attributes:
        model: The tensors of an update, in their order.
        trainable: Those of them that a gradient changes.
        auxiliary: What an update carries beside the model, behind it.
        metrics: The arrays of what is measured that two sites add up, behind the facts.
    """

    study: Study
    plan: MaskingPlan
    model: Schema
    trainable: frozenset[str]
    auxiliary: Schema
    metrics: Schema

    @classmethod
    def of(
        cls,
        study: Study,
        plan: MaskingPlan,
        model: Schema,
        trainable: Collection[str],
    ) -> "VectorLayout":
        """Return the layout of a study's vectors.

        Args:
            model: Of what the study shares, in any order.
            trainable: The names of what a gradient changes in its network.
        """
        named = tuple(sorted(model, key=lambda spec: spec.name))
        changed = frozenset(spec.name for spec in named) & frozenset(trainable)
        has_controls = plan_of(study).objective == "control-variates"
        beside = tuple(
            ArraySpec(CONTROL + spec.name, spec.shape, spec.dtype)
            for spec in named
            if has_controls and spec.name in changed
        )
        # Under privacy nothing that is measured is added up: it would have no noise.
        metrics = _added_up(study) if study.privacy.mode == "none" else ()
        return cls(study, plan, named, changed, beside, metrics)

    @classmethod
    def of_measurement(cls, study: Study, plan: MaskingPlan) -> "VectorLayout":
        """Return the layout of what is measured of a model, and of nothing beside it.

        It is one sum of all sites, also where the updates are in groups.
        """
        whole = replace(plan, groups=1, smallest_group=SMALLEST_ROSTER)
        return cls(study, whole, (), frozenset(), (), _added_up(study))

    @property
    def _rule(self) -> Combination:
        """How updates combine; what is measured is added up."""
        return combination_of(self.study) if self.model else WeightedSum()

    @property
    def configuration(self) -> Configuration:
        """What all sites must do alike."""
        parts = [
            [asdict(spec) for spec in part] for part in (self.model, self.auxiliary, self.metrics)
        ]
        plan = self.plan
        rules = [sorted(self.trainable), plan.most_examinations, plan.clip_norm, FRACTION_BITS]
        said = json.dumps([parts, _FACTS, rules])
        layout = hashlib.sha256(said.encode()).digest()
        return Configuration(
            self._length,
            plan.grid,
            layout,
            plan.smallest_roster,
            plan.groups,
            plan.smallest_group,
        )

    @property
    def _length(self) -> int:
        numbers, counts = _count(self.model) + _count(self.auxiliary), _count(self.metrics)
        return numbers + (counts + len(_FACTS)) * self._words_a_count

    @property
    def _words_a_count(self) -> int:
        return 64 // self._limb_bits

    @property
    def _limb_bits(self) -> int:
        return _LIMB_BITS[self.plan.grid.word_bits]

    def encode(
        self,
        trained: Model,
        start: Model,
        counted: Counted,
        auxiliary: Model | None = None,
        noised: Noised | None = None,
        draw: np.random.Generator | None = None,
    ) -> Words:
        """Return ``(d,)`` words of a site.

        Args:
            auxiliary: What the update carries beside the model.
            noised: Codes the changes and adds a share of noise; None codes them as they are.
            draw: Rounds a number up as often as it lies close to there, so that the sum is right
                on average; None rounds to the nearest.

        Raises:
            MaskingError: A number is outside the range of the study.
            RunError: The site made no step, and the combination divides by them.
        """
        changes = self._changes(trained, start)
        squared = sum(float(np.dot(c, c)) for name, c in changes.items() if name in self.trainable)
        shortened = _shortening(squared, self.plan.clip_norm)
        rule = self._rule
        site = SiteFacts(
            counted.weight, counted.steps, counted.received_loss, squared * shortened**2
        )
        part = rule.part(site)
        share = counted.weight / self.plan.most_examinations
        if noised is None:
            numbers = list(self._numbers(changes, share * part.factor, share, shortened, draw))
        else:
            numbers = [noised(name, change) for name, change in changes.items()]
        numbers += [self._control(spec, auxiliary or {}, share) for spec in self.auxiliary]
        divisor = self._count("its divisor", part.divisor * 2**rule.fraction_bits)
        counts = np.concatenate(list(self._counts(counted, divisor)))
        if self._words_a_count > 1:
            counts = _in_limbs(counts, self._limb_bits)
        return self.plan.grid.words_of(np.concatenate([*numbers, counts]))

    def decode(self, words: Words, start: Model, rate: float = 1.0) -> Decoded:
        """Return the mean model and the counts of a sum.

        Args:
            rate: How far to go along the mean change.

        Raises:
            RunError: The sites in it have no training examination.
        """
        sums = self.plan.grid.sums_of(words)
        counted, divisor = self._counted(sums)
        if counted.weight < 1:
            msg = "the sites of the sum have trained on no examinations: nothing has a weight."
            raise RunError(msg)
        rule, place = self._rule, 0
        moves = rule.multiplier(counted.weight, divisor / 2**rule.fraction_bits)
        model, auxiliary = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
        for spec in self.model:
            end, before = place + prod(spec.shape), start[spec.name]
            factor = moves if spec.name in self.trainable else 1.0 / counted.weight
            mean = sums[place:end] * factor
            if before.is_floating_point():
                mean = mean * (self.plan.grid.step * self.plan.most_examinations * rate)
            else:
                mean = np.rint(mean)
            change = torch.from_numpy(mean).reshape(before.shape)
            model[spec.name] = (before.double() + change).to(before.dtype)
            place = end
        scale = self.plan.control_grid.step * self.plan.most_examinations / counted.weight
        for spec in self.auxiliary:
            end, like = place + prod(spec.shape), start[spec.name.removeprefix(CONTROL)]
            variate = torch.from_numpy(sums[place:end] * scale)
            auxiliary[spec.name] = variate.reshape(like.shape).to(like.dtype)
            place = end
        return Decoded(model, auxiliary, counted)

    def _changes(self, trained: Model, start: Model) -> dict[str, NDArray[np.float64]]:
        return {
            spec.name: (trained[spec.name].double() - start[spec.name].double()).flatten().numpy()
            for spec in self.model
        }

    def _numbers(
        self,
        changes: Mapping[str, NDArray[np.float64]],
        factor: float,
        share: float,
        shortened: float,
        draw: np.random.Generator | None,
    ) -> Iterator[Whole]:
        """Yield the whole numbers of a site's changes, each times what it counts.

        Args:
            factor: Of what a gradient changes; the share is of everything else.
        """
        grid, most = self.plan.grid, self.plan.most_examinations
        for spec in self.model:
            change = changes[spec.name]
            if spec.name in self.trainable:
                change = change * shortened
            if "float" in spec.dtype:
                grid.require_inside(change)  # however little it weighs
                own = factor if spec.name in self.trainable else share
                yield _whole(change * (own / grid.step), draw)
            else:
                yield np.rint(change).astype(np.int64) * round(share * most)

    def _control(self, spec: ArraySpec, auxiliary: Model, share: float) -> Whole:
        """Return the whole numbers of a change of a control variate."""
        grid, values = self.plan.control_grid, auxiliary[spec.name].double().flatten().numpy()
        grid.require_inside(values)
        return np.rint(values * (share / grid.step)).astype(np.int64)

    def _counts(self, counted: Counted, divisor: int) -> Iterator[Whole]:
        loss = counted.loss if math.isfinite(counted.loss) else 0.0
        losses = self._count("the sum of its losses", loss * _FRACTION)
        facts = [counted.weight, counted.examinations, counted.steps, losses]
        yield np.array([*facts, divisor], dtype=np.int64)
        if not self.metrics:
            return
        sums = empty_sums(self.study) if counted.metrics is None else counted.metrics
        arrays = to_arrays(sums)
        for spec in self.metrics:
            values = arrays[spec.name].astype(np.float64).flatten()
            values = values * (_FRACTION if "float" in spec.dtype else 1.0)
            self._require_counts(f"the sum {spec.name}", values)
            yield np.rint(values).astype(np.int64)

    def _count(self, what: str, number: float) -> int:
        """Return a number as a whole one that the sum of all sites has room for.

        Raises:
            MaskingError: There is none.
        """
        self._require_counts(what, np.array([number]))
        return round(number)

    def _require_counts(self, what: str, numbers: NDArray[np.float64]) -> None:
        grid = self.plan.grid
        largest = grid.top if self._words_a_count == 1 else (2**63 - 1) // grid.most_sites
        if not bool((np.abs(numbers) <= largest).all()):  # NaN is not at most anything
            refuse(
                Refusal.OUT_OF_RANGE,
                f"{what} is no number, or too large to be masked: lower training.learning_rate, "
                "and look at what the model predicts",
            )

    def _counted(self, sums: Whole) -> tuple[Counted, int]:
        counts = sums[_count(self.model) + _count(self.auxiliary) :]
        if self._words_a_count > 1:
            counts = _of_limbs(counts, self._limb_bits)
        weight, examinations, steps, loss, divisor = (int(x) for x in counts[: len(_FACTS)])
        if not self.metrics:
            return Counted(weight, examinations, steps, loss / _FRACTION, None), divisor
        arrays, place = dict[str, NDArray[np.generic]](), len(_FACTS)
        for spec in self.metrics:
            end = place + prod(spec.shape)
            values = counts[place:end].reshape(spec.shape)
            arrays[spec.name] = values / _FRACTION if "float" in spec.dtype else values
            place = end
        told = Counted(weight, examinations, steps, loss / _FRACTION, None)
        try:
            metrics = from_arrays(arrays, self.study)
        except InputError as error:  # of one site, which nobody can tell from the others
            return replace(told, refused=str(error)), divisor
        return replace(told, metrics=metrics if metrics.examinations else None), divisor


def _whole(numbers: NDArray[np.float64], draw: np.random.Generator | None) -> Whole:
    """Return numbers as whole ones: the nearest, or one of the two around, right on average."""
    if draw is not None:
        numbers = np.floor(numbers + draw.random(numbers.shape))
    return np.rint(numbers).astype(np.int64)


def _count(part: Schema) -> int:
    return sum(prod(spec.shape) for spec in part)


def _shortening(squared: float, limit: float | None) -> float:
    """Return what a change is multiplied by, so that it is no longer than a limit."""
    return 1.0 if limit is None else min(1.0, limit / max(math.sqrt(squared), 1e-300))


def _in_limbs(counts: Whole, bits: int) -> Whole:
    """Return counts as words of so many bits each, of which many add up without overflow."""
    shifts = np.arange(64 // bits, dtype=np.uint64) * np.uint64(bits)
    limbs = counts.view(np.uint64)[:, None] >> shifts & np.uint64(2**bits - 1)
    return limbs.astype(np.int64).ravel()


def _of_limbs(sums: Whole, bits: int) -> Whole:
    """Return the sums of counts from the sums of their words."""
    shifts = np.arange(64 // bits, dtype=np.uint64) * np.uint64(bits)
    parts = sums.view(np.uint64).reshape(-1, 64 // bits) << shifts
    whole: Whole = parts.sum(axis=1, dtype=np.uint64).view(np.int64)
    return whole


def _added_up(study: Study) -> Schema:
    """Return the arrays that the sums of two sites have in common with those of each.

    Some, such as the pairs of examinations that are in order, are of one site alone.
    """
    one = replace(empty_sums(study), examinations=1)
    left = to_arrays(merge(one, one))
    return tuple(spec for spec in array_schema(study, surfaces=False) if spec.name in left)
