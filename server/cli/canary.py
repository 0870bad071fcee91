"""``wardround study canary``: one round through every stage at every site, and what would fail."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardround.common.runtime.command_options import AsJson
from wardround.server.cli.operators import Identity, Server, line_to

if TYPE_CHECKING:
    from rich.table import Table

    from wardround.server.checkpoints.canary import CanaryReport, CanaryRow
    from wardround.server.operators.messages import RunDetails

_WOULD_FAIL = 3
_SITES_A_TABLE = 4  # side by side in 80 columns
_MARKS = {"ok": "ok", "would fail": "FAILS", "to know": "note", "not tried": "-"}


@dataclass(frozen=True, slots=True)
class CanaryAnswer:
    """What ``--json`` prints.

    Attributes:
        fails: Whether something would fail; the exit code is then 3.
        report: What each site said of each stage.
    """

    run: str
    study: str
    digest: str
    fails: bool
    report: "CanaryReport"


def canary(
    context: typer.Context,
    study: Annotated[Path, typer.Argument(help="A study file (TOML).", show_default=False)],
    server: Server = ".",
    site: Annotated[
        list[str] | None,
        typer.Option(help="Which site to try; may be given several times.", show_default=False),
    ] = None,
    identity: Identity = None,
    as_json: AsJson = False,
) -> None:
    """Go through one round at every site, and say in one table what would fail later.

    Sites answer it for a study that was approved there; nothing is trained into a model, and no
    number of a patient leaves. 0: nothing would fail; 3: something would.

    Example: wardround study canary study.toml --server /srv/wardround
    """
    from wardround.common.errors import RunError
    from wardround.common.study.typed import read_study
    from wardround.server.operators.messages import Submission

    loaded = read_study(context, study)
    with line_to(server, identity) as line:
        submission = Submission(loaded.to_toml(), "toml", tuple(site or ()), canary=True)
        run = line.submit(submission).run
        sys.stderr.write(f"asking the sites, as run {run} ...\n")
        for _ in line.watch(run):
            continue
        details = line.show(run)
    report, summary = details.canary, details.summary
    if report is None:
        msg = f"the canary round {run} {summary.state}: {summary.message or 'it said nothing.'}"
        raise RunError(msg)
    if as_json:
        said = CanaryAnswer(run, summary.study, summary.digest, report.fails, report)
        sys.stdout.write(json.dumps(asdict(said)) + "\n")
    else:
        print_canary(details)
    if report.fails:
        raise typer.Exit(_WOULD_FAIL)


def print_canary(details: "RunDetails") -> None:
    """Print what a canary round found: tables, what is wrong in sentences, and what to expect."""
    from wardround.common.runtime.printable import write_lines
    from wardround.server.cli.operator_tables import show

    report = details.canary
    if report is None:
        return
    show(*canary_tables(report))
    write_lines("\n".join(canary_words(report)) + "\n")


def canary_tables(report: "CanaryReport") -> list["Table"]:
    """Return a row a stage and a column a site, a few sites a table."""
    from rich.table import Table

    from wardround.server.cli.operator_tables import escape

    sites = list(dict.fromkeys(row.site for row in report.rows))
    tables = []
    for start in range(0, len(sites), _SITES_A_TABLE):
        some = sites[start : start + _SITES_A_TABLE]
        table = Table("stage", *(escape(site) for site in some))
        chosen = [row for row in report.rows if row.site in some]
        for stage in dict.fromkeys(row.stage for row in chosen):
            table.add_row(stage, *(_mark(chosen, site, stage) for site in some))
        tables.append(table)
    return tables


def _mark(rows: Sequence["CanaryRow"], site: str, stage: str) -> str:
    found = [row for row in rows if (row.site, row.stage) == (site, stage)]
    if not found:
        return ""
    mark = _MARKS.get(found[0].state, found[0].state)
    return f"[bold red]{mark}[/]" if found[0].state == "would fail" else mark


def canary_words(report: "CanaryReport") -> list[str]:
    """Return what would fail, what is to be known, and what the study would take, in lines."""
    lines = [_line("would fail", row) for row in report.rows if row.state == "would fail"]
    lines += [_line("to know", row) for row in report.rows if row.state == "to know"]
    untried: dict[tuple[str, str], list[str]] = {}
    for row in report.rows:
        if row.state == "not tried":
            untried.setdefault((row.site, row.fact), []).append(row.stage)
    lines += [f"not tried: {s}, {', '.join(all_)}: {why}" for (s, why), all_ in untried.items()]
    lines.append(_costs(report))
    if not report.fails:
        lines.append("Nothing would fail.")
    return lines


def _line(state: str, row: "CanaryRow") -> str:
    remedy = f" Remedy: {row.remedy}." if row.remedy else ""
    return f"{state}: {row.site}, {row.stage}: {row.fact}.{remedy}"


def _costs(report: "CanaryReport") -> str:
    size = f"{report.bytes_of_a_site / 1e6:.3g} MB a site over the line"
    if report.round_seconds is None or report.study_seconds is None:
        return f"{report.rounds} rounds: {size}; no site says how long a round takes"
    return (
        f"{report.rounds} rounds of at most {report.round_seconds:.0f} s at the slowest site: at "
        f"most {_span(report.study_seconds)}; {size}"
    )


def _span(seconds: float) -> str:
    for unit, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} seconds"
