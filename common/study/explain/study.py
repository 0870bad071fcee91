"""What a hospital would be agreeing to, in plain language."""

from collections.abc import Iterator

from wardround.common.runtime.printable import quoted
from wardround.common.study.explain.continual import continuing_words
from wardround.common.study.explain.distributed_noise import comparison_words, share_words
from wardround.common.study.explain.packs import pack_words
from wardround.common.study.explain.patient_privacy import (
    evaluation_words,
    limits_words,
    promise_words,
    withheld_words,
)
from wardround.common.study.explain.secure_aggregation import (
    floor_words,
    masked_words,
    masking_limits,
)
from wardround.common.study.explain.site_privacy import (
    share_promise_words,
    site_limits_words,
    site_promise_words,
)
from wardround.common.study.explain.statistics import asked_words, bound_words, told_words
from wardround.common.study.plans.gradients import method_words
from wardround.common.study.plans.masking import plan_masking
from wardround.common.study.plans.observers import compare_noise
from wardround.common.study.plans.patient_privacy import (
    evaluation_plans,
    is_measured,
    plan_privacy,
)
from wardround.common.study.plans.site_privacy import plan_site_privacy
from wardround.common.study.plans.strategy import SHARING, describe_aggregation, plan_of
from wardround.common.study.plans.subgroups import groupings_of
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.registry import METRICS
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
        *_listed(_asked(study)),
        "",
        *_promised(study),
        "Before the first round this leaves the hospital",
        *_listed(_said_before(study)),
        "",
        f"In each of {study.federation.rounds} rounds this leaves the hospital",
        *_listed(_leaving(study)),
        "",
        *_decided(study),
        "These never leave",
        *_listed(_personal(study)),
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
        *_listed(_personal(study)),
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


def _repeated(study: Study) -> Iterator[str]:
    repeats = study.study.repeats
    if repeats is None:
        return
    left = "a hospital" if repeats.without == "site" else "patients of a hospital"
    yield (
        f"to train rounds {repeats.after_round + 1} to {study.federation.rounds} of the study "
        f"{repeats.parent} again, because {left} left it. What that one spent on patients stays "
        "spent, and what this one spends is added;"
    )


def _asked(study: Study) -> Iterator[str]:
    data = study.data
    yield from _repeated(study)
    if data.kind == "table":
        columns = ", ".join(covariate.name for covariate in data.covariates)
        yield f"to read these columns of its manifest: {columns};"
    else:
        channels = ", ".join(data.channels)
        yield f"to read {data.dimensions}D images ({channels}) that its manifest lists;"
        if data.covariates:
            columns = ", ".join(covariate.name for covariate in data.covariates)
            yield f"to read these clinical values beside them: {columns};"
        yield from _prepared(study)
    if data.optional:
        yield f"to take examinations that lack some of {', '.join(data.optional)}, and no other;"
    if groupings := groupings_of(study):
        named = ", ".join(grouping.name for grouping in groupings)
        yield f"to say how good the model is for groups of its patients, by {named};"
    yield from _label_words(study)
    yield f"to train {_network(study)} that can {_aim(study)};"
    if study.model.weights_sha256 is not None:
        yield (
            "to start from the weights with the SHA-256 "
            f"{study.model.weights_sha256}, which the server sends;"
        )
    yield from continuing_words(study)
    yield _effort(study)
    yield from _packages(study)
    yield from _attacked(study)
    yield from _averaged(study)
    yield (
        f"to set {_percent(study.evaluation.validation_fraction)} of its new patients aside for "
        f"validation and {_percent(study.evaluation.test_fraction)} for testing, where its "
        "manifest does not say who is which; those it knows keep their part."
    )


def _aim(study: Study) -> str:
    if study.task.restores:
        views = "tell two changed views of each image from those of its other images"
        verb = views if study.contrasts else study.task.verb
        return f"{verb}, which needs no label of them"
    return f"{study.task.verb} {_answer(study)}"


def _label_words(study: Study) -> Iterator[str]:
    labels = study.data.labels
    if labels.codes:
        codes = ", ".join(f"{name} is {code}" for name, code in labels.codes.items())
        yield f"to take these codes for classes: {codes};"
    if labels.words:
        words = ", ".join(f"{word} is {name}" for word, name in labels.words.items())
        yield f"to read these words so, where its own [labels] do not say otherwise: {words};"
    if labels.partial:
        yield (
            "to say in its [labels] which classes it has annotated, if not all: of the others its "
            "patients teach nothing and are not measured;"
        )


def _packages(study: Study) -> Iterator[str]:
    for package, found in study.packages.items():
        used = [
            f"{text.partition(':')[2]} ({key.partition(' ')[0]})"
            for key, text in study.registered.items()
            if text.startswith(f"{package}:")
        ]
        what = f"its {', '.join(used)}" if used else "what the other packages take of it"
        yield (
            f"to run code of the package {package}, which is not Wardround's: {what}. It is "
            f"installed by somebody here, never sent, and runs only if its files have the SHA-256 "
            f"{found}, and if the policy lists it with that;"
        )


def _prepared(study: Study) -> Iterator[str]:
    data = study.data
    if data.ignore_label is not None:
        yield f"to leave out what its masks mark with {data.ignore_label}, which nobody annotated;"
    if data.resample_to is not None:
        yield "to interpolate masks and channels of another grid onto that of the first channel;"


def _effort(study: Study) -> str:
    training = study.training
    if study.privacy.mode == "patient":
        plan = plan_privacy(study)
        drawn = f"with probability {plan.sampling_rate:g}"
        return f"to spend {plan.steps} steps a round, each patient taking part in a step {drawn};"
    effort = (
        f"{training.local_steps} steps"
        if training.local_steps
        else f"{training.local_epochs or 1} pass(es) over its training patients"
    )
    return f"to spend {effort} a round, in batches of {training.batch_size};"


def _attacked(study: Study) -> Iterator[str]:
    attack = study.training.adversarial
    if attack is not None:
        share = "" if attack.fraction == 1 else f"{_percent(attack.fraction)} of "
        yield (
            f"from round {attack.start_round} on to change {share}each batch's images against the "
            f"network, by up to {attack.epsilon:g} of 255 grey levels in {attack.steps} steps, "
            "each of which takes about as long as a training step;"
        )


def _averaged(study: Study) -> Iterator[str]:
    training, evaluation = study.training, study.evaluation
    if training.mixup:
        yield "to train on pairs of its images mixed with each other, and their labels alike;"
    if training.ema is not None:
        yield "to send the mean of the networks that its steps came by, the latest counting most;"
    if study.federation.ema is not None:
        yield (
            "to measure, beside the model that it trains, the mean of the rounds' models, which is "
            "what the study ends with;"
        )
    if evaluation.tta == "mirror":
        yield (
            f"to test the finished model on each image {2**study.data.dimensions} times, mirrored "
            "along every axis;"
        )


def _said_before(study: Study) -> Iterator[str]:
    yield "its name, its version of wardround and the digest of this study;"
    if study.model.adapted:
        yield "a check sum of the frozen numbers of the network;"
    if not what_leaves(study).counts:
        yield "nothing about its training patients, not even how many there are."
        return
    yield "how many training examinations it holds;"
    yield "which classes no patient of it has, and which rows of its manifest cannot be read."


def _leaving(study: Study) -> Iterator[str]:
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


def _decided(study: Study) -> list[str]:
    """Return how the model is judged by whoever would act on it."""
    sentences = list(_decisions(study))
    return ["How acting on the model is judged", *_listed(iter(sentences)), ""] * bool(sentences)


def _decisions(study: Study) -> Iterator[str]:
    evaluation, classes = study.evaluation, study.data.classes
    one = classes[1] if len(classes) == 2 and not study.data.multi_label else "each class by itself"
    if (point := evaluation.operating_point) is not None:
        aim = (
            f"finds at least {_percent(point.sensitivity)} of its cases (sensitivity)"
            if point.sensitivity
            else f"leaves at least {_percent(point.specificity or 0)} of the others alone "
            "(specificity)"
        )
        yield (
            f"a threshold for {one} is chosen on validation patients so that it {aim}, and is "
            "measured on test patients; what leaves the hospital stays the same;"
        )
    if evaluation.prevalence:
        shares = ", ".join(f"{k} {_percent(v)}" for k, v in evaluation.prevalence.items())
        yield (
            "how often the model is right when it reports a class is told for people of whom so "
            f"many have it, whatever the hospitals' own share: {shares}."
        )


def _personal(study: Study) -> Iterator[str]:
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


def _metrics(study: Study) -> str:
    task = study.study.task
    own = [m.title for m in METRICS.values() if task in m.tasks and not m.surface]
    return ", ".join((*own, *study.package_metrics))


def _network(study: Study) -> str:
    network, rank = study.model.network, study.model.adapter_rank
    if study.model.frozen:
        return (
            f"a {network} network but for its numbers whose names match "
            f"{', '.join(study.model.frozen)}"
        )
    if rank is None:
        return f"a {network} network"
    return (
        f"adapters (LoRA, rank {rank}) and the last layer of an otherwise frozen {network} network"
    )


def _answer(study: Study) -> str:
    """Return what the network answers: one of the classes, or a number, or a time."""
    outcome = study.outcome
    if study.task.outcome == "number":
        high = outcome.with_unit(outcome.low + outcome.width)
        return f"{outcome.name}, a number from {outcome.low:g} to {high}"
    if study.task.outcome == "time":
        horizon = outcome.with_unit(outcome.times[-1])
        return f"{outcome.name}, up to {horizon} after the manifest's time 0"
    what = "one of" if not study.data.multi_label else "any of"
    return f"{what}: {', '.join(study.data.classes)}"


def _percent(fraction: float) -> str:
    return f"{fraction * 100:g} %"
