"""The end of a simulation on the terminal: the verdict in words, a row a hospital, the report."""

import json
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from wardround.simulations.report.contents import RunContents, read_contents
from wardround.simulations.report.sections.worth_joining import (
    as_rows,
    chosen_model,
    read_worth_joining,
    reason,
)
from wardround.simulations.report.verdict import SiteVerdict, Verdict
from wardround.simulations.report.wording import (
    compose_headline,
    explain_margin,
    metric_title,
    number,
    signed,
)
from wardround.simulations.run_files.folder import ALL_SITES, FEDERATED, POOLED, value_of
from wardround.simulations.sites.preparation import PreparedSites

_WIDEST_NAME = 26  # of 80 columns; a longer one goes on in the next line


def print_summary(run_folder: Path, as_json: bool = False) -> None:
    """Print what a finished run says."""
    contents = read_contents(run_folder)
    if as_json:
        sys.stdout.write(json.dumps(_finite(_as_json(contents)), indent=2) + "\n")
    else:
        _print(contents)


def print_split(sites: PreparedSites, out: Path) -> None:
    """Print who holds what."""
    from rich.console import Console
    from rich.table import Column, Table

    classes = list(dict.fromkeys(row.class_name for row in sites.table if row.class_name))
    names = Column("site", overflow="fold", min_width=_width_of([row.site for row in sites.table]))
    table = Table(names, "split", "examinations", "patients", *classes)
    counts = {(row.site, row.split, row.class_name): row for row in sites.table}
    for row in sites.table:
        if not row.class_name:
            of_class = [str(counts[row.site, row.split, name].examinations) for name in classes]
            cells = (row.site, row.split, str(row.examinations), str(row.patients))
            table.add_row(*cells, *of_class)
    console = Console()
    console.print(table)
    for note in sites.notes:
        console.print(note, markup=False)
    console.print(
        f"Site folders in {out / 'sites'}, a picture in {out / 'split.html'}; use the split again "
        f"with --assignment {out / 'assignment.csv'}",
        markup=False,
    )


def _print(contents: RunContents) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    verdict = contents.verdict_on(contents.metric)
    headline = compose_headline(contents, verdict)
    console = Console()
    console.print(headline.sentence, markup=False, style="bold")
    for detail in headline.details:
        console.print(detail, markup=False)
    names = Column("site", overflow="fold", min_width=_width_of([s.site for s in verdict.sites]))
    table = Table(names, "alone", "federated", "pooled", "gain", "", title=None)
    for site in (*verdict.sites, _mean_of(verdict)):
        values = [number(v, verdict.metric) for v in (site.own, site.federated, site.pooled)]
        gain = signed(site.gain, verdict.metric)
        if site.has_interval:
            gain += f" ± {number(site.margin, verdict.metric)}"
        table.add_row(site.site, *values, gain, site.outcome)
    console.print(f"{metric_title(verdict.metric)} on each site's test patients", markup=False)
    console.print(table)
    if verdict.compared:
        console.print(explain_margin(verdict), markup=False)
    for line in _worth_joining(contents):
        console.print(line, markup=False)
    for note in contents.facts.notes:
        console.print(note, markup=False)
    console.print(f"Report: {contents.folder / 'report.html'}", markup=False)


def _worth_joining(contents: RunContents) -> Iterator[str]:
    """Yield the word and its reason for each hospital, and the model that it would choose."""
    found = read_worth_joining(contents)
    if found is None:
        return
    yield "Worth joining?"
    for one in found.sites:
        yield f"  {one.site}: {reason(one, found.study)}{chosen_model(one)}"


def _width_of(names: Sequence[str]) -> int:
    """Return the width that whole names need, within reason: two of them may begin alike."""
    return min(max((len(name) for name in names), default=0), _WIDEST_NAME)


def _finite(content: object) -> object:
    """Return the content with null for what is not a number, as JSON has no NaN."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _as_json(contents: RunContents) -> dict[str, object]:
    verdict = contents.verdict_on(contents.metric)
    headline = compose_headline(contents, verdict)
    merged = {
        model: value_of(contents.metrics, model, ALL_SITES, verdict.metric)
        for model in (FEDERATED, POOLED)
    }
    return {
        "run": str(contents.folder),
        "report": str(contents.folder / "report.html"),
        "verdict": headline.sentence,
        "details": list(headline.details),
        "interval": explain_margin(verdict) if verdict.compared else "",
        "metric": verdict.metric,
        "sites": [_site(site) for site in verdict.sites],
        "mean": _mean(verdict),
        "worth_joining": as_rows(found) if (found := read_worth_joining(contents)) else [],
        "all_sites": merged,
        "missed": contents.facts.missed,
        "best_round": contents.facts.best_round,
        "seconds": {k.replace(" ", "_"): v for k, v in contents.facts.seconds.items()},
        "notes": list(contents.facts.notes),
    }


def _site(site: SiteVerdict) -> dict[str, object]:
    return {
        "site": site.site,
        "alone": site.own,
        "federated": site.federated,
        "pooled": site.pooled,
        "gain": site.gain,
        "margin": site.margin if site.has_interval else math.nan,
        "interval_level": site.level,
        "outcome": site.outcome,
        "test_patients": site.patients,
        "patients_needed": site.needed if site.outcome == "cannot be told" else None,
    }


def _mean(verdict: Verdict) -> dict[str, object]:
    return _site(_mean_of(verdict))


def _mean_of(verdict: Verdict) -> SiteVerdict:
    """Return the mean over the hospitals; of a run without comparison the federated one alone."""
    if verdict.compared:
        return verdict.mean
    values = [site.federated for site in verdict.sites if not math.isnan(site.federated)]
    mean = statistics.mean(values) if values else math.nan
    return replace(verdict.mean, federated=mean)
