"""What a simulated run knows of where its models come from, and how good they are."""

import math
from collections.abc import Iterator, Sequence

from wardround.common.models.card import Origin
from wardround.common.models.contract import Measured
from wardround.simulations.report import wording
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.sections.order import make_sections
from wardround.simulations.report.sections.section import Section
from wardround.simulations.run_files.folder import FEDERATED, local_model

SMALLEST_COUNT = 10  # of patients whom a document of hospitals' own data tells of
CODE = "code"  # a key of the environment
_KEPT, _INTERVAL = -1, 1.96
_UNBOUNDED = ("loss", "hd95")
_UNSIGNED = (
    "none: a simulation signs no rounds, for all its keys would lie on one machine; the model of a "
    "federation brings a signed record"
)


def origin_of(contents: RunContents, model: str) -> Origin:
    """Return where a model of a run comes from.

    Args:
        model: ``federated``, ``pooled``, ``local-SITE`` or another of the run.
    """
    facts = contents.facts
    sections = make_sections(contents) if model == FEDERATED else ()
    environment = {key: text for key, text in facts.environment.items() if key != CODE}
    return Origin(
        trained_on=tuple(_trained_on(contents, model)),
        privacy=tuple(_privacy(contents)),
        licence=_licence(contents),
        sites=tuple(_sites(contents)),
        source=tuple(source_words(contents)),
        environment=tuple(f"{key}: {text}" for key, text in environment.items()),
        code=tuple(code_words(contents)),
        verdict=tuple(_verdict(contents, model, sections)),
        explanations=tuple(_explanations(sections)),
        limits=tuple(_limits(contents)),
        lineage=(_UNSIGNED,),
    )


def measured_of(contents: RunContents, model: str) -> Iterator[Measured]:
    """Yield what was measured of a model on test patients; what has no value is left out."""
    fewest = SMALLEST_COUNT if contents.own_data else 0
    for row in contents.metrics:
        asked = row.model == model and row.round == _KEPT and row.split == "test"
        if not (asked and math.isfinite(row.value)):
            continue
        half = _INTERVAL * row.standard_error
        most = math.inf if row.metric in _UNBOUNDED else 1.0
        known = 0 < half < math.inf
        yield Measured(
            of=f"{row.site}, test patients",
            metric=row.metric,
            class_name=row.class_name,
            value=row.value,
            interval=(max(0.0, row.value - half), min(most, row.value + half)) if known else None,
            support=row.support if row.support >= fewest else None,
        )


def source_words(contents: RunContents) -> Iterator[str]:
    """Yield the data set, its citation and its home page."""
    data = contents.facts.data
    yield data.get("title") or data.get("name") or "a data set without a name"
    for key in ("citation", "homepage"):
        if data.get(key):
            yield f"{key}: {data[key]}"


def code_words(contents: RunContents) -> Iterator[str]:
    """Yield which code trained."""
    facts = contents.facts
    yield f"wardround {facts.wardround}"
    if CODE in facts.environment:
        yield f"its files: {facts.environment[CODE]}"


def shown_count(contents: RunContents, count: int) -> str:
    """Return a number of patients; small ones of hospitals' own data are not told."""
    if contents.own_data and 0 < count < SMALLEST_COUNT:
        return f"fewer than {SMALLEST_COUNT}"
    return str(count)


def shown_notes(contents: RunContents) -> tuple[str, ...]:
    """Return the run's notes; those on own data tell small counts and stay on the page."""
    if contents.own_data and contents.facts.notes:
        return (f"{len(contents.facts.notes)} notes on the data stand on the report's page",)
    return contents.facts.notes


def _trained_on(contents: RunContents, model: str) -> Iterator[str]:
    named = next(source_words(contents))
    yield f"{named}, divided into {len(contents.sites)} simulated sites on one machine"
    if model.startswith(prefix := local_model("")):
        yield f"the training patients of {model.removeprefix(prefix)} alone"


def _sites(contents: RunContents) -> Iterator[str]:
    for site in contents.sites:
        counts = {
            row.split: shown_count(contents, row.patients)
            for row in contents.split
            if row.site == site and not row.class_name
        }
        told = ", ".join(f"{count} {split} patients" for split, count in counts.items())
        yield f"{site}: {told or 'no patients'}"


def _privacy(contents: RunContents) -> Iterator[str]:
    study = contents.study
    if study is None or study.privacy.mode == "none":
        yield "nothing was promised to patients: what the model remembers of them is not bounded"
        return
    yield f"the study promises privacy to each {study.privacy.mode}"
    for row in contents.privacy:
        if row.part == "train":
            yield (
                f"{row.site}: training spent epsilon {row.epsilon:.3f} at delta {row.delta:g} "
                f"in {row.charged} answers"
            )


def _licence(contents: RunContents) -> str:
    licence = contents.facts.data.get("licence")
    if not licence:
        return "The data set of this run names no licence: ask whoever owns it."
    return f"The weights were made from data under this licence: {licence}"


def _verdict(contents: RunContents, model: str, sections: Sequence[Section]) -> Iterator[str]:
    if model != FEDERATED:
        yield "it is here to compare the federated model with"
        return
    verdict = contents.verdict_on(contents.metric)
    yield wording.compose_headline(contents, verdict).sentence
    for site in verdict.compared:
        margin = wording.number(site.margin, verdict.metric) if site.has_interval else ""
        interval = f" ± {margin}" if margin else ", without an interval"
        gain = wording.signed(site.gain, verdict.metric)
        yield f"{site.site}: gain {gain}{interval} in {verdict.metric}: {site.outcome}"
    for section in sections:
        if section.answer:
            yield f"{section.title} {section.answer[0]}"


def _explanations(sections: Sequence[Section]) -> Iterator[str]:
    for section in sections:
        if "expla" in section.anchor:
            yield from section.answer


def _limits(contents: RunContents) -> Iterator[str]:
    yield "the hospitals were simulated on one machine: how it does at real ones is not known"
    if contents.facts.status == "interrupted":
        yield "the run did not end: numbers are those until then"
    few = [
        site
        for site in contents.sites
        if sum(
            row.patients
            for row in contents.split
            if (row.site, row.split, row.class_name) == (site, "test", "")
        )
        < SMALLEST_COUNT
    ]
    if few:
        yield f"fewer than {SMALLEST_COUNT} test patients at {', '.join(few)}"
    yield from shown_notes(contents)
