"""The promise to the patients in words: for a hospital that decides, and for a report."""

import math
from collections.abc import Iterator, Sequence
from textwrap import wrap

from wardround.common.privacy.accounting import epsilon_of
from wardround.common.study.plans.patient_privacy import EvaluationPlan, PrivacyPlan, TradeOff


def promise_words(plan: PrivacyPlan, method: str = "") -> Iterator[str]:
    """Yield what is promised to each training patient, and by what means."""
    yield (
        "the unit is the patient: all images and records of one patient count together, however "
        "many they are;"
    )
    yield (
        f"all {plan.rounds} rounds together are differentially private with epsilon = "
        f"{rounded_up(plan.epsilon)} at delta = {plan.delta:g}, and one round alone with epsilon = "
        f"{rounded_up(epsilon_of([plan.spend()], plan.delta))}, for two sets of training patients "
        "of which one has one patient more (added or removed);"
    )
    yield (
        f"so whatever is concluded from all that was trained would, but for a chance of "
        f"{plan.delta:g}, be at most {factor_words(plan.epsilon)} times as likely with a given "
        "patient as without;"
    )
    yield (
        "epsilon is computed from privacy loss distributions (the accountant dp-accounting), over "
        "all steps, and is never rounded in the study's favour;"
    )
    yield from mechanism_words(plan)
    if method:
        yield f"how the gradient of a single patient is found changes none of this: {method}."


def mechanism_words(plan: PrivacyPlan) -> Iterator[str]:
    """Yield what is done in each step, with every constant."""
    yield (
        f"a round has {plan.steps} steps, and in each of them every patient takes part with "
        f"probability {plan.sampling_rate:g}, by chance that no study and no server can foretell;"
    )
    yield (
        f"a patient gives at most {plan.examples_per_patient} examples to a step, and their mean "
        f"gradient is shortened to the length {plan.clip_norm:g} where it is longer;"
    )
    if plan.distributed:
        yield (
            f"the sum is divided by {plan.expected_patients}, coded as whole numbers, and leaves "
            "under a mask alone, with a share of the noise: no hospital's part is ever seen;"
        )
        yield (
            "all of these numbers stand in the study or follow from it; none depends on how many "
            "patients the hospital has."
        )
        return
    yield (
        "to each number of the patients' sum comes normal noise of standard deviation "
        f"{plan.noise_multiplier * plan.clip_norm:.4g}, a noise multiplier of "
        f"{plan.noise_multiplier:.4g}; the sum is then divided by {plan.expected_patients};"
    )
    yield (
        "all of these numbers stand in the study or follow from it; none depends on how many "
        "patients the hospital has."
    )


def evaluation_words(plans: Sequence[EvaluationPlan]) -> Iterator[str]:
    """Yield what is promised to the patients whom models are measured on, and by what means."""
    for plan in plans:
        whole = "the one of the study has"
        if plan.answers > 1:
            whole = f"all {plan.answers} of the study together have"
        yield (
            f"to an answer about {plan.part} patients one patient adds a vector of norm at most 1, "
            "whatever the model, and each of its numbers has normal noise of standard deviation "
            f"{plan.noise_multiplier:.4g}; {whole} "
            f"epsilon = {rounded_up(plan.epsilon)} at delta = {plan.delta:g};"
        )
    if not plans:
        yield "nothing is measured on them, so nothing of them leaves;"
        return
    yield (
        "a model is measured once a round, over all runs of the study, and who asks again gets the "
        "same bytes or nothing; the patients measured are charged before it is computed, each part "
        "on an account of its own under the same caps."
    )


def withheld_words() -> Iterator[str]:
    """Yield what stays at the hospital because it would carry no noise."""
    yield "how many training patients and examinations the hospital has, and of which classes;"
    yield "its training loss, and any measurement without noise;"


def limits_words() -> Iterator[str]:
    """Yield what patient-level privacy does not promise."""
    yield (
        "A promise is to the patients of one part: those trained on, those of validation, those of "
        "the test. A patient who changes parts has the promise of each, and the epsilons add up."
    )
    yield (
        "It bounds what is learned from one patient's taking part. What holds for patients in "
        "general, such as how a disease looks, is learned, and is meant to be."
    )
    yield (
        "A patient who is treated in several hospitals, or listed under two numbers, has the "
        "promise of each: their epsilons add up. So do those of other studies on the same "
        "patients, which the hospital's privacy ledger counts."
    )


def table_words(
    rows: Sequence[TradeOff], patients: Sequence[int], plan: PrivacyPlan, parameters: int
) -> str:
    """Return the trade-off as a table of text, with what its columns mean.

    Args:
        rows: From ``trade_offs`` of the privacy plan, for these ``patients``.
        parameters: Trained numbers of the network.
    """
    width = max(9, *(len(f"{count}") + 2 for count in patients))
    head = "  epsilon   noise multiplier" + "".join(f"{f'n={n}':>{width}}" for n in patients)
    lines = [head, *(_row(row, width, row.epsilon == plan.epsilon) for row in rows)]
    means = (
        "The columns n=... are the noise of one step over the largest signal of a site with n "
        "training patients, sigma sqrt(d) / (q n), where sigma is the noise multiplier, "
        f"d = {parameters} the trained numbers of the network and q = {plan.sampling_rate:g} the "
        f"sampling rate. Over the {plan.planned.steps} steps of the study a steady signal gains on "
        "the noise by up to the root of that number, over K equal sites by the root of K. "
        "The row marked * is this study's."
    )
    return "\n".join([*lines, "", *wrap(means, 96)])


def _row(row: TradeOff, width: int, own: bool) -> str:
    mark = "*" if own else " "
    noise = "".join(f"{value:>{width}.3g}" for value in row.relative_noise)
    return f"{mark} {rounded_up(row.epsilon):>7}   {row.noise_multiplier:>16.4f}{noise}"


def rounded_up(epsilon: float) -> str:
    """Return epsilon with three digits, rounded up: a promise is not made to look better."""
    if epsilon == 0 or math.isinf(epsilon):
        return f"{epsilon:g}"
    unit = 10.0 ** (math.floor(math.log10(epsilon)) - 2)
    return f"{math.ceil(epsilon / unit - 1e-9) * unit:.3g}"


def factor_words(epsilon: float) -> str:
    """Return how many times as likely an epsilon allows something to be."""
    return f"{math.exp(epsilon):.3g}" if epsilon < 20 else f"e^{rounded_up(epsilon)}"
