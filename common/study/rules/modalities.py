"""What an examination may lack, and how its images and clinical values come together."""

from collections.abc import Iterator

from wardround.common.errors import known_names
from wardround.common.study.plans.strategy import plan_from
from wardround.common.study.private_networks import PRIVATE_NETWORKS
from wardround.common.study.study import Study


def modality_rules(study: Study) -> Iterator[str]:
    """Yield a sentence (fact, value, remedy) for every rule of optional modalities it breaks."""
    yield from _covariates_fit(study)
    yield from _references_fit(study)
    yield from _task_fits(study)
    yield from _names_fit(study)
    yield from _fusion_fits(study)
    yield from _dropout_fits(study)


def _covariates_fit(study: Study) -> Iterator[str]:
    """Say which covariates no hospital's table could give, or would give by mistake."""
    covariates = study.data.covariates
    names = [one.name for one in covariates]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield f"data.covariates names {name!r} twice: use each name once."
        if name.casefold() in _own_columns(study):
            yield (
                f"data.covariates names {name!r}, a column of the manifest that says something "
                "else of a patient: rename the covariate, and its column."
            )
    for one in covariates:
        twice = next((word for word in one.values if one.values.count(word) > 1), None)
        if twice is not None:
            yield f"data.covariates {one.name!r} lists the value {twice!r} twice: list it once."
        if one.values and (one.mean, one.scale) != (0, 1):
            yield (
                f"data.covariates {one.name!r} lists values, and a mean or a scale is for numbers: "
                "remove one of them."
            )


def _own_columns(study: Study) -> set[str]:
    """Return the columns of a manifest, in small letters, that are read for what they are."""
    channels = study.data.channels if study.data.kind == "image" else ()
    images = {"image", *(f"image.{channel}".casefold() for channel in channels)}
    target: set[str] = {study.task.column}
    if study.task.outcome == "time":
        target |= {"time", "event"}
    return {"patient", "site", "split"} | images | target


def _references_fit(study: Study) -> Iterator[str]:
    for one in study.data.covariates:
        if one.reference and not one.values:
            yield (
                f"data.covariates {one.name!r} has a reference, {one.reference!r}, and no values: "
                "list them, or remove it."
            )
        elif one.reference in one.values and one.reference:
            yield (
                f"data.covariates {one.name!r} lists its reference {one.reference!r} among its "
                "values, and a reference has no column: remove it from one of them."
            )


def _task_fits(study: Study) -> Iterator[str]:
    """Say where a network has no place for tokens: boxes, and images that are restored."""
    if study.data.kind != "image" or not (study.task.boxes or study.task.restores):
        return
    task = study.study.task
    if study.data.optional:
        yield (
            f"data.optional = {list(study.data.optional)} does not fit study.task = {task!r}: its "
            "network has no token for what is missing; remove it."
        )
    if study.model.fusion != "early":
        yield (
            f"model.fusion = {study.model.fusion!r} does not fit study.task = {task!r}: choose "
            "'early'."
        )


def _names_fit(study: Study) -> Iterator[str]:
    data = study.data
    channels = data.channels if data.kind == "image" else ()
    covariates = [one.name for one in data.covariates]
    known = [*channels, *covariates]
    if len(set(data.optional)) < len(data.optional):
        yield f"data.optional = {list(data.optional)} names one twice: use each name once."
    for name in dict.fromkeys(data.optional):
        if name not in known:
            yield known_names("channel or covariate of data.optional", name, known)
        elif name in channels and name in covariates:
            yield (
                f"data.optional = {name!r} is a channel and a covariate: rename one, so that it is "
                "clear which may be missing."
            )
    if len(channels) == 1 and channels[0] in data.optional:
        yield (
            f"data.optional names {channels[0]!r}, the only channel: an examination without any "
            "image cannot be used. Remove it, or set data.kind = 'table'."
        )


def _fusion_fits(study: Study) -> Iterator[str]:
    data, model = study.data, study.model
    if model.fusion == "early":
        return
    said = f"model.fusion = {model.fusion!r}"
    if data.kind == "table":
        yield f"{said} is for images: remove it."
        return
    if len(data.channels) < 2 and (study.task.dense or not data.covariates):
        yield f"{said} has nothing to bring together, with one channel: remove it."
    if model.adapter_rank is not None:
        yield (
            f"{said} builds new layers, which model.adapter_rank would freeze as they were drawn: "
            "set one of them."
        )
    if model.fusion == "late" and _objective(study) == "contrastive":
        yield (
            f"{said} has no features of a whole examination, which the objective 'contrastive' "
            "compares: choose another strategy, or model.fusion = 'intermediate'."
        )
    private = PRIVATE_NETWORKS.get(model.network)
    alone = () if private is None else private.normalisations
    mixes = model.normalisation not in alone and model.fixer == "none"
    if data.optional_channels and private is not None and mixes:
        allowed = ", ".join(repr(choice) for choice in alone)
        yield (
            f"{said} with an optional channel does not fit model.normalisation = "
            f"{model.normalisation!r} of {model.network}, which would mix the images that are "
            f"there with those that are not: choose one of {allowed}."
        )


def _dropout_fits(study: Study) -> Iterator[str]:
    if study.training.modality_dropout and not study.data.optional:
        yield (
            f"training.modality_dropout = {study.training.modality_dropout:g} leaves out what "
            "data.optional names, and that is empty: name channels or covariates there."
        )


def _objective(study: Study) -> str:
    try:
        return plan_from(study.federation, adapted=study.model.adapted).objective
    except KeyError:
        return ""  # an unknown strategy, said elsewhere
