"""What a hospital would be agreeing to where a study asks for statistics, in plain language."""

from collections.abc import Iterator

from wardround.common.study.explain.patient_privacy import rounded_up
from wardround.common.study.plans.statistics import (
    Histogram,
    asked_histograms,
    intensity_range,
    moment_side,
    plan_statistics,
)
from wardround.common.study.study import Study


def asked_words(study: Study) -> Iterator[str]:
    """Yield what a hospital does for the statistics."""
    data = study.data
    if study.statistics.combat:
        names = ", ".join(one.name for one in study.statistics.combat)
        yield f"to read {names} of the training patients it has;"
        yield "to add up products of these values, once; nothing is trained or measured for it."
        return
    channels = ", ".join(data.channels)
    if data.kind == "image":
        yield f"to read {data.dimensions}D images ({channels}) of the training patients it has;"
    if study.task.outcome == "number":
        yield f"to read {study.outcome.name} of the training patients it has;"
    elif study.task.outcome:
        pass  # nothing of it is counted
    elif study.task.dense:
        yield f"to read their masks of {', '.join(data.classes)};"
    else:
        yield f"to read which of these each is: {', '.join(data.classes)};"
    yield "to count these patients in histograms, once; nothing is trained or measured for it."


def told_words(study: Study) -> Iterator[str]:
    """Yield what leaves, histogram by histogram."""
    yield "its name, its version of wardround and the digest of this study;"
    if study.statistics.combat:
        yield f"{_sums_words(study)}, exact and not rounded;"
        yield "how many training patients have all these values, exactly."
        return
    if study.data.kind == "image":
        yield from _image_words(study)
        yield "how many examinations a patient has, up to ten;"
    if study.task.outcome == "number":
        yield (
            f"three sums of {study.outcome.name}, from which its mean and its standard deviation "
            "follow;"
        )
    elif not study.task.outcome:
        what = (
            "how the voxels are shared between" if study.task.dense else "how many patients are of"
        )
        yield f"{what} the classes {', '.join(study.data.classes)};"
    if study.task.dense:
        yield "which share of an image the masks mark, in steps of a hundredth;"
    if plan_statistics(study) is None:
        yield "how many training patients and examinations it has, rounded down by its policy."


def _image_words(study: Study) -> Iterator[str]:
    low, high = intensity_range(study)
    bins, asked = study.statistics.intensity_bins, study.statistics
    where = "over each image, and over what the masks mark" if study.task.dense else "over an image"
    yield f"a histogram of intensities {where}, from {low:g} to {high:g} in {bins} bins;"
    yield (
        f"histograms of the voxels' sides in steps of {asked.spacing_step_mm:g} mm, of the images' "
        f"sides in steps of {asked.size_step} voxels and of {asked.extent_step_mm:g} mm;"
    )


def bound_words(study: Study) -> Iterator[str]:
    """Yield how much of a single patient can be in it."""
    if study.statistics.combat:
        yield (
            "each value is brought to between -1 and 1 first, so that a patient moves no sum by "
            "more than 1;"
        )
        yield (
            "nothing leaves where too few patients have all values, or share a value that is "
            "counted. Exact sums are no differential privacy: of two of them, taken before and "
            "after one patient came, the difference is that patient;"
        )
        yield "the study has one answer for ever: who asks again, in any run, gets the same bytes."
        return
    asked = asked_histograms(study)
    yield (
        "a patient counts 1 in all in each histogram, however many images or voxels there are, and "
        f"{_cells(asked)} cells are all that there is;"
    )
    together = f"the {len(asked)} histograms" if len(asked) > 1 else "the three sums"
    plan = plan_statistics(study)
    if plan is None:
        yield (
            "no cell leaves of fewer patients than the policy's smallest_cell: neighbours are "
            "counted together, classes are left out; what leaves is rounded. That is no "
            "differential privacy;"
        )
    else:
        yield (
            f"{together} of a patient together are a vector of norm at most 1, "
            f"and each cell has normal noise of standard deviation {plan.noise_multiplier:.4g}: "
            f"epsilon = {rounded_up(plan.epsilon)} at delta = {plan.delta:g} for each training "
            "patient, charged before it is computed;"
        )
    yield "the study has one answer for ever: who asks again, in any run, gets the same bytes."


def _sums_words(study: Study) -> str:
    side = moment_side(study)
    names = ", ".join(one.name for one in study.statistics.combat)
    return f"{side * (side + 1) // 2} sums of {names} and of products of two of them"


def _cells(asked: tuple[Histogram, ...]) -> int:
    return sum(one.cells for one in asked)
