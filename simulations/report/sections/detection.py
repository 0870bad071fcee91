"""Are things found, and at how many false alarms? FROC curves, drawn from the sites' sums."""

from collections.abc import Mapping, Sequence

import numpy as np

from wardround.common.html.charts.axes import Axis
from wardround.common.html.charts.figure import Figure, Numbers, line_figure
from wardround.common.html.charts.line_chart import LineChart, Point, Series
from wardround.common.html.charts.looks import Look
from wardround.common.metrics.detection import (
    FROC_RATES,
    FrocCurve,
    froc_curve,
    sensitivity_at,
)
from wardround.simulations.evidence.answers import OWN
from wardround.simulations.report.charts.score_curves import WAY_LOOKS, WAY_TITLES
from wardround.simulations.report.charts.tables import Cell, Table
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.sections.section import Section
from wardround.simulations.run_files.detections import FoundBoxes
from wardround.simulations.run_files.folder import ALL_SITES, FEDERATED, POOLED, local_model

_CHARTED_CLASSES = 6
_MOST_FALSE = 8.0  # an image: where FROC is read last
_FINEST = 0.02  # false positives an image: a smaller step cannot be seen
_MARKS = 8
_NOTES = (
    "A box counts as found where a box of its class overlaps it by half or more (IoU .50); a "
    "second box on the same thing is a false positive. The curves come from counts of scores, "
    "added up over the hospitals: no box of a patient is behind them.",
    "Own data alone: each hospital's images answered by the model of its own data, added up.",
)


def detection_section(contents: RunContents) -> Section | None:
    """Return what was found at which rate of false alarms; None for another task or an old run."""
    study = contents.study
    if study is None or study.task.column != "boxes":
        return None
    classes = study.data.classes
    found = contents.detections
    ways = _ways(found)
    if FEDERATED not in ways:
        return None
    figures = [_chart(name, index, ways) for index, name in enumerate(classes[:_CHARTED_CLASSES])]
    return Section(
        anchor="detection",
        title="What is found, and at how many false alarms?",
        answer=_answer(ways[FEDERATED], classes),
        figures=tuple(figure for figure in figures if figure is not None),
        tables=(_table(found.get(FEDERATED, {}), ways[FEDERATED], classes),),
        notes=_NOTES if OWN in ways else _NOTES[:1],
    )


def _ways(found: Mapping[str, Mapping[str, FoundBoxes]]) -> dict[str, FoundBoxes]:
    """Return what each way of answering found at all hospitals together."""
    ways: dict[str, list[FoundBoxes]] = {}
    for model, sites in found.items():
        for site, boxes in sites.items():
            if model in (FEDERATED, POOLED):
                ways.setdefault(model, []).append(boxes)
            elif model == local_model(site):
                ways.setdefault(OWN, []).append(boxes)
    return {way: _added(parts) for way, parts in ways.items()}


def _added(parts: Sequence[FoundBoxes]) -> FoundBoxes:
    total = parts[0]
    for part in parts[1:]:
        images = (total.images, part.images)
        total = FoundBoxes(sum(images), total.sums.plus(part.sums, images))
    return total


def _curve(boxes: FoundBoxes, index: int) -> FrocCurve | None:
    return froc_curve(boxes.sums, index, boxes.images) if boxes.images else None


def _answer(federated: FoundBoxes, classes: Sequence[str]) -> tuple[str, ...]:
    said = []
    for index, name in enumerate(classes):
        curve = _curve(federated, index)
        if curve is not None:
            one, _ = sensitivity_at(curve, 1.0)
            said.append(
                f"{name}: at one false alarm an image the federated model finds {one:.0%} of "
                f"{int(federated.sums.truths[index])}."
            )
    return tuple(said) or ("The test images hold no box.",)


def _chart(name: str, index: int, ways: Mapping[str, FoundBoxes]) -> Figure | None:
    curves = {
        way: curve
        for way in WAY_TITLES
        if way in ways and (curve := _curve(ways[way], index)) is not None
    }
    if not curves:
        return None
    series = tuple(
        Series(WAY_TITLES[way], _points(curve), _look(way), group, most_marks=_MARKS)
        for group, (way, curve) in enumerate(curves.items())
    )
    title = f"{name}: what is found, at how many false positives an image (FROC)."
    across = Axis("false positives an image", span=(0.0, _MOST_FALSE))
    up = Axis("sensitivity: share of true boxes found", span=(0.0, 1.0))
    rows = tuple(
        (f"{rate:g}", *(f"{sensitivity_at(curve, rate)[0]:.3f}" for curve in curves.values()))
        for rate in FROC_RATES
    )
    names = tuple(WAY_TITLES[way] for way in curves)
    numbers = Numbers(f"{title} Read off.", ("false positives an image", *names), rows)
    return line_figure(LineChart(title, series, across, up), numbers)


def _look(way: str) -> Look:
    return WAY_LOOKS[way]


def _points(curve: FrocCurve) -> tuple[Point, ...]:
    """Return the curve up to the last rate that is read, without steps that nobody sees."""
    last, _ = sensitivity_at(curve, _MOST_FALSE)
    inside = curve.false_positives < _MOST_FALSE
    across, up = curve.false_positives[inside], curve.sensitivity[inside]
    steps = np.floor(across / _FINEST)
    kept = np.append(np.flatnonzero(np.diff(steps) > 0), len(steps) - 1)
    points = [Point(float(across[at]), float(up[at])) for at in kept]
    return (Point(0.0, 0.0), *points, Point(_MOST_FALSE, last))


def _table(sites: Mapping[str, FoundBoxes], together: FoundBoxes, classes: Sequence[str]) -> Table:
    rows = []
    for index, name in enumerate(classes):
        for site, boxes in ({ALL_SITES: together} | dict(sites)).items():
            curve = _curve(boxes, index)
            cells = [
                Cell("–" if curve is None else f"{sensitivity_at(curve, rate)[0]:.0%}")
                for rate in FROC_RATES
            ]
            truths = Cell(str(int(boxes.sums.truths[index])), f"{boxes.images} images")
            rows.append((f"{name}, {site}", (truths, *cells)))
    columns = ("true boxes", *(f"at {rate:g}" for rate in FROC_RATES))
    caption = "Share of true boxes that the federated model finds at so many false alarms an image."
    return Table(caption, "class, hospital", columns, tuple(rows))
