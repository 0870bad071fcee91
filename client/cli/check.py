"""``wardround site check``: a look at a site's own data, whose report stays at the site."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardround.common.runtime.command_options import AsJson

if TYPE_CHECKING:
    from wardround.client.clinic.onboarding.data_check.findings import DataReport
    from wardround.common.study.study import Study

_COLOURS = {"ok": "green", "look": "yellow", "fault": "bold red"}


def add_check_command(app: typer.Typer) -> None:
    """Add the command to ``wardround site``."""
    app.command("check")(check_site_data)


def check_site_data(
    context: typer.Context,
    site: Annotated[Path, typer.Option(help="A site folder.", show_default=False)],
    study: Annotated[
        str,
        typer.Argument(
            help="A study file (TOML), the digest of one that waits or was decided on, or the name "
            "of a built-in study; without one the manifest is looked at as it is.",
            show_default=False,
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Look at each examination for duplicates, leaks, outliers and doubtful labels; 1 for a fault.

    The report (a page, and JSON) is written into the folder "checks" of the site folder, for its
    owner alone. Nothing leaves the site.

    Example: wardround site check study.toml --site /srv/site
    """
    from dataclasses import asdict

    from wardround.client.cli.progress import counting
    from wardround.client.clinic.onboarding.data_check.check import check_data, write_report
    from wardround.client.site.folder import open_site

    opened = open_site(site)
    loaded = _load(study, site, context) if study else None
    with counting("looking at examinations", quiet=as_json) as progress:
        report = check_data(opened, loaded, progress)
    page, data = write_report(report, opened)
    if as_json:
        sys.stdout.write(json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n")
    else:
        _print(report)
        sys.stdout.write(f"Report: {page}\nThe same as JSON: {data}\n")
    if report.has_faults:
        raise typer.Exit(1)


def _load(study: str, site: Path, context: typer.Context) -> "Study":
    from wardround.client.policy.approvals import study_file
    from wardround.common.study.loading import load_study

    held = study_file(site, study.strip().lower())
    find = context.obj  # the front door knows built-in studies by name; a site does not
    loaded: Study = (
        find(study) if held is None and callable(find) else load_study(held or Path(study))
    )
    return loaded


def _print(report: "DataReport") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from wardround.common.runtime.printable import cell

    table = Table("what", "", "found", "what to do")
    for finding in report.findings:
        status = Text(finding.status, style=_COLOURS[finding.status])
        table.add_row(finding.name, status, cell(finding.fact, 2_000), cell(finding.remedy, 2_000))
    Console().print(table)
