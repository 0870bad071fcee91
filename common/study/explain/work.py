"""What a hospital is asked to do with its data, in plain language."""

from collections.abc import Iterator

from wardround.common.study.explain.continual import continuing_words
from wardround.common.study.plans.patient_privacy import (
    plan_privacy,
)
from wardround.common.study.plans.subgroups import groupings_of
from wardround.common.study.study import Study


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


def work_words(study: Study) -> Iterator[str]:
    """Yield what a hospital is asked to read, and what it computes on that."""
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
        f"to set {percent(study.evaluation.validation_fraction)} of its new patients aside for "
        f"validation and {percent(study.evaluation.test_fraction)} for testing, where its "
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
        share = "" if attack.fraction == 1 else f"{percent(attack.fraction)} of "
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


def percent(fraction: float) -> str:
    """Return a fraction in words: 0.5 is "50 %"."""
    return f"{fraction * 100:g} %"
