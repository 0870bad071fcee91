"""What a study lets a site's messages say, and where its noise is added: one frozen object.

Whoever packs, checks, asks for or explains a message reads it here and does not ask for the mode of
privacy. What a study lets out, a hospital's policy may still round or withhold; what it does not
let out, no policy lets out.
"""

from dataclasses import dataclass, replace
from typing import Literal

from wardround.common.study.plans.patient_privacy import measures_each_round
from wardround.common.study.study import Study


@dataclass(frozen=True, slots=True)
class WhatLeaves:
    """What a site says beside the shared numbers of its network.

    Attributes:
        noise_added_by: Who adds the noise of differential privacy: the "site" to each of its steps,
            before anything leaves; the "server" to the sum of the sites' changes; or "nobody".
        counts: How many training examinations a site has, and how many steps it made of them. They
            are its weight: without them every site says 1, and weighs the same.
        notes: What was odd about its data, in a simulation.
        times: How long its work took.
        losses: Its mean training loss.
        round_metrics: How the model that it was sent does on its validation patients, in every
            round. Without them the server measures only when the training is over.
        noised_metrics: Whether what it measures leaves with noise alone; the server then asks for
            it in messages of their own, each of which is accounted for.
        masked: Whether the update, its weight, its steps, its loss and what was measured leave
            within a sum of all sites alone.
        unnoised_arrays: Numbers that no noised gradient made: the running means of a normalisation,
            and what a strategy asks for beside the model.
    """

    noise_added_by: Literal["nobody", "site", "server"]
    counts: bool
    notes: bool
    times: bool
    losses: bool
    round_metrics: bool
    noised_metrics: bool
    unnoised_arrays: bool
    masked: bool = False


_ALL = WhatLeaves(
    noise_added_by="nobody",
    counts=True,
    notes=True,
    times=True,
    losses=True,
    round_metrics=True,
    noised_metrics=False,
    unnoised_arrays=True,
)
# Noise on the parameters hides no patient whom a count, a loss or an exact measurement beside them
# shows.
_NOISED_ALONE = WhatLeaves(
    noise_added_by="site",
    counts=False,
    notes=False,
    times=False,
    losses=False,
    round_metrics=True,
    noised_metrics=True,
    unnoised_arrays=False,
)
_SUMS_ALONE = replace(_ALL, counts=False, losses=False, notes=False, times=False, masked=True)
# Under masks with noise nothing else is in the sum: a count or a loss has none.
_NOISED_SUMS = replace(_NOISED_ALONE, round_metrics=False, masked=True)
_UNMEASURED = replace(_NOISED_ALONE, round_metrics=False)
_BY_MODE: dict[str, WhatLeaves] = {
    "none": _ALL,
    "site": replace(_ALL, noise_added_by="server"),
    "patient": _NOISED_ALONE,
}


def what_leaves(study: Study) -> WhatLeaves:
    """Return what a site that takes part in a study may say."""
    if study.federation.secure_aggregation:
        return _SUMS_ALONE if study.privacy.mode == "none" else _NOISED_SUMS
    leaves = _BY_MODE[study.privacy.mode]
    if leaves.noised_metrics and not measures_each_round(study):
        return _UNMEASURED
    return leaves


def kept_model(study: Study) -> Literal["best", "last"]:
    """Return which model is kept: the last where no round is measured, whatever the study says.

    None is then known to be the best.
    """
    return study.evaluation.keep if what_leaves(study).round_metrics else "last"
