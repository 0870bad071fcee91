"""Which sums of evidence a study asks of its sites: named, bounded, and told once.

All of it follows from the study, so that a hospital approves the very tables. Every number is of
many patients: what one of them says never stands alone.
"""

from dataclasses import dataclass

from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.plans.subgroups import Grouping, groupings_of
from wardround.common.study.study import Study

PACKS = {
    "intervals": "how sure each metric is: patients' sums and squares, and histograms of scores",
    "calibration": "what a score means: how often the named class is right, by score",
    "subgroups": "for whom the model is good: the same sums of each group of patients",
    "gains": "what the training gave: sums and squares of each patient's difference of two models",
}
# A fit needs the slope and the bend of the loss at these inverse temperatures: fixed, so that no
# server can choose where it looks.
INVERSE_TEMPERATURES = tuple(round(0.05 * 1.25**step, 6) for step in range(24))
MOST_CELLS = 65_536  # of all tables of a pack together
HD95_UNIT_MM = 10.0  # in which distances are summed; a longer one than 1 m counts as 1 m


@dataclass(frozen=True, slots=True)
class Ratio:
    """A metric that is a sum over patients divided by another.

    Attributes:
        metric: Of the catalogue, or one of ``brier``, ``recall``, ``specificity``, ``precision``.
        class_name: One class, or "" over all.
        group: Of which patients, e.g. ``sex: F``; "" of all.
    """

    metric: str
    class_name: str = ""
    group: str = ""

    @property
    def largest(self) -> float:
        """The most that the ratio can be."""
        return {"hd95": 1000.0 / HD95_UNIT_MM, "brier": 2.0}.get(self.metric, 1.0)


def names_pack(study: Study, name: str) -> bool:
    """Return whether a study asks for a pack."""
    return name in study.evaluation.pack


def ratios_of(study: Study) -> tuple[Ratio, ...]:
    """Return the ratios of the pack "intervals", in the order of their array."""
    classes = study.data.classes
    if study.task.dense:
        metrics = ("dice", "hd95", "surface-dice")
        return tuple(Ratio(metric, name) for metric in metrics for name in classes[1:])
    whole = (Ratio("accuracy"), Ratio("brier"))
    by_class = ("recall", "specificity", "precision", "f1")
    return (*whole, *(Ratio(metric, name) for metric in by_class for name in classes))


def groups_of(study: Study) -> tuple[tuple[Grouping, str], ...]:
    """Return every group whose patients are told of, in their order."""
    return tuple(
        (grouping, group)
        for grouping in groupings_of(study)
        if not grouping.from_image
        for group in grouping.groups
    )


def group_ratios_of(study: Study) -> tuple[Ratio, ...]:
    """Return the ratios of the pack "subgroups", a group after the other."""
    return tuple(
        Ratio(one.metric, one.class_name, f"{grouping.name}: {group}")
        for grouping, group in groups_of(study)
        for one in measures_of_group(study)
    )


def measures_of_group(study: Study) -> tuple[Ratio, ...]:
    """Return what is told of each group: accuracy and recalls, or the Dice of each class."""
    classes = study.data.classes
    if study.task.dense:
        return tuple(Ratio("dice", name) for name in classes[1:])
    return (Ratio("accuracy"), *(Ratio("recall", name) for name in classes))


def gains_of(study: Study) -> tuple[Ratio, ...]:
    """Return the metrics whose differences the pack "gains" tells."""
    return (Ratio("dice"),) if study.task.dense else (Ratio("accuracy"), Ratio("brier"))


def compared_with(study: Study) -> str:
    """Return which model a site holds the common one against: both are the site's to make.

    Its own personal model where the strategy gives it one; otherwise the model that training
    started from, which the study's seed or its pretrained weights make.
    """
    is_personal = plan_of(study).objective in ("personal-model", "mixture")
    return "personal" if is_personal else "initial"


def cells_of(study: Study) -> int:
    """Return how many numbers all tables of the study's packs have."""
    classes, bins = study.class_count, study.evaluation.pack_bins
    named = study.evaluation.pack
    cells = 0
    if "intervals" in named:
        cells += 6 * len(ratios_of(study))
        cells += 0 if study.task.dense else classes * (2 * bins + 6)
    if "calibration" in named:
        cells += 4 * bins + 2 * len(INVERSE_TEMPERATURES)
    if "subgroups" in named:
        cells += 6 * len(group_ratios_of(study))
    if "gains" in named:
        cells += 3 * len(gains_of(study))
    return cells
