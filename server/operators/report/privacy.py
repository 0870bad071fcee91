"""What a run promises to patients or hospitals, and what of that its rounds have used."""

import tomllib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.common.study.plans.patient_privacy import PrivacyPlan


def privacy_words(study_file: str, rounds: Mapping[str, int]) -> tuple[str, ...]:
    """Return the promise of a study and what was spent on it, in sentences.

    Args:
        study_file: The study, as TOML.
        rounds: How many answers of each site were counted.

    Raises:
        WardroundError: The study cannot be read, or no accountant is installed.
    """
    study = parse_study(tomllib.loads(study_file))
    if study.privacy.mode == "none":
        return (
            "The study promises no differential privacy. Models and metrics left the sites as "
            "their policies allow.",
        )
    return tuple(_of_patients(study, rounds) if _is_patients(study) else _of_sites(study))


def _is_patients(study: Study) -> bool:
    return study.privacy.mode == "patient"


def _of_patients(study: Study, rounds: Mapping[str, int]) -> Iterator[str]:
    from wardround.common.study.explain.patient_privacy import evaluation_words, promise_words
    from wardround.common.study.plans.patient_privacy import evaluation_plans, plan_privacy

    plan = plan_privacy(study)
    yield "Each training patient is promised this."
    yield from promise_words(plan)
    if study.federation.secure_aggregation:
        yield from _who_learns(study)
        yield from _spent(plan, rounds)
        return
    yield "Each validation and test patient is promised this."
    yield from evaluation_words(evaluation_plans(study))
    yield (
        "The measurements of this run have that noise, and the model was chosen by them: two of "
        "them that differ by less than it tell nothing apart."
    )
    yield from _spent(plan, rounds)


def _who_learns(study: Study) -> Iterator[str]:
    """Yield epsilon against each who sees something of a masked study."""
    from wardround.common.study.explain.distributed_noise import share_words
    from wardround.common.study.explain.patient_privacy import rounded_up
    from wardround.common.study.plans.distributed_noise import plan_shares
    from wardround.common.study.plans.observers import compare_noise

    shares = plan_shares(study)
    if shares is not None:
        yield from share_words(shares)
    for row in compare_noise(study).observers:
        epsilon = row.local if shares is None else row.distributed
        if epsilon is not None:
            yield f"Against {row.name} that is epsilon = {rounded_up(epsilon)}."


def _spent(plan: "PrivacyPlan", rounds: Mapping[str, int]) -> Iterator[str]:
    from wardround.common.privacy.accounting import epsilon_of
    from wardround.common.study.explain.patient_privacy import rounded_up

    for site, count in sorted(rounds.items()):
        spent = rounded_up(epsilon_of([plan.spend(count)], plan.delta))
        yield (
            f"{site}: {count} rounds were counted, which is epsilon = {spent} at "
            f"delta = {plan.delta:g}."
        )
    yield (
        "That is what reached this server. An answer that was lost or came too late is charged "
        "too: the account is the hospital's own ledger, which counts other studies with it."
    )


def _of_sites(study: Study) -> Iterator[str]:
    from wardround.common.study.explain.site_privacy import share_promise_words
    from wardround.common.study.plans.distributed_noise import plan_shares

    shares = plan_shares(study)
    if shares is not None:
        yield "Each hospital is promised this."
        yield from share_promise_words(shares)
        return
    from wardround.common.study.explain.site_privacy import site_limits_words, site_promise_words
    from wardround.common.study.plans.site_privacy import plan_site_privacy

    plan = plan_site_privacy(study)
    yield "Each hospital is promised this."
    yield from site_promise_words(plan)
    yield from site_limits_words()
