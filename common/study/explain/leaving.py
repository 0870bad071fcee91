"""What leaves a hospital, and what stays there, in plain language."""

from collections.abc import Iterator

from wardround.common.study.explain.packs import pack_words
from wardround.common.study.explain.patient_privacy import (
    withheld_words,
)
from wardround.common.study.explain.secure_aggregation import (
    masked_words,
)
from wardround.common.study.plans.masking import plan_masking
from wardround.common.study.plans.patient_privacy import (
    is_measured,
)
from wardround.common.study.plans.strategy import SHARING, describe_aggregation, plan_of
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.registry import METRICS
from wardround.common.study.study import Study


def first_words(study: Study) -> Iterator[str]:
    """Yield what leaves a hospital before the first round."""
    yield "its name, its version of wardround and the digest of this study;"
    if study.model.adapted:
        yield "a check sum of the frozen numbers of the network;"
    if not what_leaves(study).counts:
        yield "nothing about its training patients, not even how many there are."
        return
    yield "how many training examinations it holds;"
    yield "which classes no patient of it has, and which rows of its manifest cannot be read."


def leaving_words(study: Study) -> Iterator[str]:
    """Yield what leaves a hospital in each round, and how the server combines it."""
    plan, leaves = plan_of(study), what_leaves(study)
    trained = "private steps on" if leaves.noise_added_by == "site" else "training on"
    frozen = study.model.frozen and plan.share == "adapters"
    shared = "all of the network that is not frozen" if frozen else SHARING[plan.share]
    masks = plan_masking(study)
    whose = "its group" if masks is not None and masks.groups > 1 else "all hospitals"
    under = "" if masks is None else f", under a mask that only the sum of {whose} is without"
    yield f"{shared}, after {trained} its patients{under};"
    if plan.objective == "control-variates":
        yield f"its mean gradient over the round, one number a number of the network{under};"
    if plan.objective == "coral":
        yield (
            "with the network, the mean and the second moments of what its patients' images are "
            f"before the last layer, over all of them{under};"
        )
    if plan.aggregation == "fair-mean" and masks is None:
        yield "the mean loss of the received network on its training patients;"
    if masks is not None:
        yield from masked_words(masks, _metrics(study), plan.aggregation)
    else:
        yield from _noised_measurements(study) if leaves.noised_metrics else _measurements(study)
    counted = leaves.counts or (masks is not None and not masks.is_private)
    alike = "" if counted else " (each hospital says that it has one)"
    if leaves.noise_added_by == "server":
        alike = " (each counting the same, shortened and with noise)"
    yield (
        f"The server combines the hospitals' networks by this: {describe_aggregation(plan)}{alike}."
    )


def _measurements(study: Study) -> Iterator[str]:
    yield "how many training examinations it holds, and how many steps it made;"
    yield f"sums over its validation patients, from which these follow: {_metrics(study)};"
    yield "the same sums over its test patients, once, for the models that are kept;"
    yield from pack_words(study)
    yield "its mean training loss and the seconds it took."


def _noised_measurements(study: Study) -> Iterator[str]:
    yield "that it made its steps;"
    told = "what its validation patients say of the common network, as a few sums with noise"
    if not is_measured(study, "validation"):
        yield "nothing that is measured on its validation patients;"
    elif not what_leaves(study).round_metrics:
        yield f"after the last round {told}, from which these follow: {_metrics(study)};"
    else:
        yield f"{told}, from which these follow: {_metrics(study)};"
    if is_measured(study, "test"):
        yield "the same sums of its test patients, with noise, once;"


def staying_words(study: Study) -> Iterator[str]:
    """Yield what never leaves a hospital."""
    yield "images, masks and labels of single patients;"
    yield "names, identifiers, file names and the manifest;"
    if not what_leaves(study).counts:
        yield from withheld_words()
    plan = plan_of(study)
    if plan.personal:
        yield f"the network's numbers whose names match {', '.join(plan.personal)};"
    if study.model.adapted and plan.share != "all":
        origin = "seed makes" if study.model.weights_sha256 is None else "weight file holds"
        yield f"the network's frozen numbers, which the study's {origin};"
    if plan.objective in ("personal-model", "mixture", "fine-tune"):
        yield "the hospital's own personal network;"
    yield "predictions for single patients."


def _metrics(study: Study) -> str:
    task = study.study.task
    own = [m.title for m in METRICS.values() if task in m.tasks and not m.surface]
    return ", ".join((*own, *study.package_metrics))
