"""Which attacks fit a study, and why the others do not."""

from collections.abc import Iterator

from wardround.simulations.privacy_attacks.analytic import first_linear_layer
from wardround.simulations.privacy_attacks.gradient_matching import ends_in_a_linear_layer
from wardround.simulations.privacy_attacks.target import Target
from wardround.simulations.run_files.attack_findings import NotRun

ANALYTIC, IN_BATCH = "read off the first layer", "the same, several patients in a step"
MATCHING, CANARIES = "gradient matching", "planted patients"
_LARGEST_IMAGE = 3 * 64 * 64  # numbers that a search can find in its time


def find_misfits(target: Target) -> Iterator[NotRun]:
    """Yield the attacks that do not fit, each with its reason."""
    if first_linear_layer(target.network) is None:
        reason = (
            f"{target.study.model.network} does not begin with a linear layer that sees the "
            "whole input."
        )
        yield NotRun(ANALYTIC, reason)
        yield NotRun(IN_BATCH, reason)
    reasons = [reason for holds, reason in _obstacles_to_matching(target) if holds]
    if reasons:
        yield NotRun(MATCHING, f"{reasons[0]}. Other attackers may do more.")
    if target.plan is None:
        yield NotRun(CANARIES, "there is no privacy plan to audit.")


def _obstacles_to_matching(target: Target) -> Iterator[tuple[bool, str]]:
    study, numbers = target.study, target.originals[0].numel()
    yield study.data.kind == "table", "a table has no image; its first layer gives values away"
    yield (
        study.task.dense,
        "a segmentation's mask would have to be found too, which this search does not do",
    )
    yield (
        study.data.multi_label or study.loss != "cross-entropy",
        "the class can be read off an update only with cross-entropy and one class a patient",
    )
    yield (
        len(target.examples[0].inputs) > 1,
        "the clinical values would have to be found beside the image",
    )
    yield (
        not ends_in_a_linear_layer(target.network),
        "the class cannot be read off a network that does not end in a linear layer with a bias",
    )
    yield (
        numbers > _LARGEST_IMAGE,
        f"an image of {numbers} numbers is too large for a search of seconds",
    )
