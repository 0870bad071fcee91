"""The model card: what whoever gets a model has to know (Mitchell et al. 2019)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wardround.common.models.contract import Contract, Measured
from wardround.common.models.documents.field import (
    DocumentField,
    asked,
    checklist_lines,
    field_lines,
    told,
)
from wardround.common.models.documents.study_fields import (
    input_words,
    package_words,
    preprocessing_words,
    rounds_words,
    start_words,
    strategy_words,
    training_words,
)
from wardround.common.models.pretrained import origin_words
from wardround.common.models.start import NO_LICENCE
from wardround.common.runtime.markdown import inline
from wardround.common.study.study import Study

NOT_FOR_DIAGNOSIS = "For research. Not a medical device; not for diagnosis or treatment."
_MOST_MEASUREMENTS = 60
_UNKNOWN = "not known where this card was written: ask whoever ran the study"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model comes from, in sentences.

    Attributes:
        trained_on: E.g. "120 training patients of 4 simulated sites".
        privacy: What was promised to patients or sites, and spent.
        licence: Of the data, as far as it is known.
        sites: Each site, with how much it held where that may be said.
        source: Data set, citation, home page.
        environment: What it was trained with.
        code: Which code trained it.
        verdict: Whether it is better than a site's own model, and for whom.
        explanations: Where the model looked, and whether that can be believed.
        limits: That follow from the run, beside those of every model.
        lineage: What the signed record of the rounds says.
    """

    trained_on: Sequence[str]
    privacy: Sequence[str]
    licence: str
    sites: Sequence[str] = ()
    source: Sequence[str] = ()
    environment: Sequence[str] = ()
    code: Sequence[str] = ()
    verdict: Sequence[str] = ()
    explanations: Sequence[str] = ()
    limits: Sequence[str] = ()
    lineage: Sequence[str] = ()


def model_card(
    contract: Contract, study: Study, origin: Origin, measured: Sequence[Measured]
) -> str:
    """Return the card, Markdown."""
    return card_text(
        f"{contract.name}: a model of the study {study.name}",
        card_fields(contract, study, origin, measured),
    )


def card_text(title: str, fields: Sequence[DocumentField]) -> str:
    """Return a card or a data sheet, Markdown."""
    lines = [f"# {inline(title)}", "", f"**{NOT_FOR_DIAGNOSIS}**", ""]
    lines += [
        "Written by Wardround from the run. What no tool can know says who fills it in.",
        "",
        *field_lines(fields),
        *checklist_lines(fields),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def card_fields(
    contract: Contract, study: Study, origin: Origin, measured: Sequence[Measured]
) -> tuple[DocumentField, ...]:
    """Return the fields of a model card; none that a tool could fill is empty."""
    return (
        *_purpose(contract, study),
        *_model(contract, study, origin),
        *_data(origin),
        *_results(study, origin, measured),
        *_responsibility(contract, study, origin),
    )


def licence_text(data_licence: str, study: Study | None = None) -> str:
    """Return the text of ``licence.txt``.

    Args:
        study: What trained the model: what it started from has a licence too.
    """
    inherited = "" if study is None else "".join(f"{one}\n\n" for one in origin_words(study))
    return f"{data_licence}\n\n{inherited}{NO_LICENCE}{NOT_FOR_DIAGNOSIS}\n"


def inline_words(text: str) -> str:
    """Return a text of several lines as one."""
    return " ".join(text.split())


def _purpose(contract: Contract, study: Study) -> Iterator[DocumentField]:
    section, data = "What it is for", study.data
    version = f"{contract.name}, written by wardround {contract.wardround}"
    run = (f"run {contract.run}",) if contract.run else ()
    yield told("name", section, "name and version", (version, *run))
    yield told("task", section, "task", study.study.task)
    yield told("classes", section, "classes", ", ".join(data.classes))
    if study.study.description:
        words = f"the study says of itself: {study.study.description}"
        yield told("description", section, "objective", words)
    else:
        who = "the study's author, as description in [study]"
        yield asked("description", section, "objective", who)
    clinical = "the study's lead, with the clinicians who would use it"
    yield asked("intended_use", section, "intended use and target patients", clinical)
    yield asked("users", section, "intended users", clinical)
    yield told("not_for", section, "what it is not for", NOT_FOR_DIAGNOSIS)
    yield asked("oversight", section, "human oversight", "the department that would use it")


def _model(contract: Contract, study: Study, origin: Origin) -> Iterator[DocumentField]:
    section = "The model"
    yield told("network", section, "network", study.model.network)
    if study.packages:
        yield told("packages", section, "packages that it needs", package_words(study))
    yield told("input", section, "input", input_words(study))
    yield told("preprocessing", section, "preprocessing", preprocessing_words(study))
    yield told("output", section, "output", _output(contract, study))
    started = (start_words(study), *(inline_words(one) for one in origin_words(study)))
    yield told("start", section, "what training started from", started)
    yield told("training", section, "training at a site", training_words(study))
    yield told("strategy", section, "strategy", strategy_words(study))
    yield told(
        "rounds", section, "rounds, and which model is kept", rounds_words(study, contract.round)
    )
    yield told(
        "weights",
        section,
        "digests",
        (f"weights: digest {contract.parameters}", f"study digest {contract.study_digest}"),
    )
    code = origin.code or (f"wardround {contract.wardround} wrote this folder",)
    yield told("code", section, "code", code)
    yield told("environment", section, "environment", origin.environment or (_UNKNOWN,))


def _data(origin: Origin) -> Iterator[DocumentField]:
    section = "What it was trained on"
    yield told("trained_on", section, "data", origin.trained_on)
    yield told("sites", section, "sites", origin.sites or origin.trained_on)
    yield told("source", section, "source", origin.source or (_UNKNOWN,))
    yield told("licence", section, "licence of the data", origin.licence)
    yield told("privacy", section, "privacy of the patients", origin.privacy)


def _results(study: Study, origin: Origin, measured: Sequence[Measured]) -> Iterator[DocumentField]:
    section = "How good it is"
    verdict = origin.verdict or ("it was compared with no other model here",)
    yield told("verdict", section, "is it better than a site's own model?", verdict)
    yield told("measured", section, "what was measured", _measured(measured))
    yield told("by_site", section, "for whom it is worse", _worst(study, measured))
    maps = origin.explanations or ("no maps of where the model looked were made",)
    yield told("explanations", section, "explanations", maps)
    yield asked(
        "metric_choice",
        section,
        f"why {study.metric} is the metric that matters",
        "the study's lead, with the clinicians who would use it",
    )
    yield asked(
        "external",
        section,
        "tests at hospitals that took no part",
        "the study's lead; 'wardround evaluate FOLDER --site SITE' tests one",
    )


def _responsibility(contract: Contract, study: Study, origin: Origin) -> Iterator[DocumentField]:
    yield told("limits", "Limits", "limits", (*_limits(contract, study), *origin.limits))
    section = "Responsibility"
    lineage = origin.lineage or ("this folder has no signed record of its rounds",)
    yield told("lineage", section, "signed lineage", lineage)
    yield asked(
        "people", section, "owner, contact, funding, conflicts of interest", "the study's lead"
    )
    yield asked(
        "ethics",
        section,
        "ethical approval and legal basis",
        "each hospital's data-protection officer and ethics board",
    )
    yield asked(
        "risk_management",
        section,
        "risk management",
        "whoever puts it into service (AI Act Article 9)",
    )
    yield asked("changes", section, "changes that are planned", "whoever puts it into service")
    yield asked(
        "monitoring",
        section,
        "monitoring in use",
        "whoever puts it into service (AI Act Article 72)",
    )
    yield asked(
        "conformity",
        section,
        "standards and declaration of conformity",
        "whoever puts it on the market",
    )


def _output(contract: Contract, study: Study) -> Iterator[str]:
    if study.task.dense:
        yield f"a mask with one of {len(study.data.classes)} classes a voxel"
    elif study.task.classifies:
        several = ", any number of them true" if study.data.multi_label else ""
        yield f"a probability for each of {len(study.data.classes)} classes{several}"
        yield f"a class is reported from a probability of {contract.threshold:g} on"
    elif study.task.boxes:
        yield f"boxes, each of one of {len(study.data.classes)} classes and with a score"
    elif study.task.outcome == "number":
        outcome = study.outcome
        high = outcome.with_unit(outcome.low + outcome.width)
        yield f"a number: {outcome.name}, from {outcome.low:g} to {high}; beyond it is cut off"
    elif study.loss == "cox":
        yield f"a log hazard ratio of {study.outcome.name}: more is an earlier event"
    elif study.task.outcome == "time":
        times = ", ".join(f"{time:g}" for time in study.outcome.times)
        unit = f" {study.outcome.unit}" if study.outcome.unit else ""
        yield f"the probability of no {study.outcome.name} up to {times}{unit}, and a risk"
    else:
        yield f"what the task {study.study.task} asks for"
    if contract.temperature is not None:
        yield f"calibrated: logits are divided by {contract.temperature:g}"


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


def _worst(study: Study, measured: Sequence[Measured]) -> Iterator[str]:
    """Yield the site with the worst value of the study's metric, and the best."""
    from wardround.common.study.registry import METRICS

    found = [
        one
        for one in measured
        if one.metric == study.metric and not one.class_name and not one.of.startswith("all sites")
    ]
    if len(found) < 2:
        yield "not told: fewer than two sites have let out a value of their own"
        return
    entry = METRICS.get(study.metric)
    up = entry is None or entry.higher_is_better
    ranked = sorted(found, key=lambda one: one.value if up else -one.value)
    for word, one in (("worst", ranked[0]), ("best", ranked[-1])):
        few = "" if one.support is None else f", {one.support} examinations"
        yield f"{word}: {one.of}: {study.metric} {one.value:.3f}{few}"


def _limits(contract: Contract, study: Study) -> Iterator[str]:
    yield "what it says of patients, scanners and hospitals other than those above is not known"
    if study.task.classifies or study.task.dense:
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
