"""From merged statistics to the numbers of a study, each with what it comes from."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from wardround.common.errors import RunError
from wardround.common.study.plans.statistics import OUTCOME
from wardround.common.study.registry import NETWORKS
from wardround.common.study.study import Study
from wardround.server.planning.collection import Collected
from wardround.server.planning.combat import plan_combat
from wardround.server.planning.merging import MergedHistogram, merge_statistics
from wardround.server.planning.network_plan import plan_network
from wardround.server.planning.outcome_plan import plan_outcome
from wardround.server.planning.planned_value import PlannedValue, Value

_ANISOTROPY = 3.0  # of spacing and size: nnU-Net's ANISO_THRESHOLD
_FINE_AXIS = 0.1  # the quantile of the coarse axis' spacing that nnU-Net then resamples to
_ALIKE = 0.95  # share of images of one spacing, from which sizes are those after resampling
_TAILS = (0.005, 0.995)
_WEIGHED = ("cross-entropy", "focal", "bce")  # where class weights are common
# Of a classification's image, which has one size: a multiple of what its networks divide by.
_SIZE_STEP, _LEAST_SIZE, _LARGEST_SIZE = 32, 64, {2: 512, 3: 128}


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """A plan, and what it was made of."""

    values: tuple[PlannedValue, ...]
    merged: Mapping[str, MergedHistogram]
    sites: Mapping[str, int]  # training patients, as a site rounds them; 0 where it says none

    def value(self, key: str) -> Value:
        """Return a planned value, None where there is none."""
        return next((one.value for one in self.values if one.key == key), None)


def plan_study(collected: Collected, asked: Study, study: Study | None = None) -> StudyPlan:
    """Return the numbers that a study gets from its sites' statistics.

    Args:
        asked: The study that asked for them.
        study: The one that is planned, where the two differ in more than that.

    Raises:
        RunError: The statistics hold too few patients to plan from.
    """
    patients = {name: said.patients for name, said in collected.sites.items()}
    if asked.statistics.combat:
        return StudyPlan((plan_combat(collected, asked),), {}, patients)
    merged = merge_statistics(collected, asked)
    source = _Source(study or asked, merged, tuple(collected.sites))
    source.require_patients()
    values = (*_of_images(source), *_outcome(source), *_class_weights(source))
    return StudyPlan(values, merged, patients)


@dataclass(frozen=True, slots=True)
class _Source:
    study: Study
    merged: Mapping[str, MergedHistogram]
    sites: tuple[str, ...]

    @property
    def axes(self) -> range:
        return range(self.study.data.dimensions)

    def require_patients(self) -> None:
        """Refuse to plan from nothing.

        Raises:
            RunError: No size of an image is known, or of a table no number.
        """
        if self.study.data.kind == "table":
            self._require_numbers()
            return
        sizes = [self.merged[f"size-{axis}"] for axis in self.axes]
        if all(size.total > 0 for size in sizes):
            return
        noise = max(size.noise for size in sizes)
        if noise > 0:
            msg = (
                f"the noise that protects patients ({noise:.3g} patients a cell) hides how large "
                "the images are: ask more sites, raise statistics.epsilon, or count more coarsely "
                "(statistics.size_step)."
            )
            raise RunError(msg)
        msg = (
            "the statistics hold no size of an image: the sites' policies leave cells of few "
            "patients out (smallest_cell). Count more coarsely: raise statistics.size_step."
        )
        raise RunError(msg)

    def _require_numbers(self) -> None:
        found = self.merged[OUTCOME]
        if found.total > 0:
            return
        remedy = "ask more sites"
        remedy += ", or raise statistics.epsilon" if found.noise > 0 else ""
        msg = (
            f"the statistics hold no number of {self.study.outcome.name}: too few patients are "
            f"told, or the noise that protects them hides them; {remedy}."
        )
        raise RunError(msg)

    def told_by(self, *names: str) -> str:
        """Return of how many patients at how many sites, and what share is left out."""
        histograms = [self.merged[name] for name in names]
        patients = round(max(one.patients for one in histograms))
        said = f"{patients} training patients at {len(self.sites)} sites"
        if histograms[0].noise:
            noise = max(one.noise for one in histograms)
            return f"{said} (with noise of {noise:.3g} patients on each cell)"
        left_out = max(one.suppressed for one in histograms)
        return f"{said}, {100 * left_out:.3g} % of them suppressed"


def _outcome(source: _Source) -> Iterator[PlannedValue]:
    if source.study.task.outcome == "number":
        yield from plan_outcome(source.merged[OUTCOME], source.study, source.told_by(OUTCOME))


def _of_images(source: _Source) -> Iterator[PlannedValue]:
    if source.study.data.kind == "table":
        return
    yield from _geometry(source)
    yield from _intensity(source)


# --- Geometry: spacing, size, patch, depth, batch.
def _geometry(source: _Source) -> Iterator[PlannedValue]:
    spacing = _spacing(source)
    names = [f"spacing-{axis}" for axis in source.axes]
    if spacing is not None and (source.study.data.dimensions == 3 or source.study.task.dense):
        reason = f"Median voxel size of {source.told_by(*names)}."
        if spacing != _medians(source):
            reason += (
                f" One axis is {_ANISOTROPY:g} times as coarse as the others: its 10th percentile, "
                "as nnU-Net does."
            )
        yield PlannedValue("data.spacing", spacing, reason)
    size = _median_size(source, spacing)
    if source.study.task.dense:
        yield from _patches(source, spacing, size)
    else:
        yield from _one_size(source, size)


def _medians(source: _Source) -> tuple[float, ...] | None:
    """Return the median spacing, None where most files do not say theirs."""
    known = [source.merged[f"spacing-{axis}"] for axis in source.axes]
    said = [one.without_first() for one in known]
    if any(of_axis.total < one.total / 2 for of_axis, one in zip(said, known, strict=True)):
        return None
    return tuple(_rounded(one.quantile(0.5)) for one in said)


def _spacing(source: _Source) -> tuple[float, ...] | None:
    """Return the spacing that images are brought to, by nnU-Net's rule for coarse axes."""
    medians = _medians(source)
    if medians is None or not all(math.isfinite(step) and step > 0 for step in medians):
        return None
    coarsest = medians.index(max(medians))
    others = [step for axis, step in enumerate(medians) if axis != coarsest]
    sizes = [source.merged[f"size-{axis}"].quantile(0.5) for axis in source.axes]
    fewest = sizes[coarsest] * _ANISOTROPY < min(
        size for axis, size in enumerate(sizes) if axis != coarsest
    )
    if medians[coarsest] <= _ANISOTROPY * max(others) or not fewest:
        return medians
    fine = source.merged[f"spacing-{coarsest}"].without_first().quantile(_FINE_AXIS)
    step = _rounded(max(fine, max(others)))
    return tuple(step if axis == coarsest else one for axis, one in enumerate(medians))


def _median_size(source: _Source, spacing: tuple[float, ...] | None) -> tuple[float, ...]:
    """Return the median voxels of each axis after resampling."""
    sizes = []
    for axis in source.axes:
        stored = source.merged[f"size-{axis}"].median_within()
        if spacing is not None:
            known = source.merged[f"spacing-{axis}"]
            cell = round(spacing[axis] / known.asked.step)
            if not known.cells[cell] >= _ALIKE * known.total:
                stored = source.merged[f"extent-{axis}"].median_within() / spacing[axis]
        sizes.append(max(round(stored, 1), 1.0))
    return tuple(sizes)


def _patches(
    source: _Source, spacing: tuple[float, ...] | None, size: tuple[float, ...]
) -> Iterator[PlannedValue]:
    study = source.study
    names = [f"size-{axis}" for axis in source.axes]
    median = f"the median image of {' x '.join(f'{one:g}' for one in size)} voxels"
    of_whom = source.told_by(*names)
    yield PlannedValue("data.size", None, "")
    if study.privacy.mode == "patient":  # only some networks have gradients of a single patient
        patch = _whole(size, study, study.model.features)
        yield PlannedValue(
            "training.patch_size",
            patch,
            f"{_capital(median)} of {of_whom}, as {study.model.network} divides it.",
        )
        return
    number = source.merged["examinations"]
    images = number.patients * max(number.mean, 1.0) if number.total > 0 else number.patients
    step = (1.0,) * len(size) if spacing is None else spacing
    plan = plan_network(step, size, images, study.class_count)
    yield PlannedValue(
        "training.patch_size",
        plan.patch,
        f"nnU-Net's rule from {median} of {of_whom}; a patch of it needs {plan.memory:.2g} of the "
        "memory of nnU-Net's reference network.",
    )
    yield PlannedValue(
        "training.batch_size",
        plan.batch,
        f"What that memory (8 GB) leaves room for, and at most 5 % of the voxels of {of_whom}.",
    )
    yield PlannedValue("model.network", "dynunet", "nnU-Net's network.")
    yield PlannedValue(
        "model.features",
        plan.widths,
        f"{len(plan.widths)} levels: the patch is halved while 4 voxels stay on each axis.",
    )


def _whole(
    size: Sequence[float], study: Study, features: tuple[int, ...] | None
) -> tuple[int, ...]:
    entry = NETWORKS[study.model.network]
    step, least = entry.divisor_for(features), entry.minimum_for(features)
    return tuple(math.ceil(max(one, least) / step - 1e-9) * step for one in size)


def _one_size(source: _Source, size: tuple[float, ...]) -> Iterator[PlannedValue]:
    dimensions = source.study.data.dimensions
    fitting = tuple(
        min(max(math.ceil(one / _SIZE_STEP) * _SIZE_STEP, _LEAST_SIZE), _LARGEST_SIZE[dimensions])
        for one in size
    )
    names = [f"size-{axis}" for axis in source.axes]
    yield PlannedValue(
        "data.size",
        fitting,
        f"Median image of {' x '.join(f'{one:g}' for one in size)} pixels of "
        f"{source.told_by(*names)}, as a multiple of {_SIZE_STEP} of at most "
        f"{_LARGEST_SIZE[dimensions]}.",
    )


# --- Intensity.
def _intensity(source: _Source) -> Iterator[PlannedValue]:
    kind = source.study.data.intensity
    name = "foreground-0" if source.study.task.dense else "intensity-0"
    if kind == "mr":
        yield PlannedValue(
            "data.intensity",
            kind,
            "Each image is standardised by itself: MR has no unit, and its histograms "
            f"({_tails_of(source.merged[name])}) set no constant.",
        )
    if kind != "ct":
        return
    low, high = (source.merged[name].quantile(share) for share in _TAILS)
    deviation = source.merged[name].deviation
    if not (math.isfinite(low) and high > low and deviation > 0):
        return
    of_whom = source.told_by(name)
    where = "foreground" if source.study.task.dense else "image"
    yield PlannedValue(
        "data.window",
        (_rounded((low + high) / 2), _rounded(high - low)),
        f"Centre and width from the 0.5th percentile ({low:g}) to the 99.5th ({high:g}) of the "
        f"{where} of {of_whom}; a cell is {source.merged[name].asked.step:g} wide.",
    )
    yield PlannedValue(
        "data.scaling",
        (_rounded(source.merged[name].mean), _rounded(deviation)),
        f"Mean and deviation of the same voxels of {of_whom}.",
    )


def _tails_of(one: MergedHistogram) -> str:
    low, high = (one.quantile(share) for share in _TAILS)
    return f"0.5th percentile {low:g}, 99.5th {high:g}, mean {one.mean:.4g}"


# --- Classes.
def _class_weights(source: _Source) -> Iterator[PlannedValue]:
    if source.study.task.outcome:
        return
    study, classes = source.study, source.merged["classes"]
    counts = [float(count) for count in classes.cells[: study.class_count]]
    if not min(counts, default=0.0) > 0:
        return
    balanced = tuple(_significant(sum(counts) / (len(counts) * count)) for count in counts)
    of_whom, loss = source.told_by("classes"), study.loss
    said = ", ".join(f"{one:g}" for one in balanced)
    if loss in _WEIGHED:
        yield PlannedValue(
            "training.class_weights",
            balanced,
            f"n / (K n_c) from the classes of {of_whom} (King and Zeng 2001).",
        )
    else:
        yield PlannedValue(
            "training.class_weights",
            "none",
            f"{loss} counts the classes alike already, as in nnU-Net; n / (K n_c) of {of_whom} "
            f"would be {said}.",
        )


def _significant(number: float) -> float:
    return float(f"{number:.3g}")


def _rounded(number: float) -> float:
    return round(number, 4)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
