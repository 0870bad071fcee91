"""What a study alone says of a model, in the words of a card."""

from collections.abc import Iterator

from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.registry import METRICS
from wardround.common.study.study import Study


def input_words(study: Study) -> Iterator[str]:
    """Yield what the model takes."""
    data = study.data
    if data.kind == "image":
        kind = "colour" if data.colour else "grey"
        yield f"{data.dimensions}D {kind} images, channels {', '.join(data.channels)}"
    if data.covariates:
        yield f"clinical values: {', '.join(covariate.name for covariate in data.covariates)}"
    if data.optional:
        yield f"may be missing: {', '.join(data.optional)}; the others must be there"


def preprocessing_words(study: Study) -> Iterator[str]:
    """Yield how images and clinical values are prepared, at training as at prediction."""
    if study.data.kind == "image":
        yield from _image_words(study)
    if study.data.covariates:
        yield from _covariate_words(study)


def _image_words(study: Study) -> Iterator[str]:
    data = study.data
    if data.orientation is not None or data.dimensions == 3:
        yield f"axes: {data.orientation or 'RAS, where the file says how it lies'}"
    if data.spacing is not None:
        yield f"resampled to {_sides(data.spacing)} mm"
    if data.size is not None:
        how = "resized" if data.fit == "resize" else "padded or cropped"
        yield f"{how} to {_sides(data.size)}"
    if data.denoise:
        yield "denoised"
    if data.harmonisation.bias_correction:
        yield "a smooth shading divided out"
    if data.harmonisation.landmarks:
        yield "grey values matched to the quantiles of a public reference"
    yield f"intensity: {data.intensity}{_window(study)}"
    yield f"augmentation in training: {data.augmentation}"


def _covariate_words(study: Study) -> Iterator[str]:
    data = study.data
    for covariate in data.covariates:
        if covariate.values:
            beside = f"; {covariate.reference} has none" if covariate.reference else ""
            yield f"{covariate.name}: a column for each of {', '.join(covariate.values)}{beside}"
        elif data.covariate_scaling == "study":
            yield f"{covariate.name}: less {covariate.mean:g}, over {covariate.scale:g}"
    if data.combat is not None:
        yield f"{', '.join(data.combat.features)}: without what is their site's, by ComBat"
    whose = "each site's own" if data.covariate_scaling == "site" else "the study's"
    yield f"clinical values are scaled by {whose} numbers"
    if data.optional_covariates:
        yield "a missing clinical value is a flag, whose weights are learnt"


def start_words(study: Study) -> str:
    """Return what training started from."""
    if study.model.weights_sha256 is not None:
        return f"pretrained weights with the SHA-256 {study.model.weights_sha256}"
    return f"weights drawn with seed {study.federation.seed}"


def package_words(study: Study) -> Iterator[str]:
    """Yield which installed packages the model is made with, and needs again."""
    for package, found in study.packages.items():
        names = [text for text in study.registered.values() if text.startswith(f"{package}:")]
        yield f"package {package}, SHA-256 {found}: {', '.join(names) or 'needed by another'}"


def training_words(study: Study) -> Iterator[str]:
    """Yield what a site does in a round."""
    training = study.training
    passes = f"{training.local_epochs or 1} passes over the training patients"
    work = f"{training.local_steps} steps" if training.local_steps else passes
    yield f"a round: {work}, batches of {training.batch_size}"
    yield (
        f"loss {study.loss}, {training.optimiser}, learning rate {training.learning_rate:g} "
        f"({training.schedule}), weight decay {training.weight_decay:g}"
    )
    weights = training.class_weights
    yield f"class weights: {weights if isinstance(weights, str) else _sides(weights)}"


def strategy_words(study: Study) -> Iterator[str]:
    """Yield how updates become the next model."""
    plan = plan_of(study)
    yield (
        f"{study.federation.strategy}: shares {plan.share}, local objective {plan.objective}, "
        f"aggregation {plan.aggregation}, server step {plan.server_optimiser}"
    )
    if study.federation.compression != "none":
        yield f"updates are compressed: {study.federation.compression}"


def rounds_words(study: Study, kept: int) -> Iterator[str]:
    """Yield how many rounds there were, and which model is kept.

    Args:
        kept: The round after which the model was made; 0 where that is not known.
    """
    if kept:
        yield f"made after round {kept} of {study.federation.rounds}"
    else:
        yield f"the study asks for {study.federation.rounds} rounds"
    entry = METRICS.get(study.metric)
    title = entry.title if entry else study.metric
    if study.evaluation.keep == "best":
        yield f"kept: the model with the best {title} on validation patients"
    else:
        yield "kept: the last model"


def partition_words(study: Study) -> Iterator[str]:
    """Yield how patients are divided into training, validation and test."""
    part = study.evaluation
    yield (
        f"{part.validation_fraction:.0%} of a site's patients are for validation and "
        f"{part.test_fraction:.0%} for testing, where its manifest does not say who is which"
    )
    yield "no patient is in two parts; a patient's part is drawn from a hash and stays"


def _window(study: Study) -> str:
    data = study.data
    window = "" if data.window is None else f", window {data.window[0]:g} to {data.window[1]:g}"
    if data.scaling is not None:
        window += f", less {data.scaling[0]:g}, over {data.scaling[1]:g}"
    return window


def _sides(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:g}" for value in values)
