"""How much do the numbers depend on the seed? The spread over seeds, apart from the patients'."""

import math
from collections.abc import Sequence

from wardround.common.study.registry import METRICS
from wardround.simulations.evidence.generalisation import Spread, spreads
from wardround.simulations.report.charts.tables import Cell, Table
from wardround.simulations.report.sections.section import Section
from wardround.simulations.report.wording import metric_title, number, sentence_title, signed
from wardround.simulations.run_files.folder import FEDERATED, POOLED
from wardround.simulations.run_files.series import LEFT_OUT, OWN, TAKING_PART, MeasuredRow

_MODELS = (OWN, FEDERATED, POOLED, LEFT_OUT, TAKING_PART)
_TITLES = {
    OWN: "alone",
    FEDERATED: "federated",
    POOLED: "pooled",
    LEFT_OUT: "left out",
    TAKING_PART: "gain of taking part",
}
_NOTE = (
    "Mean over the seeds ± standard deviation, below it the least and the largest. The spread over "
    "seeds is how far the chance in training moves a number{split}; the 95 % interval over "
    "patients is how far other patients of the same hospital would move it. Neither contains the "
    "other: a difference should be larger than both."
)


def section_of(rows: Sequence[MeasuredRow], draws: str) -> Section | None:
    """Return the part on seeds; None of a single seed.

    Args:
        rows: Of a series.
        draws: What the seeds draw, in words.
    """
    seeds = sorted({row.seed for row in rows})
    if len(seeds) < 2:
        return None
    found = [one for one in spreads(rows) if one.metric in METRICS]
    metrics = list(dict.fromkeys(one.metric for one in found))
    split = ", and with it who is tested" if "split" in draws else " on the same test patients"
    return Section(
        anchor="seeds",
        title="How much does it depend on the seed?",
        answer=(_answer(found, metrics[0], seeds), f"The seeds draw {draws}."),
        tables=tuple(_table(metric, found) for metric in metrics),
        notes=(_NOTE.format(split=split),),
    )


def _answer(found: Sequence[Spread], metric: str, seeds: Sequence[int]) -> str:
    named = ", ".join(map(str, seeds))
    mean = next((o for o in found if (o.site, o.model, o.metric) == ("", FEDERATED, metric)), None)
    title = metric_title(metric)
    if mean is None or math.isnan(mean.deviation):
        return f"Over the seeds {named} the {title} of the federated model was not measured."
    each = [
        o.deviation
        for o in found
        if o.site and (o.model, o.metric) == (FEDERATED, metric) and not math.isnan(o.deviation)
    ]
    return (
        f"Over the seeds {named} the federated model's {title} is {number(mean.mean, metric)} ± "
        f"{number(mean.deviation, metric)} as the mean over hospitals "
        f"({number(mean.low, metric)} to {number(mean.high, metric)}); at a single hospital the "
        f"standard deviation is up to {number(max(each, default=math.nan), metric)}."
    )


def _table(metric: str, found: Sequence[Spread]) -> Table:
    held = {(one.site, one.model): one for one in found if one.metric == metric}
    models = [name for name in _MODELS if any(model == name for _, model in held)]
    sites = list(dict.fromkeys(site for site, _ in held if site))
    rows = tuple(
        (site or "mean over hospitals", tuple(_cell(held.get((site, m)), m) for m in models))
        for site in (*sites, "")
    )
    caption = f"{sentence_title(metric)} over the seeds, on each hospital's test patients."
    return Table(caption, "hospital", tuple(_TITLES[name] for name in models), rows)


def _cell(one: Spread | None, model: str) -> Cell:
    if one is None or math.isnan(one.mean):
        return Cell("–")
    shown = signed if model == TAKING_PART else number
    text = shown(one.mean, one.metric)
    if math.isnan(one.deviation):
        return Cell(text, "one seed only")
    spread = f"{text} ± {number(one.deviation, one.metric)}"
    return Cell(spread, f"{shown(one.low, one.metric)} to {shown(one.high, one.metric)}")
