"""What a hospital would be agreeing to, in plain language."""

from collections.abc import Iterator

from wardround.common.catalogue import METRICS
from wardround.common.strategy import SHARING, describe_combination, plan_of
from wardround.common.study import Study


def explain_study(study: Study) -> str:
    """Return a page of text: purpose, data read, work done, what leaves, what does not."""
    parts = [
        f"{study.name}: {study.study.description or 'no description given'}",
        f"Digest {study.digest}",
        "",
        "Your hospital would be asked",
        *_listed(_asked(study)),
        "",
        "Before the first round this leaves the hospital",
        *_listed(_said_before(study)),
        "",
        f"In each of {study.federation.rounds} rounds this leaves the hospital",
        *_listed(_leaving(study)),
        "",
        "These never leave",
        *_listed(_staying(study)),
        "",
        "What is not promised",
        *_listed(_not_promised(study)),
        "",
    ]
    return "\n".join(parts)


def _listed(sentences: Iterator[str]) -> list[str]:
    return [f"  - {sentence}" for sentence in sentences]


def _asked(study: Study) -> Iterator[str]:
    data, training = study.data, study.training
    if data.kind == "table":
        columns = ", ".join(covariate.name for covariate in data.covariates)
        yield f"to read these columns of its manifest: {columns};"
    else:
        channels = ", ".join(data.channels)
        yield f"to read {data.dimensions}D images ({channels}) that its manifest lists;"
        if data.covariates:
            columns = ", ".join(covariate.name for covariate in data.covariates)
            yield f"to read these clinical values beside them: {columns};"
    what = "one of" if not data.multi_label else "any of"
    verb = "classify each as" if study.study.task == "classification" else "mark every voxel as"
    yield f"to train {_network(study)} that can {verb} {what}: {_classes(study)};"
    if study.model.weights_sha256 is not None:
        yield f"to hold the pretrained weights with the SHA-256 {study.model.weights_sha256};"
    effort = (
        f"{training.local_steps} steps"
        if training.local_steps
        else f"{training.local_epochs or 1} pass(es) over its training patients"
    )
    yield f"to spend {effort} a round, in batches of {training.batch_size};"
    yield (
        f"to set {_percent(study.evaluation.validation_fraction)} of its patients aside for "
        f"validation and {_percent(study.evaluation.test_fraction)} for testing, where its "
        "manifest does not say who is which."
    )


def _said_before(study: Study) -> Iterator[str]:
    yield "its name, its version of wardround and the digest of this study;"
    yield "how many training examinations it holds;"
    if study.model.adapter_rank is not None:
        yield "a check sum of the frozen numbers of the network;"
    yield "which classes no patient of it has, and which rows of its manifest cannot be read."


def _leaving(study: Study) -> Iterator[str]:
    plan = plan_of(study)
    yield f"{SHARING[plan.share]}, after training on its patients;"
    if plan.objective == "control-variates":
        yield "its mean gradient over the round, one number a number of the network;"
    if plan.combination == "fair-mean":
        yield "the mean loss of the received network on its training patients;"
    yield "how many training examinations it holds, and how many steps it made;"
    metrics = [m.title for m in METRICS.values() if study.study.task in m.tasks and not m.surface]
    yield f"sums over its validation patients, from which these follow: {', '.join(metrics)};"
    yield "the same sums over its test patients, once, for the models that are kept;"
    yield "its mean training loss and the seconds it took."
    yield f"The server combines the hospitals' networks by this: {describe_combination(plan)}."


def _staying(study: Study) -> Iterator[str]:
    yield "images, masks and labels of single patients;"
    yield "names, identifiers, file names and the manifest;"
    plan = plan_of(study)
    if plan.personal:
        yield f"the network's numbers whose names match {', '.join(plan.personal)};"
    if study.model.adapter_rank is not None and plan.share != "all":
        origin = "seed makes" if study.model.weights_sha256 is None else "weight file holds"
        yield f"the network's frozen numbers, which the study's {origin};"
    if plan.objective in ("personal-twin", "mixture", "fine-tune"):
        yield "the hospital's own personal network;"
    yield "predictions for single patients."


def _not_promised(study: Study) -> Iterator[str]:
    if study.privacy.mode == "none":
        yield (
            "This study asks for no differential privacy: whoever sees the hospital's network "
            "after a round may be able to infer something about its patients."
        )
    yield "The digest covers all of the above, but not how a simulation was set up."


def _network(study: Study) -> str:
    network, rank = study.model.network, study.model.adapter_rank
    if rank is None:
        return f"a {network} network"
    return (
        f"adapters (LoRA, rank {rank}) and the last layer of an otherwise frozen {network} network"
    )


def _classes(study: Study) -> str:
    return ", ".join(study.data.classes)


def _percent(fraction: float) -> str:
    return f"{fraction * 100:g} %"
