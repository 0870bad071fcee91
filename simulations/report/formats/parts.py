"""The whole report as sections: what the formats without a page of their own are written from."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from wardround.common.html.charts.figure import Figure
from wardround.simulations.report import page, wording
from wardround.simulations.report.charts.pictures import draw_samples
from wardround.simulations.report.charts.tables import Cell, Table
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.privacy import describe_privacy
from wardround.simulations.report.sections.attack import read_attack_section
from wardround.simulations.report.sections.order import make_sections
from wardround.simulations.report.sections.section import Section
from wardround.simulations.report.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Report:
    """A run's report without its looks.

    Attributes:
        parts: In the order of the page; the first is the verdict.
    """

    title: str
    description: str
    byline: str
    parts: tuple[Section, ...]
    study_text: str


def make_report(contents: RunContents) -> Report:
    """Return everything that the page of a run says."""
    study = contents.study
    return Report(
        contents.title,
        study.study.description if study else "",
        _byline(contents),
        tuple(_parts(contents)),
        contents.study_text,
    )


def _byline(contents: RunContents) -> str:
    study, facts = contents.study, contents.facts
    what = [f"{len(contents.sites)} hospitals"]
    if study:
        what += [study.study.task, study.model.network, study.federation.strategy]
    planned = f" of {contents.rounds_planned}" if contents.rounds_planned else ""
    what += [f"{contents.rounds_done}{planned} rounds", f"seed {facts.seed}"]
    return f"{', '.join(what)}; started {facts.started}; status: {facts.status}."


def _parts(contents: RunContents) -> Iterator[Section]:
    verdict = contents.verdict_on(contents.metric)
    headline = wording.compose_headline(contents, verdict)
    yield Section("verdict", "Did training together help?", (headline.sentence, *headline.details))
    yield _hospitals(contents, verdict)
    yield from make_sections(contents)
    if privacy := describe_privacy(contents):
        yield Section(
            "privacy",
            "What privacy promises, and what it cost",
            (privacy.headline,),
            tables=privacy.tables,
            notes=(
                *(f"Promised to each {privacy.unit}: {one}" for one in privacy.promise),
                *(f"Not promised: {one}" for one in privacy.limits),
            ),
        )
    charts, tables = page.draw_charts(contents), page.make_tables(contents)
    drawn = {name: (chart,) if chart else () for name, chart in charts.items()}
    training = (*drawn["metric"], *drawn["loss"])
    yield Section("training", "How training went", (), training or ())
    yield Section("matrix", "Every model at every hospital", (), tables=tables["matrix"])
    held: tuple[Figure, ...] = (*drawn["uses"], *drawn["classes"])
    yield Section("data", "Who holds what", (), held, tables["split"])
    yield Section("classes", "By class", (), tables=tables["classes"])
    yield from _samples(contents)
    yield from _attack(contents)
    yield _traffic(contents, (*drawn["traffic"], *drawn["seconds"]), tables["traffic"])
    yield _origin(contents)


def _hospitals(contents: RunContents, verdict: Verdict) -> Section:
    columns = (
        "patients: train / test",
        "own data alone",
        "federated",
        "pooled data",
        "gain",
        "verdict",
    )
    rows = tuple(
        (
            line.site,
            (
                Cell(line.patients),
                Cell(line.own),
                Cell(line.federated),
                Cell(line.pooled),
                Cell(line.gain, line.gain_note),
                Cell(line.outcome),
            ),
        )
        for line in page.site_lines(contents, verdict)
    )
    caption = (
        f"{wording.sentence_title(contents.metric)} on the test patients of each hospital; the "
        "gain is that of the federated model over the hospital's own, positive is better."
    )
    own = (Table(caption, "hospital", columns, rows),) if rows else ()
    notes = (wording.explain_margin(verdict),) if verdict.compared else ()
    answer = () if rows else ("No hospital has left a number yet.",)
    measures = page.make_tables(contents)["measures"]
    title = "Did each hospital gain?"
    return Section("hospitals", title, answer, tables=(*own, *measures), notes=notes)


def _samples(contents: RunContents) -> Iterator[Section]:
    if contents.samples is None:
        return
    rows = tuple(
        (str(number), (Cell(picture.site), Cell(picture.caption), Cell(picture.verdict)))
        for number, picture in enumerate(draw_samples(contents.samples, contents.classes), 1)
    )
    caption = "What stands below each picture of the page; the pictures are on the page alone."
    table = Table(caption, "picture", ("hospital", "caption", "verdict"), rows)
    yield Section("samples", "What the federated model sees", (), tables=(table,))


def _attack(contents: RunContents) -> Iterator[Section]:
    attack = read_attack_section(contents.folder)
    if attack is not None:
        yield Section(
            "attack",
            "What a curious server would have seen",
            attack.summary,
            tables=(attack.table,) if attack.table else (),
            notes=tuple(f"Not run: {sentence}" for sentence in attack.not_run),
        )


def _traffic(
    contents: RunContents, figures: tuple[Figure, ...], tables: tuple[Table, ...]
) -> Section:
    facts = contents.facts
    total = page.total_traffic(contents)
    answer = (f"The federated model took {total} of traffic in all.",) if total else ()
    seconds = tuple((part, (Cell(f"{value:.1f}"),)) for part, value in facts.seconds.items())
    times = (Table("Wall time by part.", "part", ("seconds",), seconds),) if seconds else ()
    title = "Traffic, time and notes"
    return Section("traffic", title, answer, figures, (*tables, *times), notes=facts.notes)


def _origin(contents: RunContents) -> Section:
    facts = contents.facts
    told = {
        **{key: value for key, value in facts.data.items() if value},
        "command": shlex.join(facts.command),
        "study digest": facts.digest,
        "started": facts.started,
        "finished": facts.finished or "not finished",
        "kept round": str(facts.best_round) if facts.best_round >= 0 else "none yet",
        "parameters": f"{facts.parameters:,}",
        "wardround": facts.wardround,
        **facts.environment,
    }
    rows = tuple((key, (Cell(value),)) for key, value in told.items())
    table = Table("The run.", "what", ("value",), rows)
    return Section("origin", "Where it comes from, and how to repeat it", (), tables=(table,))
