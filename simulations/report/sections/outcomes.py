"""Is a number right, and is a time? How good, how well calibrated, with intervals over patients."""

import math
from collections.abc import Sequence

import numpy as np

from wardround.common.html.charts.axes import Axis
from wardround.common.html.charts.figure import Figure, Numbers, line_figure
from wardround.common.html.charts.line_chart import LineChart, Point, Series
from wardround.common.html.charts.looks import FEDERATION, MUTED, Look
from wardround.common.metrics.regression import (
    BINS,
    RegressionSums,
    calibration_line,
    count_estimates,
)
from wardround.common.metrics.survival import CALIBRATION_BINS
from wardround.common.study.registry import METRICS
from wardround.common.study.study import Study
from wardround.simulations.evidence.intervals.outcome_metrics import (
    beyond_expected,
    metrics_of,
    outcome_interval,
)
from wardround.simulations.report.charts.printed import plural
from wardround.simulations.report.charts.tables import Cell, Table
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.sections.section import Section
from wardround.simulations.report.wording import number, spread
from wardround.simulations.run_files.folder import FEDERATED
from wardround.simulations.run_files.outcomes import Outcomes, outcomes_together

_FEWEST = 5  # examinations of a bin that are drawn: the mean of fewer is chance
_ALL = "all sites"
_LOOK, _DIAGONAL = Look(FEDERATION, 0, 2.6), Look(MUTED, None, 1.0, "dotted")
_NUMBER_NOTES = (
    "Slope and intercept are those of the straight line of the truth over the estimate: 1 and 0 "
    "are best, and a slope below 1 says that the estimates are spread too widely. They, and the "
    f"means of {BINS} bins of equal width, follow from sums that sites send.",
    "Intervals leave each patient out once, with all its examinations (the jackknife).",
)
_TIME_NOTES = (
    "The C-index is Harrell's: the share of comparable pairs of patients of which the one with the "
    "earlier event had the higher risk. Pairs of patients of two hospitals count too, where all "
    "hospitals are taken together.",
    "A patient's risk is the share of the time up to the horizon that is expected to be lost; with "
    "the loss 'cox' it follows from the hazard ratio, and only its order means anything.",
    "Expected events are the sums of each patient's cumulative hazard up to the end of its "
    "follow-up, so that whoever was followed for a short time is expected to have few. A model "
    "with the loss 'cox' gives relative hazards only, of which none can be expected.",
    "The Brier score is the mean square of how far the probability of no event is from what was "
    "seen, over the time to the horizon; 0 is best. Patients who were followed for a shorter time "
    "are stood for by the others of their hospital: inverse probability of censoring weights, from "
    "the hospital's own Kaplan-Meier curve of the ends of follow-up (Graf et al. 1999). Beyond "
    "expected is the share with an event by the horizon, weighted so, less what the model gave.",
    "Intervals leave each patient out once, with all its examinations (the jackknife).",
)


def outcomes_section(contents: RunContents) -> Section | None:
    """Return what the test examinations of numbers or times say; None for another task."""
    study = contents.study
    test = {
        site: one
        for (model, site, split), one in contents.outcomes.items()
        if model == FEDERATED and split == "test" and len(one.cases)
    }
    if study is None or not test:
        return None
    everybody = outcomes_together(list(test.values()))
    told = {**test, _ALL: everybody} if len(test) > 1 else test
    is_number = study.task.outcome == "number"
    figure = _of_numbers(everybody, study) if is_number else _of_times(everybody)
    return Section(
        anchor="estimates",
        title=f"How near is the estimate of {study.outcome.name}?"
        if is_number
        else f"Who has {study.outcome.name} first?",
        answer=(_answer(everybody, study),),
        figures=() if figure is None else (figure,),
        tables=(_table(told, study),),
        notes=_NUMBER_NOTES if is_number else _TIME_NOTES,
    )


def sums_of(outcomes: Outcomes, study: Study) -> RegressionSums:
    """Return the sums of a regression's answers, as a site would send them."""
    low, width = study.outcome.low, study.outcome.width
    return count_estimates((outcomes.truth - low) / width, (outcomes.estimates - low) / width)


def _answer(everybody: Outcomes, study: Study) -> str:
    count = plural(len(everybody.cases), "test examination")
    if study.task.outcome == "time":
        index, events = outcome_interval("c-index", everybody), int(everybody.events.sum())
        reach = f" ({spread(index)})" if index.is_known else ""
        found = f"On {count}, {events} of them with an event, the C-index is {number(index.value)}"
        expected = float(everybody.hazards.sum())
        more = f"; the model expected {expected:.0f} events" if expected else ""
        return f"{found}{reach}{more}."
    error = outcome_interval("mae", everybody)
    line = calibration_line(sums_of(everybody, study), len(everybody.cases), study)
    reach = f" ({spread(error)})" if error.is_known else ""
    unit = f" {study.outcome.unit}" if study.outcome.unit else ""
    slope = "" if math.isnan(line.slope) else f"; the calibration slope is {number(line.slope)}"
    return (
        f"On {count} the estimate is off by {number(error.value)}{unit} on average{reach}{slope}."
    )


def _table(told: dict[str, Outcomes], study: Study) -> Table:
    kind = study.task.outcome
    metrics = metrics_of(list(told.values())[-1])
    more: tuple[str, ...] = ("slope", "intercept")
    if kind == "time":
        more = ("events", "expected events", "beyond expected at the horizon")
    rows = []
    for site, one in told.items():
        found = [outcome_interval(metric, one) for metric in metrics]
        cells = [Cell(number(each.value), spread(each)) for each in found]
        cells += _calibration(one, study)
        rows.append((site, (Cell(str(len(one.cases))), *cells)))
    titles = (METRICS[metric].title for metric in metrics)
    unit = f" Errors are in {study.outcome.unit}." if study.outcome.unit else ""
    unit = unit if kind == "number" else ""
    return Table(
        f"The federated model on test examinations; below a value its 95 % interval.{unit}",
        "hospital",
        ("examinations", *titles, *more),
        tuple(rows),
    )


def _calibration(one: Outcomes, study: Study) -> list[Cell]:
    if study.task.outcome == "time":
        expected, seen = float(one.hazards.sum()), str(int(one.events.sum()))
        if not expected:
            return [Cell(seen), Cell("–"), Cell("–")]
        beyond = beyond_expected(one)
        return [Cell(seen), Cell(f"{expected:.1f}"), Cell(number(beyond.value), spread(beyond))]
    line = calibration_line(sums_of(one, study), len(one.cases), study)
    return [Cell(number(line.slope)), Cell(number(line.intercept))]


def _of_numbers(everybody: Outcomes, study: Study) -> Figure | None:
    sums, outcome = sums_of(everybody, study), study.outcome
    drawn = [place for place in range(BINS) if sums.binned[place] >= _FEWEST]
    if not drawn:
        return None
    points, rows = [], []
    for place in drawn:
        count = int(sums.binned[place])
        said, true = (
            outcome.low + outcome.width * float(part[place]) / count
            for part in (sums.binned_estimate, sums.binned_truth)
        )
        points.append(Point(said, true, note=plural(count, "examination")))
        rows.append((f"{said:.4g}", f"{true:.4g}", str(count)))
    ends = [min(min(p.x, p.y) for p in points), max(max(p.x, p.y) for p in points)]
    title = (
        "What the federated model estimates of test examinations, and what is true on average. On "
        f"the dotted line both agree. Bins with fewer than {_FEWEST} examinations are left out."
    )
    return _figure(
        title,
        points,
        ends,
        (f"estimate of {outcome.name}", "true, on average"),
        Numbers(title, ("estimate", "truth", "examinations"), tuple(rows)),
    )


def _of_times(everybody: Outcomes) -> Figure | None:
    if not everybody.hazards.any():
        return None
    place = np.minimum((everybody.estimates * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    points, rows = [], []
    for one in range(CALIBRATION_BINS):
        some = place == one
        if int(some.sum()) < _FEWEST:
            continue
        expected, seen = float(everybody.hazards[some].sum()), int(everybody.events[some].sum())
        count = plural(int(some.sum()), "examination")
        points.append(Point(expected, float(seen), note=count))
        rows.append((f"{one * 10} to {one * 10 + 10}", f"{expected:.1f}", str(seen)))
    if not points:
        return None
    most = max(max(p.x, p.y) for p in points)
    title = (
        "Events that the federated model's hazards let expect, and events that were seen, in each "
        "tenth of the risk. On the dotted line both agree. Tenths with fewer "
        f"than {_FEWEST} test examinations are left out."
    )
    return _figure(
        title,
        sorted(points, key=lambda point: point.x),
        [0.0, most],
        ("events expected", "events seen"),
        Numbers(title, ("risk in %", "expected", "seen"), tuple(rows)),
    )


def _figure(
    title: str,
    points: Sequence[Point],
    ends: Sequence[float],
    names: tuple[str, str],
    numbers: Numbers,
) -> Figure | None:
    low, high = ends
    room = (high - low or 1.0) * 0.05
    span = (max(0.0, low - room) if low >= 0 else low - room, high + room)
    diagonal = Series(
        "both agree", (Point(span[0], span[0]), Point(span[1], span[1])), _DIAGONAL, 1
    )
    series = (Series("federated", tuple(points), _LOOK), diagonal)
    across, up = Axis(names[0], span=span), Axis(names[1], span=span)
    return line_figure(LineChart(title, series, across, up, is_square=True), numbers)
