"""One self-contained page from a run folder."""

import base64
import hashlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wardround.common.errors import InputError, install_command
from wardround.common.html import read_style
from wardround.common.html.charts.figure import Figure
from wardround.common.html.palette import colour_of
from wardround.simulations.report import wording
from wardround.simulations.report.charts import figures, tables
from wardround.simulations.report.charts.gain_bars import draw_gain_bars
from wardround.simulations.report.charts.pictures import Picture, draw_samples
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.privacy import describe_privacy
from wardround.simulations.report.sections.attack import read_attack_section
from wardround.simulations.report.sections.order import make_sections
from wardround.simulations.report.verdict import Outcome, Verdict
from wardround.simulations.run_files.folder import FEDERATED

if TYPE_CHECKING:
    from jinja2 import Template

FOLDER = Path(__file__).parent / "templates"
_MARKS: dict[Outcome, str] = {
    "gained": "▲",
    "lost": "▼",
    "no clear difference": "≈",
    "cannot be told": "?",
}


@dataclass(frozen=True, slots=True)
class SiteLine:
    """A row of the verdict's table, as printed."""

    site: str
    is_mean: bool
    patients: str
    own: str
    federated: str
    pooled: str
    gain: str
    gain_note: str
    bar: str
    outcome: Outcome
    mark: str
    needed: str


def render_page(contents: RunContents, documents: Sequence[tuple[str, str]]) -> str:
    """Return the page of a run.

    Args:
        documents: The title and the address of what lies beside the page.

    Raises:
        InputError: The packages that the page needs are not installed.
    """
    verdict = contents.verdict_on(contents.metric)
    return fill_page(
        "page.html.jinja",
        contents=contents,
        facts=contents.facts,
        headline=wording.compose_headline(contents, verdict),
        compared=bool(verdict.compared),
        metric_title=wording.sentence_title(contents.metric),
        margin_note=wording.explain_margin(verdict),
        site_lines=site_lines(contents, verdict),
        error_bound=max(_shown_bounds(contents), default=0.0),
        samples=_pictures(contents),
        sections=make_sections(contents),
        attack=read_attack_section(contents.folder),
        privacy=describe_privacy(contents),
        legend=_legend(contents),
        command=shlex.join(contents.facts.command),
        total_traffic=total_traffic(contents),
        charts=draw_charts(contents),
        tables=make_tables(contents),
        documents=documents,
    )


def draw_charts(contents: RunContents) -> dict[str, Figure | None]:
    """Return the page's own charts by name; the sections have theirs."""
    metric = contents.metric
    return {
        "metric": figures.draw_curves(contents, metric) if metric != "loss" else None,
        "loss": figures.draw_curves(contents, "loss"),
        "uses": figures.draw_uses(contents),
        "classes": figures.draw_classes(contents),
        "traffic": figures.draw_traffic(contents),
        "seconds": figures.draw_seconds(contents),
    }


def make_tables(contents: RunContents) -> dict[str, tuple[tables.Table, ...]]:
    """Return the page's own tables by name."""
    single = {
        "measures": tables.tabulate_measures(contents),
        "matrix": tables.tabulate_models_by_site(contents),
        "split": tables.tabulate_split(contents),
        "traffic": tables.tabulate_traffic(contents),
    }
    drawn = {name: (table,) if table else () for name, table in single.items()}
    return {**drawn, "classes": tables.tabulate_classes(contents)}


def site_lines(contents: RunContents, verdict: Verdict) -> list[SiteLine]:
    """Return a line a site and, from two compared sites on, the line of their mean."""
    metric = verdict.metric
    patients = {(r.site, r.split): r.patients for r in contents.split if not r.class_name}
    shown = list(verdict.sites)
    if len(verdict.compared) > 1:
        shown.append(verdict.mean)
    lines = []
    bars = draw_gain_bars(shown, metric)
    for index, (site, bar) in enumerate(zip(shown, bars, strict=True)):
        is_mean = index == len(verdict.sites)
        counts = [patients.get((site.site, split)) for split in ("train", "test")]
        printed = " / ".join("–" if count is None else str(count) for count in counts)
        gain, gain_note = wording.signed(site.gain, metric), ""
        if site.has_interval:
            gain += f" ± {wording.number(site.margin, metric)}"
        elif site.lone_patient and not is_mean:
            gain_note = "one patient: no interval"
        needed = "" if is_mean else wording.how_many_patients(site)
        lines.append(
            SiteLine(
                site=site.site,
                is_mean=is_mean,
                patients="" if is_mean else printed,
                own=wording.number(site.own, metric),
                federated=wording.number(site.federated, metric),
                pooled=wording.number(site.pooled, metric),
                gain=gain,
                gain_note=gain_note,
                bar=bar,
                outcome=site.outcome,
                mark=_MARKS.get(site.outcome, ""),
                needed=needed.removeprefix("cannot be told "),
            )
        )
    return lines


def _pictures(contents: RunContents) -> tuple[Picture, ...]:
    if contents.samples is None:
        return ()
    return draw_samples(contents.samples, contents.classes)


def _legend(contents: RunContents) -> list[tuple[str, str]]:
    """Return (class, colour) of the foreground classes of a segmentation, or of boxes."""
    if contents.samples is not None and contents.samples.is_detection:
        return [(name, colour_of(k + 1)) for k, name in enumerate(contents.classes)]
    if contents.samples is None or not contents.samples.is_segmentation:
        return []
    return [(name, colour_of(k)) for k, name in enumerate(contents.classes) if k > 0]


def total_traffic(contents: RunContents) -> str:
    """Return how much the federated model travelled, "" where nothing was noted."""
    rows = [row for row in contents.traffic if row.model == FEDERATED]
    return tables.megabytes(sum(row.bytes_down + row.bytes_up for row in rows)) if rows else ""


def fill_page(template: str, **values: object) -> str:
    """Return a page of this folder, with the style and the one script that all pages have.

    Args:
        template: The name of its file.
        values: What else it names.

    Raises:
        InputError: jinja2 is not installed.
    """
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    hashes = [content_hash(script)]
    return load_template(template).render(
        **values, style=read_style(), script=script, script_hashes=hashes
    )


def content_hash(script: str) -> str:
    """Return what the page's content policy calls a script that may run."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def load_template(name: str) -> "Template":
    """Return a page of this folder.

    Raises:
        InputError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError:
        raise InputError(_missing_extra("jinja2")) from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _missing_extra(package: str) -> str:
    return (
        f"the report needs the package {package}, which is not installed: "
        f"run  {install_command('simulation')}  and ask for the report again."
    )


def _shown_bounds(contents: RunContents) -> Iterator[float]:
    """Yield the binning errors of the test values that the page's tables hold."""
    for row in contents.metrics:
        if (row.metric, row.class_name, row.round) == (contents.metric, "", -1):
            yield row.error_bound
