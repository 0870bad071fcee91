"""The data sheet of a run (Gebru et al. 2021): what the sites held, and who knows the rest."""

from collections.abc import Iterator

from wardround.client.data.manifest.examination import SPLITS
from wardround.common.models.documents.field import DocumentField, asked, told
from wardround.common.models.documents.study_fields import (
    input_words,
    partition_words,
    preprocessing_words,
)
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.documents.origin import (
    shown_count,
    shown_notes,
    source_words,
)

_HOSPITAL = "the hospital that holds the data"


def sheet_fields(contents: RunContents) -> tuple[DocumentField, ...]:
    """Return the fields of a run's data sheet; none that a tool could fill is empty."""
    return (*_source(contents), *_composition(contents), *_preparation(contents), *_use(contents))


def _source(contents: RunContents) -> Iterator[DocumentField]:
    section, owner = "Where the data come from", "whoever collected the data"
    facts = contents.facts
    yield told("source", section, "source", source_words(contents))
    licence = facts.data.get("licence") or "the data set names no licence"
    yield told("licence", section, "licence", licence)
    yield told("collected_for", section, "who gave them to this run", _given(contents))
    yield asked("collection_dates", section, "dates of the examinations", owner)
    yield asked("setting", section, "care setting; prospective or retrospective", owner)
    yield asked("eligibility", section, "who was included, who was not", owner)
    yield asked("acquisition", section, "scanners and protocols", owner)
    yield asked(
        "ethics",
        section,
        "consent, ethical approval, legal basis",
        f"{_HOSPITAL}: its data-protection officer",
    )
    yield asked(
        "deidentification",
        section,
        "how patients were made unrecognisable",
        f"{_HOSPITAL}: its data-protection officer",
    )


def _given(contents: RunContents) -> str:
    if contents.own_data:
        return "a folder on the machine that ran the simulation"
    return "the built-in data set of that name"


def _composition(contents: RunContents) -> Iterator[DocumentField]:
    section = "What they hold"
    yield told(
        "sites",
        section,
        "sites",
        (f"{len(contents.sites)}: {', '.join(contents.sites)}", *_divided(contents)),
    )
    yield told("counts", section, "patients and examinations", _counts(contents))
    yield told("classes", section, "classes", ", ".join(contents.classes) or "none are named")
    yield told("imbalance", section, "how common each class is", _shares(contents))
    missing = shown_notes(contents) or ("the run met no value that it could not read",)
    yield told("missing", section, "missing and unreadable values", missing)
    who = "whoever labelled the data"
    yield asked("reference_standard", section, "what the labels rest on", who)
    yield asked("annotators", section, "who annotated, and how well they agree", who)
    yield asked("inequalities", section, "groups that are missing or treated unequally", _HOSPITAL)


def _divided(contents: RunContents) -> Iterator[str]:
    if contents.study:
        simulation = contents.study.simulation
        yield f"divided among them: {simulation.split}, seed {simulation.seed}"
        for shift in simulation.shift:
            yield f"made to differ by {shift.kind} of strength {shift.strength:g}"
        for one in simulation.lacking:
            yield f"{', '.join(one.names)} taken away from {', '.join(one.sites)}"


def _counts(contents: RunContents) -> Iterator[str]:
    if not contents.split:
        yield "the run left no split"
    for site in contents.sites:
        for row in contents.split:
            if row.site == site and not row.class_name:
                patients = shown_count(contents, row.patients)
                told_too = f", {row.examinations} examinations"
                more = told_too if patients == str(row.patients) else ""
                yield f"{site}, {row.split}: {patients} patients{more}"


def _shares(contents: RunContents) -> Iterator[str]:
    found = False
    for name in contents.classes:
        rows = [row for row in contents.split if row.class_name == name]
        if rows:
            found = True
            told_by = []
            for split in SPLITS:
                patients = sum(row.patients for row in rows if row.split == split)
                told_by.append(f"{shown_count(contents, patients)} {split}")
            yield f"{name}: {', '.join(told_by)} patients"
    if not found:
        yield "the run counts no classes: a mask has all of them"


def _preparation(contents: RunContents) -> Iterator[DocumentField]:
    section, study = "How they were prepared", contents.study
    if study is None:
        reason = "the study file of the run is missing, or of another version"
        yield told("preprocessing", section, "preprocessing", reason)
        return
    yield told("input", section, "what a model is given", input_words(study))
    yield told("preprocessing", section, "preprocessing", preprocessing_words(study))
    yield told("partitions", section, "training, validation and test", partition_words(study))


def _use(contents: RunContents) -> Iterator[DocumentField]:
    section = "Use and upkeep"
    digest = f"the study with the digest {contents.facts.digest}"
    yield told("used_for", section, "what they were used for here", digest)
    yield told("left_behind", section, "what of them is in the run folder", _left_behind(contents))
    yield asked("public_involvement", section, "whether patients were asked", _HOSPITAL)
    yield asked(
        "withdrawal",
        section,
        "how a patient withdraws",
        f"{_HOSPITAL}: its data-protection officer",
    )
    yield asked("upkeep", section, "who keeps the data, and until when", _HOSPITAL)


def _left_behind(contents: RunContents) -> Iterator[str]:
    yield "models, and the scores that they gave each examination"
    if contents.samples is not None:
        yield "some test images, on the report's page"
