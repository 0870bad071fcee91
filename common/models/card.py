"""The model card: what whoever gets a model has to know (Mitchell et al. 2019)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wardround.common.models.contract import Contract, Measured
from wardround.common.study.study import Study

NOT_FOR_DIAGNOSIS = "For research. Not a medical device; not for diagnosis or treatment."
_MOST_MEASUREMENTS = 60


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model comes from, in sentences.

    Attributes:
        trained_on: E.g. "120 training patients of 4 simulated sites".
        privacy: What was promised to patients or sites, and spent.
        licence: Of the data, as far as it is known.
    """

    trained_on: Sequence[str]
    privacy: Sequence[str]
    licence: str


def model_card(
    contract: Contract, study: Study, origin: Origin, measured: Sequence[Measured]
) -> str:
    """Return the card, Markdown."""
    lines = [
        f"# {contract.name}: a model of the study {study.name}",
        "",
        f"**{NOT_FOR_DIAGNOSIS}**",
        "",
        *_bullets("What it does", _purpose(contract, study)),
        *_bullets("What it was trained on", origin.trained_on),
        *_bullets("Privacy", origin.privacy),
        *_bullets("What was measured", _measured(measured)),
        *_bullets("Limits", _limits(contract)),
        *_bullets("Licence", [origin.licence]),
    ]
    return "\n".join(lines) + "\n"


def licence_text(data_licence: str) -> str:
    """Return the text of ``licence.txt``."""
    return (
        f"{data_licence}\n\n"
        "Wardround grants no licence to these weights. Whoever ran the study does; write it here\n"
        "before you pass the model on, and have the folder signed again.\n"
        f"{NOT_FOR_DIAGNOSIS}\n"
    )


def _purpose(contract: Contract, study: Study) -> Iterator[str]:
    data = study.data
    yield f"task: {study.study.task}; classes: {', '.join(data.classes)}"
    if study.study.description:
        yield f"the study says of itself: {study.study.description}"
    yield f"network: {study.model.network}; study digest {contract.study_digest}"
    yield f"weights: digest {contract.parameters}"
    if data.kind == "image":
        kind = "colour" if data.colour else "grey"
        yield f"input: {data.dimensions}D {kind} images, channels {', '.join(data.channels)}"
    if data.covariates:
        yield f"clinical values: {', '.join(covariate.name for covariate in data.covariates)}"
    if contract.round:
        yield f"made after round {contract.round} of {study.federation.rounds}"


def _measured(measured: Sequence[Measured]) -> Iterator[str]:
    if not measured:
        yield "nothing that was let out"
    for one in measured[:_MOST_MEASUREMENTS]:
        of_class = f" of {one.class_name}" if one.class_name else ""
        interval = ""
        if one.interval is not None:
            interval = f" (95 % interval {one.interval[0]:.3f} to {one.interval[1]:.3f})"
        support = "" if one.support is None else f", {one.support} examinations"
        yield f"{one.metric}{of_class}: {one.value:.4f}{interval}, {one.of}{support}"
    if len(measured) > _MOST_MEASUREMENTS:
        yield f"{len(measured) - _MOST_MEASUREMENTS} more in metrics.json"


def _limits(contract: Contract) -> Iterator[str]:
    yield "what it says of patients, scanners and hospitals other than those above is not known"
    yield calibration_words(contract)
    if contract.seen is None:
        yield f"it cannot tell an image of unusual intensities: {contract.seen_note}"
    else:
        yield f"images unlike the {contract.seen.images} that were looked at are refused"
    if not contract.complete:
        yield "what is personal to a site is not in this folder: it has never left the site"


def calibration_words(contract: Contract) -> str:
    """Return whether a model's probabilities are calibrated, and how that is known."""
    why = f": {contract.calibration}" if contract.calibration else ""
    if contract.temperature is None:
        return f"its probabilities are not calibrated{why}"
    return (
        f"its probabilities are calibrated{why}; for patients among whom the classes are more or "
        "less common than among those, they are not"
    )


def _bullets(title: str, lines: Sequence[str] | Iterator[str]) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    for line in lines:
        yield f"- {line}"
    yield ""
