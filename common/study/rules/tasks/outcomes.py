"""What a study must say of a number or a time that it predicts."""

from collections.abc import Iterator

from wardround.common.study.study import Study

_WEIGHTED = ("brier", "horizon-calibration-error")  # for censoring
_NOT_ALWAYS_TOLD = ("calibration-error", *_WEIGHTED)
_LARGEST_RISK_SET = 4_096  # patients: a step compares every two of a batch


def outcome_rules(study: Study) -> Iterator[str]:
    """Yield a sentence (fact, value, remedy) for every rule of outcomes that the study breaks."""
    kind, outcome = study.task.outcome, study.data.outcome
    if not kind:
        if outcome is not None:
            yield f"data.outcome is not for {study.study.task}, which has data.classes: remove it."
        return
    if study.data.classes:
        yield (
            f"data.classes is not for {study.study.task}: remove it; data.outcome says what is "
            "predicted."
        )
    if study.training.class_weights != "none":
        yield f"training.class_weights needs classes, and {study.study.task} has none: remove it."
    yield from _number_fits(study) if kind == "number" else _time_fits(study)
    yield from _metric_is_told(study)


def _metric_is_told(study: Study) -> Iterator[str]:
    """Yield why a metric cannot steer: it is not known, or not told."""
    metric = study.evaluation.metric
    if metric not in _NOT_ALWAYS_TOLD:
        return
    chosen = f"evaluation.metric = {metric!r}"
    if study.privacy.mode == "patient":
        why = "its bins would each have their noise"
        if metric in _WEIGHTED:
            why = (
                "how much a patient counts follows from how long all others were followed, so that "
                "what one adds cannot be bounded"
            )
        yield (
            f"{chosen} is not told with privacy.mode = 'patient', for {why}: choose "
            f"{study.task.metric!r}."
        )
    elif study.loss == "cox":
        yield (
            f"{chosen} needs probabilities, and training.loss = 'cox' gives relative hazards only: "
            "choose 'c-index', or the loss 'piecewise-hazard'."
        )


def _number_fits(study: Study) -> Iterator[str]:
    outcome = study.outcome
    if outcome.times:
        yield "data.outcome.times is for survival: remove it."
    if outcome.range is None:
        yield (
            "data.outcome.range is missing: give the least and the largest number that a label "
            "may be, as range = [0, 110] for an age in years."
        )
        return
    low, high = outcome.range
    if not low < high:
        yield f"data.outcome.range = [{low:g}, {high:g}] is empty: give the smaller number first."
        return
    if not low <= outcome.centre <= high:
        yield (
            f"data.outcome.mean = {outcome.centre:g} lies outside data.outcome.range: give the "
            "mean that labels are expected to have."
        )
    if not outcome.width / 1e4 <= outcome.step <= outcome.width:
        yield (
            f"data.outcome.scale = {outcome.step:g} does not fit data.outcome.range, which is "
            f"{outcome.width:g} wide: give about the standard deviation of the labels."
        )


def _time_fits(study: Study) -> Iterator[str]:
    outcome, times = study.outcome, study.outcome.times
    for key in ("range", "mean", "scale"):
        if getattr(outcome, key) is not None:
            yield f"data.outcome.{key} is for regression: remove it."
    if not times:
        yield (
            "data.outcome.times is missing: give the upper ends of the intervals of time, as "
            "times = [365, 730, 1095] for three years in days."
        )
    elif list(times) != sorted(set(times)):
        yield f"data.outcome.times = {list(times)} does not rise: give each time once, in order."
    if study.loss != "cox":
        return
    if study.privacy.mode == "patient":
        yield (
            "training.loss = 'cox' does not fit privacy.mode = 'patient': the loss of one patient "
            "depends on all others at risk, so that what one adds to a step cannot be bounded; use "
            "'piecewise-hazard', which is a sum over patients."
        )
    if study.training.batch_size > _LARGEST_RISK_SET:
        yield (
            f"training.batch_size = {study.training.batch_size} is more than the "
            f"{_LARGEST_RISK_SET} patients that training.loss = 'cox' compares with each other in "
            "a step: lower it, or use 'piecewise-hazard'."
        )
