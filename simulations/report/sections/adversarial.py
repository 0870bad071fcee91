"""The report's section on images that were changed on purpose: FGSM, PGD, transfer."""

import math
from collections.abc import Iterator

from wardround.common.html.charts.axes import Axis
from wardround.common.html.charts.figure import Figure, line_figure, tabulate_series
from wardround.common.html.charts.line_chart import LineChart, Point, Series
from wardround.common.html.charts.looks import Look, series_colour
from wardround.simulations.evidence.masking import (
    AttackedModel,
    attacked_model,
    signs_of_masking,
)
from wardround.simulations.report.charts.tables import Cell, Table
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.sections.section import Section
from wardround.simulations.report.wording import sentence_title
from wardround.simulations.run_files.stress import AttackRow, read_attacks

_NAMES = {
    "fgsm": "one step (FGSM)",
    "pgd": "many steps (PGD)",
    "transfer": "made against another hospital's own model",
}


def adversarial_section(contents: RunContents) -> Section | None:
    """Return the section; None where the run's models were not attacked so."""
    rows = read_attacks(contents.folder)
    models = tuple(dict.fromkeys(row.model for row in rows))
    found = attacked_model(rows, models[0]) if models else None
    if found is None:
        return None
    curve = _curve(found)
    return Section(
        anchor="adversarial",
        title="Could somebody who changes the images fool it?",
        answer=tuple(_answer(found)),
        figures=(curve,) if curve else (),
        tables=(_table(found),),
        notes=tuple(_notes(found)),
    )


def _answer(found: AttackedModel) -> Iterator[str]:
    title = sentence_title(found.measure)
    worst = {epsilon: _weakest(found, epsilon) for epsilon in found.epsilons}
    parts = [f"{row.value:.3f} at {epsilon:g}" for epsilon, row in worst.items()]
    yield (
        f"{title} of the {found.model} model is {found.clean.value:.3f} on test images as they "
        f"are, and when each grey value may be changed a little by an attacker who knows the model "
        f"it falls to {', '.join(parts)} of 255 grey levels."
    )
    signs = signs_of_masking(found)
    if signs:
        yield (
            "These numbers are too good to be believed: the model seems to hide its gradient, and "
            f"a better attack would do more harm ({'; '.join(signs)})."
        )
    else:
        yield (
            "Nothing suggests that the model only hides its gradient: many steps do no less harm "
            f"than one, more starts no less than one{_transfer_words(found)}."
        )


def _transfer_words(found: AttackedModel) -> str:
    if any(row.attack == "transfer" for row in found.rows):
        return ", and images made against another model no more than those made against this one"
    return "; images made against another model were not tried, for no other one was left"


def _weakest(found: AttackedModel, epsilon: float) -> AttackRow:
    """Return the row of the attack that leaves least."""
    rows = [row for row in found.rows if row.epsilon == epsilon]
    return min(rows, key=lambda row: math.inf if math.isnan(row.value) else row.value)


def _curve(found: AttackedModel) -> Figure | None:
    series = []
    clean = found.clean
    for index, (attack, name) in enumerate(_NAMES.items()):
        rows = [row for e in found.epsilons if (row := found.strongest(attack, e)) is not None]
        if rows:
            points = [Point(0.0, clean.value, clean.low, clean.high)]
            points += [Point(row.epsilon, row.value, row.low, row.high) for row in rows]
            series.append(Series(name, tuple(points), Look(series_colour(index), index), index))
    caption = f"{sentence_title(found.measure)} by how far a grey value may go, on {found.site}."
    across = Axis("largest change, in 255ths of the grey range")
    chart = LineChart(caption, tuple(series), across, Axis(sentence_title(found.measure)))
    return line_figure(chart, tabulate_series(caption, "change", tuple(series)))


def _table(found: AttackedModel) -> Table:
    columns = tuple(f"{epsilon:g} of 255" for epsilon in found.epsilons)
    rows: list[tuple[str, tuple[Cell, ...]]] = [
        ("as they are", (_cell(found.clean), *(Cell("") for _ in columns[1:])))
    ]
    kinds = dict.fromkeys((r.attack, r.steps, r.restarts) for r in found.rows)
    by = {(r.attack, r.steps, r.restarts, r.epsilon): r for r in found.rows}
    for attack, steps, restarts in sorted(
        kinds, key=lambda kind: (list(_NAMES).index(kind[0]), kind)
    ):
        cells = tuple(_cell(by.get((attack, steps, restarts, e))) for e in found.epsilons)
        rows.append((_row_name(attack, steps, restarts), cells))
    caption = (
        f"{sentence_title(found.measure)} of the {found.model} model on attacked test images "
        f"({found.site}); below: 95 % interval over patients."
    )
    return Table(caption, "attack", columns, tuple(rows))


def _row_name(attack: str, steps: int, restarts: int) -> str:
    name = _NAMES.get(attack, attack)
    if attack == "fgsm":
        return name
    return f"{name}, {steps} steps, {restarts} start{'s' if restarts > 1 else ''}"


def _cell(row: AttackRow | None) -> Cell:
    if row is None or math.isnan(row.value):
        return Cell("–")
    note = "" if math.isnan(row.low) else f"{row.low:.3f} to {row.high:.3f}"
    return Cell(f"{row.value:.3f}", note)


def _notes(found: AttackedModel) -> Iterator[str]:
    yield (
        f"{found.clean.examinations} examinations of {found.clean.patients} patients. The attacker "
        "changes the image on the network's grid, in its own grey values, and goes through the "
        "whole intensity normalisation, percentiles included; whoever changes the stored image "
        "can do no more, for resizing and smoothing only average. A model that withstands these "
        "attacks may fall to others."
    )
