"""``wardround explain-predictions FOLDER``: where a run's model looked, and if to believe it."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from wardround.simulations.evidence.explanations import Mean, summarise_maps
from wardround.simulations.experiment.testing.explained.explained_run import (
    ExplanationRequest,
    Rows,
    explain_run,
    explanation_folder,
)
from wardround.simulations.run_files.explanations import ExplanationRow, UncertaintyRow


def run_explanation(request: ExplanationRequest, as_json: bool) -> None:
    """Explain predictions of a run, add them to its report, and print what the checks said.

    Raises:
        InputError: Something that is asked for is not there, or does not fit.
    """
    from wardround.simulations.report import write_report

    method, rows = explain_run(request)
    report = write_report(request.run)
    if as_json:
        said = {"method": method, "report": str(report), "rows": [_plain(row) for row in rows]}
        told = [row for row in rows if isinstance(row, ExplanationRow)]
        said["sites"] = [_finite(asdict(one)) for one in summarise_maps(told)]
        sys.stdout.write(json.dumps(said, indent=2) + "\n")
        return
    _print(method, rows, report, explanation_folder(request.run))


def _plain(row: ExplanationRow | UncertaintyRow) -> object:
    return _finite(asdict(row))


def _finite(value: object) -> object:
    """Return the same for JSON, which knows no NaN."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(method: str, rows: Rows, report: Path, folder: Path) -> None:
    from rich.console import Console

    console = Console()
    told = [row for row in rows if isinstance(row, ExplanationRow)]
    doubted = [row for row in rows if isinstance(row, UncertaintyRow)]
    if doubted:
        _print_doubts(console, method, doubted)
    else:
        _print_maps(console, method, told)
    console.print(f"Maps and scores: {folder}", markup=False, soft_wrap=True)
    console.print(f"Report: {report}", markup=False, soft_wrap=True)


def _print_maps(console: object, method: str, rows: Sequence[ExplanationRow]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not isinstance(console, Console):
        return
    table = Table(
        "site", "maps", "not to be believed", "in the lesion beyond its area", "random last layer",
        "all layers random", "sites agree", "other round",
        title=f"{method} of the model {rows[0].model}" if rows else method,
    )  # fmt: skip
    for one in summarise_maps(rows):
        table.add_row(
            one.site,
            str(one.maps),
            str(one.marked),
            interval(one.beyond_area),
            number(one.last_layer),
            number(one.all_layers),
            number(one.agreement_rank),
            number(one.repeatability),
        )
    console.print(table)


def _print_doubts(console: object, method: str, rows: Sequence[UncertaintyRow]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not isinstance(console, Console):
        return
    table = Table("site", "row", "Dice", "uncertainty", "errors are less sure", title=method)
    for row in rows:
        cells = (number(row.dice), number(row.uncertainty), number(row.auroc))
        table.add_row(row.site, str(row.case), *cells)
    console.print(table)


def number(value: float) -> str:
    """Return a value in print; a dash where it is not known."""
    return "–" if math.isnan(value) else f"{value:.2f}"


def interval(mean: Mean) -> str:
    """Return a mean with its interval in print."""
    if math.isnan(mean.value):
        return "–"
    if math.isnan(mean.low):
        return f"{mean.value:+.2f} (one patient: no interval)"
    return f"{mean.value:+.2f} ({mean.low:+.2f} to {mean.high:+.2f})"
