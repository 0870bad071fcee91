"""The report's tables as rows of printed cells."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wardround.client.data.manifest.examination import SPLITS
from wardround.common.statistics.interval import Interval, mean_interval
from wardround.common.study.registry import METRICS
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.missing import why_missing
from wardround.simulations.report.verdict import higher_is_better, interval_of
from wardround.simulations.report.wording import in_unit, number, sentence_title, spread
from wardround.simulations.run_files.folder import (
    ALL_SITES,
    FEDERATED,
    POOLED,
    UNPROTECTED,
    MetricRow,
    local_model,
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A printed value.

    Attributes:
        note: Small print under it, e.g. why it is missing or its support.
        shade: Strength of the background, 0 to 100; None for none.
        marked: Whether it stands out, e.g. a model on the patients of its own hospital.
    """

    text: str
    note: str = ""
    shade: int | None = None
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a caption; each row is its heading and its cells.

    Attributes:
        corner: Heading of the column of row headings.
        kind: How it is drawn: "" plain, "heat" with shades, "dense" for many columns.
    """

    caption: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    kind: str = ""


Kept = Mapping[tuple[str, str, str, str], MetricRow]


def kept_values(contents: RunContents) -> Kept:
    """Return the kept models' test values by (model, site, metric, class)."""
    return {
        (row.model, row.site, row.metric, row.class_name): row
        for row in contents.metrics
        if row.round == -1 and row.split == "test"
    }


def model_title(model: str) -> str:
    """Return what a reader calls a model."""
    if model.startswith(prefix := local_model("")):
        return f"{model.removeprefix(prefix)} alone"
    return "federated without privacy" if model == UNPROTECTED else model


def tabulate_measures(contents: RunContents) -> Table | None:
    """Return every metric as a mean over hospitals, for the three ways of training."""
    measured = {row.metric for row in kept_values(contents).values() if not row.class_name}
    rows = []
    for metric in [name for name in METRICS if name in measured]:
        mean = contents.verdict_on(metric).mean
        cells = tuple(
            Cell(number(value, metric), spread(_of_mean(contents, metric, role), metric))
            for role, value in enumerate((mean.own, mean.federated, mean.pooled))
        )
        title = in_unit(METRICS[metric].title, contents.facts.length_unit)
        if not higher_is_better(metric):
            title += ", lower is better"
        rows.append((title, cells))
    if not any(cell.text != "–" for _, cells in rows for cell in cells):
        return None
    columns = ("own data alone", "federated", "pooled data")
    caption = (
        "Every measure on the test patients, as the mean over the hospitals that have it"
        f"{_with_intervals(contents)}."
    )
    return Table(caption, "measure", columns, tuple(rows))


def _of_mean(contents: RunContents, metric: str, role: int) -> Interval | None:
    """Return the interval of a mean over the compared hospitals, whose patients are not the same.

    Args:
        contents: The run.
        metric: Of which the mean is.
        role: 0 the hospitals' own models, 1 the federated one, 2 the pooled one.
    """
    kept = kept_values(contents)
    compared = contents.verdict_on(metric).compared
    rows = [
        kept.get(((local_model(s.site), FEDERATED, POOLED)[role], s.site, metric, ""))
        for s in compared
    ]
    parts = [interval_of(row, contents.split, contents.intervals) for row in rows if row]
    if not parts or len(parts) < len(compared):
        return None
    bounded = METRICS[metric].in_unit_interval
    return mean_interval(parts, bounded)


def _with_intervals(contents: RunContents) -> str:
    return "; small: 95% intervals, whose unit is the patient" if contents.intervals else ""


def tabulate_models_by_site(contents: RunContents) -> Table | None:
    """Return the cross-site matrix: each model on each hospital's test patients."""
    kept, metric = kept_values(contents), contents.metric
    present = {model for model, _, name, class_name in kept if name == metric and not class_name}
    order = (FEDERATED, UNPROTECTED, POOLED, *(local_model(site) for site in contents.sites))
    models = [model for model in order if model in present]
    if not models:
        return None
    sites = (*contents.sites, ALL_SITES)
    grid = {(m, s): kept.get((m, s, metric, "")) for m in models for s in sites}
    shade = _shading([row.value for row in grid.values() if row], metric)
    rows = tuple(
        (
            model_title(model),
            tuple(
                _value_cell(contents, grid[model, site], site, shade, model == local_model(site))
                for site in sites
            ),
        )
        for model in models
    )
    caption = (
        f"{sentence_title(metric)} of every model (rows) on every hospital's test patients "
        "(columns). The stronger the colour, the better; outlined: a hospital's own model at home"
        f"{_with_intervals(contents)}."
    )
    return Table(caption, "model", sites, rows)


def tabulate_classes(contents: RunContents) -> tuple[Table, ...]:
    """Return a table a metric: the federated model by class and hospital, with support."""
    kept = kept_values(contents)
    measured = {m for model, _, m, c in kept if c and model == FEDERATED}
    first = [contents.metric, *METRICS]
    metrics = [name for name in dict.fromkeys(first) if name in measured]
    return tuple(_tabulate_metric_by_class(contents, kept, metric) for metric in metrics)


def _tabulate_metric_by_class(contents: RunContents, kept: Kept, metric: str) -> Table:
    found = {c for model, _, m, c in kept if c and m == metric and model == FEDERATED}
    classes = [name for name in contents.classes if name in found] + sorted(
        found - set(contents.classes)
    )
    sites = (ALL_SITES, *contents.sites)
    rows = []
    for name in classes:
        cells = []
        for site in sites:
            row = kept.get((FEDERATED, site, metric, name))
            if row is None or math.isnan(row.value):
                cells.append(Cell("–", why_missing(contents, row, site, name)))
            else:
                interval = interval_of(row, contents.split, contents.intervals)
                note = ", ".join(filter(None, (f"n = {row.support}", spread(interval, metric))))
                cells.append(Cell(number(row.value, metric), note))
        rows.append((name, tuple(cells)))
    caption = (
        f"{sentence_title(metric, contents.facts.length_unit)} of the federated model by class; "
        f"n: test cases behind the value{_with_intervals(contents)}."
    )
    return Table(caption, "class", sites, tuple(rows))


def tabulate_split(contents: RunContents) -> Table | None:
    """Return who holds what: patients and examinations a split, then examinations a class."""
    if not contents.split:
        return None
    counts = {(row.site, row.split, row.class_name): row for row in contents.split}
    held = {row.class_name for row in contents.split if row.class_name}
    classes = [name for name in contents.classes if name in held]
    rows = []
    for site in contents.sites:
        cells = []
        for split in SPLITS:
            row = counts.get((site, split, ""))
            cells.append(Cell(str(row.patients), f"{row.examinations} exam.") if row else Cell("0"))
        for name in classes:
            held_rows = [counts.get((site, split, name)) for split in SPLITS]
            cells.append(Cell(str(sum(row.examinations for row in held_rows if row))))
        rows.append((site, tuple(cells)))
    caption = "Patients of each hospital by use, with their examinations" + (
        "; then examinations by class, over all uses." if classes else "."
    )
    return Table(caption, "hospital", (*SPLITS, *classes), tuple(rows))


def tabulate_traffic(contents: RunContents) -> Table | None:
    """Return what each site received and sent for the federated model, and its time."""
    rows = []
    for site in contents.sites:
        own = [r for r in contents.traffic if r.site == site and r.model == FEDERATED]
        if own:
            cells = (
                Cell(str(len(own))),
                Cell(megabytes(sum(r.bytes_down for r in own))),
                Cell(megabytes(sum(r.bytes_up for r in own))),
                Cell(_mean_seconds([r.seconds for r in own])),
                Cell(str(sum(r.updates for r in own))),
            )
            rows.append((site, cells))
    columns = ("rounds", "received", "sent", "time a round", "training steps")
    caption = "Traffic and work of each hospital for the federated model."
    return Table(caption, "hospital", columns, tuple(rows)) if rows else None


def _mean_seconds(seconds: Sequence[float]) -> str:
    """Return the mean as printed; a private site does not say how long it took."""
    return f"{sum(seconds) / len(seconds):.1f} s" if any(seconds) else "–"


def megabytes(count: float) -> str:
    """Return a number of bytes as printed."""
    if count < 1e6:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"


def _value_cell(
    contents: RunContents,
    row: MetricRow | None,
    site: str,
    shade: Mapping[float, int],
    marked: bool,
) -> Cell:
    if row is None or math.isnan(row.value):
        return Cell("–", why_missing(contents, row, site, ""), marked=marked)
    interval = interval_of(row, contents.split, contents.intervals)
    note = spread(interval, row.metric)
    return Cell(number(row.value, row.metric), note, shade[row.value], marked)


def _shading(values: Sequence[float], metric: str) -> dict[float, int]:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return {}
    low, high = min(known), max(known)
    if not higher_is_better(metric):
        low, high = high, low
    return {v: round(100 * (v - low) / (high - low)) if high != low else 50 for v in known}
