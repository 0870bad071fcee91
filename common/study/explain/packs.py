"""What a hospital would be agreeing to where a study names packs of evidence, in plain language."""

from collections.abc import Iterator

from wardround.common.study.plans.packs import (
    PACKS,
    cells_of,
    compared_with,
    groups_of,
    names_pack,
)
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study

_OTHERS = {
    "initial": "the one that training started from",
    "personal": "the hospital's own personal one",
}


def pack_words(study: Study) -> Iterator[str]:
    """Yield what leaves as evidence once the training is over; nothing where no pack is named."""
    named = study.evaluation.pack
    if not named:
        return
    if what_leaves(study).noised_metrics:
        return  # the noised measurement of the test patients is told of where it is charged
    yield (
        "once, when the training is over, sums of its test patients from the final model, "
        f"{cells_of(study)} numbers in all, each of at least as many patients as its policy says:"
    )
    for name in named:
        yield f"in the pack {name}: {PACKS[name]}{_particulars(name, study)};"
    if names_pack(study, "intervals") and study.task.classifies:
        yield (
            "then, when the hospitals' histograms are merged, the squares of how its patients "
            "stand in them;"
        )


def _particulars(name: str, study: Study) -> str:
    if name == "subgroups":
        groups = ", ".join(f"{grouping.name} {group}" for grouping, group in groups_of(study))
        return f" ({groups})"
    if name == "gains":
        return f" (the final model and {_OTHERS[compared_with(study)]})"
    if name == "calibration":
        return " (and on validation patients how its scores would be put right)"
    return ""
