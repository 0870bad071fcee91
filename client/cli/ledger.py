"""``wardround site ledger``: what was spent on a site's patients, and is it intact?"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardround.common.runtime.command_options import AsJson

if TYPE_CHECKING:
    from rich.table import Table

    from wardround.client.privacy.ledger.report import DatasetReport, LedgerReport

ledger_app = typer.Typer(
    help="Show, verify and export what was spent on a site's patients.", no_args_is_help=True
)
SiteFolder = Annotated[Path, typer.Argument(help="A site folder.", show_default=False)]
_SHOWN = 12  # of a digest


@ledger_app.command()
def show(
    site: SiteFolder,
    as_json: AsJson = False,
) -> None:
    """Print epsilon spent and left, a row a run of a study.

    Example: wardround site ledger show runs/first/sites/hospital-1
    """
    from wardround.client.privacy.ledger.report import to_json

    report = _read_report(site)
    if as_json:
        sys.stdout.write(to_json(report))
    else:
        _print(report)


@ledger_app.command()
def verify(
    site: SiteFolder,
    counter: Annotated[
        int, typer.Option(help="Entries that a server or an auditor has seen.", min=0)
    ] = 0,
    head: Annotated[str, typer.Option(help="Hash of the last of those entries.")] = "",
    as_json: AsJson = False,
) -> None:
    """Check that no entry was changed, moved, added or taken away.

    A ledger cannot tell that its end was cut off, or that it is an old copy: give the counter that
    someone else remembers.

    Example: wardround site ledger verify runs/first/sites/hospital-1 --counter 25
    """
    from wardround.client.privacy.ledger.file import check_held, read_ledger
    from wardround.client.privacy.ledger.totals import LedgerBook
    from wardround.common.errors import InputError

    if head and not counter:
        msg = (
            f"--head {head[:12]} is the hash of the last of so many entries: say how many with "
            "--counter, as the server or the auditor wrote it down."
        )
        raise InputError(msg)
    chain = read_ledger(site)
    LedgerBook(chain.entries)
    check_held(chain.entries, counter, head)
    is_unfinished = chain.torn or chain.unended
    if as_json:
        said = {
            "entries": len(chain.entries),
            "head": chain.entries[-1].hash,
            "unfinished": bool(is_unfinished),
        }
        sys.stdout.write(json.dumps(said, indent=2) + "\n")
        return
    sys.stdout.write(f"The ledger of {site} is intact: {len(chain.entries)} entries.\n")
    sys.stdout.write(f"head {chain.entries[-1].hash}\n")
    if is_unfinished:
        sys.stdout.write("Its last line is unfinished; it is repaired when the site starts.\n")


@ledger_app.command()
def export(
    site: SiteFolder,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write CSV, not JSON.")] = False,
    out: Annotated[Path | None, typer.Option(help="A file; the terminal if absent.")] = None,
) -> None:
    """Write the privacy report: unit, adjacency, epsilon, delta, accountant, sigma, q, T, C, cap.

    Example: wardround site ledger export runs/first/sites/hospital-1 --out privacy.json
    """
    from wardround.client.privacy.ledger.report import to_csv, to_json
    from wardround.common.errors import InputError

    report = _read_report(site)
    text = to_csv(report) if as_csv else to_json(report)
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"cannot write {out}: {error.strerror}. Choose another place."
        raise InputError(msg) from None
    sys.stdout.write(f"Wrote {out}.\n")


def _read_report(site: Path) -> "LedgerReport":
    from wardround.client.data.manifest.parts.written_parts import parts_are_mixed
    from wardround.client.privacy.ledger.file import read_ledger
    from wardround.client.privacy.ledger.report import report_ledger

    return report_ledger(read_ledger(site).entries, parts_are_mixed(site))


def _print(report: "LedgerReport") -> None:
    from rich.console import Console

    from wardround.client.policy.policy import NO_LIMIT
    from wardround.common.runtime.printable import cell

    console = Console()
    for dataset in report.datasets:
        told = f"Data set {dataset.dataset}, {dataset.part} patients: epsilon "
        told += f"{dataset.epsilon:.4g} is spent at delta {dataset.delta:g}; " + (
            "a simulated site has no cap."
            if dataset.cap >= NO_LIMIT
            else f"{dataset.remaining:.4g} of {dataset.cap:g} is left."
        )
        console.print(cell(told, style="bold"))
        console.print(_table(dataset))
    if report.datasets:
        console.print("Rounds: reserved / released / committed. All digits: --json.", markup=False)
    console.print(
        f"Unit: {report.unit}; neighbours: {report.adjacency}; accountant: {report.accountant}. "
        f"{report.counter} entries until {report.until}.",
        markup=False,
    )


def _table(dataset: "DatasetReport") -> "Table":
    """Return a data set's runs, a row each; 80 columns hold it."""
    from rich.table import Table

    from wardround.common.runtime.printable import cell

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("study", "run"):
        table.add_column(title, no_wrap=True)
    for title in ("q", "sigma", "C", "T", "epsilon", "rounds"):
        table.add_column(title, justify="right", no_wrap=True)
    for run in dataset.runs:
        numbers = (run.sampling_rate, run.noise_multiplier, run.clip_norm, run.steps)
        counts = (run.reservations, run.released, run.committed)
        table.add_row(
            cell(run.study[:_SHOWN]),
            cell(run.run[:_SHOWN]),
            *(f"{number:.4g}" for number in (*numbers, run.epsilon)),
            " / ".join(map(str, counts)),
        )
    return table
