"""Are the marks right where it matters? Volumes, lesions, and the cases that failed."""

import csv
import math
from collections.abc import Mapping, Sequence

import numpy as np

from wardround.common.errors import InputError
from wardround.common.html.charts.axes import Axis
from wardround.common.html.charts.figure import Figure, line_figure
from wardround.common.html.charts.line_chart import LineChart, Point, Series
from wardround.common.html.charts.looks import MUTED, Look, site_look
from wardround.common.statistics.agreement import Bound
from wardround.simulations.evidence.segmentation import (
    Detection,
    Failure,
    Volumes,
    case_dice,
    detection,
    is_organ,
    marked_tests,
    volume_agreement,
    worst_cases,
)
from wardround.simulations.report.charts.pictures import draw_failures
from wardround.simulations.report.charts.tables import Cell, Table
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.samples import read_samples
from wardround.simulations.report.sections.section import Image, Section
from wardround.simulations.run_files.folder import ALL_SITES, FEDERATED
from wardround.simulations.run_files.predictions import LESIONS, LesionRow, Masks, read_lesions

_CHARTED_CLASSES = 3
_BIAS, _LIMIT = Look(MUTED, None, 1.4), Look(MUTED, None, 1.4, "dashed")
_NOTES = (
    "Volumes: found less true (Bland and Altman). The limits of agreement are where 95 % of the "
    "differences lie if they are normal; the brackets are 95 % intervals over patients.",
    "Lesions: connected parts that touch at least at a corner; one counts as found where at least "
    "one voxel of it was marked, a marked part as false where it touches none. Classes with 200 "
    "parts or more in an examination are tissues and are not counted. For a class that is an "
    "organ the numbers say only whether it was found at all, and how many stray parts there are.",
    "The worst cases are chosen for being bad: they show how it fails, not how often.",
)


def segmentation_section(contents: RunContents) -> Section | None:
    """Return what the test cases of a segmentation say; None for another task or an old run."""
    sites = marked_tests(contents.masks)
    if not sites or contents.study is None:
        return None
    classes = contents.study.data.classes[1:]
    volumes = volume_agreement(sites, classes, ALL_SITES)
    failures = worst_cases(sites, classes)
    rows = _lesions(contents)
    lesions = detection(sites, rows, classes)
    figures = [_dice_chart(sites), *_volume_charts(volumes, classes)]
    tables = [_volume_table(volumes)]
    if lesions:
        tables.append(_lesion_table(lesions))
    tables.append(_failure_table(failures))
    return Section(
        anchor="segmentation",
        title="Are the marks right where it matters?",
        answer=_answer(volumes, failures, _real_lesions(lesions, rows)),
        figures=tuple(figure for figure in figures if figure is not None),
        tables=tuple(tables),
        images=_images(contents),
        notes=_NOTES,
    )


def _real_lesions(lesions: Sequence[Detection], rows: Sequence[LesionRow]) -> list[Detection]:
    """Return what was found of the classes that are no organs."""
    parts: dict[str, list[LesionRow]] = {}
    for row in rows:
        parts.setdefault(row.class_name, []).append(row)
    return [one for one in lesions if not is_organ(parts.get(one.class_name, ()))]


def _lesions(contents: RunContents) -> list[LesionRow]:
    """Return the true lesions of the cases that the federated model marked.

    Raises:
        InputError: The file is damaged.
    """
    path = contents.folder / LESIONS
    try:
        return [row for row in read_lesions(contents.folder) if row.model == FEDERATED]
    except (KeyError, TypeError, ValueError, OSError, csv.Error):
        msg = f"{path} is damaged: remove it to have the report without lesions."
        raise InputError(msg) from None


def _answer(
    volumes: Sequence[Volumes], failures: Sequence[Failure], lesions: Sequence[Detection]
) -> tuple[str, ...]:
    said = [volume_words(one) for one in volumes if one.site == ALL_SITES]
    if failures:
        worst = min(failures, key=lambda one: one.dice)
        said.append(
            f"Its worst test examination is row {worst.case} of {worst.site}: Dice "
            f"{worst.dice:.2f}, of {worst.worst_class} {worst.worst_dice:.2f}."
        )
    whole = [one for one in lesions if one.size == "all" and one.lesions]
    for name in dict.fromkeys(one.class_name for one in whole):
        here = [one for one in whole if one.class_name == name]
        found, total = sum(one.found for one in here), sum(one.lesions for one in here)
        said.append(f"Of {total} connected parts of {name} it finds {found} ({found / total:.0%}).")
    return tuple(said)


def volume_words(volumes: Volumes) -> str:
    """Return by how much the marked volumes are off, as a sentence."""
    agreement = volumes.agreement
    bias, digits = agreement.bias, _digits(agreement.bias, agreement.lower, agreement.upper)
    often = ", and how far single ones are off cannot be told"
    if not math.isnan(agreement.lower.value):
        low, high = (_rounded(one.value, digits) for one in (agreement.lower, agreement.upper))
        often = f"; 95 of 100 single differences lie between {low} and {high} ml"
    sure = ""
    if not math.isnan(bias.low):
        sure = f" (95% interval {_rounded(bias.low, digits)} to {_rounded(bias.high, digits)})"
    direction = "more" if bias.value > 0 else "less"
    true = float(np.mean(volumes.truth))
    return (
        f"{volumes.class_name}: the federated model marks {abs(bias.value):.{digits}f} ml "
        f"{direction} than the true {true:.{digits}f} ml in the mean{sure}{often}."
    )


def _digits(*bounds: Bound) -> int:
    """Return how many decimals show two digits of the smallest bound, at most 4."""
    sizes = [abs(one.value) for one in bounds if one.value and not math.isnan(one.value)]
    return min(4, max(0, 1 - math.floor(math.log10(min(sizes))))) if sizes else 1


def _rounded(value: float, digits: int) -> str:
    sign = "\u2212" if value < 0 else "+"
    return f"{sign}{abs(value):.{digits}f}"


def _dice_chart(sites: Mapping[str, Masks]) -> Figure | None:
    """Return a strip of points a hospital: one each examination."""
    series = []
    for place, (site, found) in enumerate(sites.items()):
        dice = case_dice(found)
        points = tuple(
            Point(place + _aside(index, len(dice)), float(one), note=f"row {row}")
            for index, (one, row) in enumerate(zip(dice, found.cases, strict=True))
            if not math.isnan(one)
        )
        series.append(Series(site, points, site_look(place, dash="none"), group=place))
    across = Axis("hospital", "named", tuple(sites))
    title = "Dice of each test examination, by hospital."
    return line_figure(LineChart(title, tuple(series), across, Axis("Dice")))


def _aside(index: int, count: int) -> float:
    """Return a small place beside the middle, so that points do not hide each other."""
    return 0.5 * ((index * 0.618034) % 1 - 0.5) if count > 1 else 0.0


def _volume_charts(volumes: Sequence[Volumes], classes: Sequence[str]) -> list[Figure | None]:
    figures = []
    for name in classes[:_CHARTED_CLASSES]:
        of_class = [one for one in volumes if one.class_name == name]
        whole, parts = of_class[0], of_class[1:] or of_class
        series = [
            Series(
                one.site,
                tuple(
                    Point(float(t + f) / 2, float(f - t))
                    for t, f in zip(one.truth, one.found, strict=True)
                ),
                site_look(place, dash="none"),
                group=place,
            )
            for place, one in enumerate(parts)
        ]
        middles = (whole.truth + whole.found) / 2
        ends = float(middles.min()), float(middles.max())
        agreement = whole.agreement
        for bound, look, label in (
            (agreement.bias, _BIAS, "bias"),
            (agreement.lower, _LIMIT, "lower limit"),
            (agreement.upper, _LIMIT, "upper limit"),
        ):
            if math.isnan(bound.value):
                continue
            line = tuple(Point(x, bound.value) for x in ends)
            series.append(Series(label, line, look, len(parts), "bias and limits", label))
        figures.append(
            line_figure(
                LineChart(
                    f"{name}: difference of volumes over their mean (Bland-Altman).",
                    tuple(series),
                    Axis("mean of found and true volume (ml)"),
                    Axis("found less true (ml)", from_zero=True),
                )
            )
        )
    return figures


def _volume_table(volumes: Sequence[Volumes]) -> Table:
    rows = tuple(
        (
            f"{one.class_name}, {one.site}",
            (
                Cell(str(one.agreement.patients), f"{one.agreement.pairs} examinations"),
                Cell(_ml(float(np.mean(one.truth)))),
                _bound(one.agreement.bias),
                _bound(one.agreement.lower),
                _bound(one.agreement.upper),
            ),
        )
        for one in volumes
    )
    columns = ("patients", "true volume", "bias", "lower limit", "upper limit")
    caption = "Volumes that the federated model marked, in millilitres; small: 95 % interval."
    return Table(caption, "class, hospital", columns, rows)


def _lesion_table(lesions: Sequence[Detection]) -> Table:
    rows = tuple(
        (
            f"{one.class_name}, {one.site}" + ("" if one.size == "all" else f", {one.size}"),
            (
                Cell(str(one.lesions), _span(one)),
                Cell(str(one.found)),
                Cell("–" if not one.lesions else f"{one.sensitivity:.0%}"),
                Cell(str(one.half_covered)),
                Cell("–" if math.isnan(one.false_an_image) else f"{one.false_an_image:.2f}"),
            ),
        )
        for one in lesions
    )
    columns = ("lesions", "found", "sensitivity", "half covered", "false an image")
    caption = "Connected parts found by the federated model, one by one."
    return Table(caption, "class, hospital, size", columns, rows)


def _span(one: Detection) -> str:
    return "" if math.isnan(one.from_ml) else f"{_ml(one.from_ml)} to {_ml(one.to_ml)} ml"


def _failure_table(failures: Sequence[Failure]) -> Table:
    rows = tuple(
        (
            one.site,
            (
                Cell(str(one.case)),
                Cell(f"{one.dice:.3f}"),
                Cell(one.worst_class, f"Dice {one.worst_dice:.3f}"),
            ),
        )
        for one in failures
    )
    columns = ("row of the manifest", "Dice", "worst class")
    return Table("The worst test examinations of each hospital.", "hospital", columns, rows)


def _images(contents: RunContents) -> tuple[Image, ...]:
    samples = read_samples(contents.folder / "failures.npz")
    if samples is None or not samples.is_segmentation:
        return ()
    return tuple(
        Image(picture.panels[0].source, picture.panels[0].alternative, picture.caption, True)
        for picture in draw_failures(samples, contents.classes)
    )


def _bound(bound: Bound) -> Cell:
    if math.isnan(bound.value):
        return Cell("–")
    note = "" if math.isnan(bound.low) else f"{_signed(bound.low)} to {_signed(bound.high)}"
    return Cell(_signed(bound.value), note)


def _signed(value: float) -> str:
    if math.isnan(value):
        return "–"
    sign = "\u2212" if value < 0 else "+"
    return sign + _ml(abs(value))


def _ml(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
