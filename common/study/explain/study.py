"""What a hospital would be agreeing to, in plain language."""

from collections.abc import Iterator

from wardround.common.runtime.printable import quoted
from wardround.common.study.explain.distributed_noise import comparison_words, share_words
from wardround.common.study.explain.leaving import first_words, leaving_words, staying_words
from wardround.common.study.explain.patient_privacy import (
    evaluation_words,
    limits_words,
    promise_words,
)
from wardround.common.study.explain.secure_aggregation import (
    floor_words,
    masking_limits,
)
from wardround.common.study.explain.site_privacy import (
    share_promise_words,
    site_limits_words,
    site_promise_words,
)
from wardround.common.study.explain.statistics import asked_words, bound_words, told_words
from wardround.common.study.explain.work import percent, work_words
from wardround.common.study.plans.gradients import method_words
from wardround.common.study.plans.masking import plan_masking
from wardround.common.study.plans.observers import compare_noise
from wardround.common.study.plans.patient_privacy import (
    evaluation_plans,
    plan_privacy,
)
from wardround.common.study.plans.site_privacy import plan_site_privacy
from wardround.common.study.study import Study


def explain_study(study: Study) -> str:
    """Return a page of text: purpose, data read, work done, what leaves, what does not."""
    if study.statistics.ask:
        return "\n".join(_about_statistics(study))
    parts = [
        f"{study.name}, in the words of who wrote it:",
        quoted(study.study.description or "no description given"),
        f"Digest {study.digest}",
        "",
        "Your hospital would be asked",
        *_listed(work_words(study)),
        "",
        *_promised(study),
        "Before the first round this leaves the hospital",
        *_listed(first_words(study)),
        "",
        f"In each of {study.federation.rounds} rounds this leaves the hospital",
        *_listed(leaving_words(study)),
        "",
        *_decided(study),
        "These never leave",
        *_listed(staying_words(study)),
        "",
        "What is not promised",
        *_listed(_not_promised(study)),
        "",
    ]
    return "\n".join(parts)


def _about_statistics(study: Study) -> list[str]:
    return [
        f"{study.name}, in the words of who wrote it:",
        quoted(study.study.description or "no description given"),
        f"Digest {study.digest}",
        "",
        "Another study is planned from what this one asks for. Your hospital would be asked",
        *_listed(asked_words(study)),
        "",
        "Once, this leaves the hospital",
        *_listed(told_words(study)),
        "",
        "How much of a single patient is in it",
        *_listed(bound_words(study)),
        "",
        "These never leave",
        *_listed(staying_words(study)),
        "",
    ]


def _listed(sentences: Iterator[str]) -> list[str]:
    return [f"  - {sentence}" for sentence in sentences]


def _promised(study: Study) -> list[str]:
    masks = plan_masking(study)
    if masks is None:
        return _noise_promised(study)
    floors = ["What is promised to each hospital", *_listed(floor_words(masks))]
    if masks.shares is None:
        return [*floors, "", *_noise_promised(study)]
    if masks.shares.unit == "site":
        return [*floors, *_listed(share_promise_words(masks.shares)), ""]
    by_shares = _listed(share_words(masks.shares))
    patients = _listed(promise_words(plan_privacy(study), method_words(study)))
    return [
        *floors,
        "",
        "What is promised to each training patient",
        *patients,
        *by_shares,
        "",
        "Who learns how much of a training patient",
        *comparison_words(compare_noise(study)).splitlines(),
        "",
    ]


def _noise_promised(study: Study) -> list[str]:
    if study.privacy.mode == "site":
        words = site_promise_words(plan_site_privacy(study))
        return ["What is promised to each hospital", *_listed(words), ""]
    if study.privacy.mode != "patient":
        return []
    words = promise_words(plan_privacy(study), method_words(study))
    measured = evaluation_words(evaluation_plans(study))
    return [
        "What is promised to each training patient",
        *_listed(words),
        "",
        "What is promised to each validation and test patient",
        *_listed(measured),
        "",
    ]


def _decided(study: Study) -> list[str]:
    """Return how the model is judged by whoever would act on it."""
    sentences = list(_decisions(study))
    return ["How acting on the model is judged", *_listed(iter(sentences)), ""] * bool(sentences)


def _decisions(study: Study) -> Iterator[str]:
    evaluation, classes = study.evaluation, study.data.classes
    one = classes[1] if len(classes) == 2 and not study.data.multi_label else "each class by itself"
    if (point := evaluation.operating_point) is not None:
        aim = (
            f"finds at least {percent(point.sensitivity)} of its cases (sensitivity)"
            if point.sensitivity
            else f"leaves at least {percent(point.specificity or 0)} of the others alone "
            "(specificity)"
        )
        yield (
            f"a threshold for {one} is chosen on validation patients so that it {aim}, and is "
            "measured on test patients; what leaves the hospital stays the same;"
        )
    if evaluation.prevalence:
        shares = ", ".join(f"{k} {percent(v)}" for k, v in evaluation.prevalence.items())
        yield (
            "how often the model is right when it reports a class is told for people of whom so "
            f"many have it, whatever the hospitals' own share: {shares}."
        )


def _not_promised(study: Study) -> Iterator[str]:
    if study.federation.secure_aggregation:
        masks = plan_masking(study)
        if masks is not None:
            yield from masking_limits(masks)
    elif study.privacy.mode == "none":
        yield (
            "This study asks for no differential privacy: whoever sees the hospital's network "
            "after a round may be able to infer something about its patients."
        )
    if study.privacy.mode == "patient":
        yield from limits_words()
    if study.privacy.mode == "site" and study.privacy.noise == "local":
        yield from site_limits_words()
    yield "The digest covers all of the above, but not how a simulation was set up."
