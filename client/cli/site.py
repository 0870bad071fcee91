"""``wardround site``: what a hospital decides and looks at, on its own machine."""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardround.client.cli.backup import add_backup_commands
from wardround.client.cli.check import add_check_command
from wardround.client.cli.clinic.importing import add_import_commands
from wardround.client.cli.clinic.monitor import monitor_app
from wardround.client.cli.clinic.pacs import pacs_app
from wardround.client.cli.clinic.review import review_app
from wardround.client.cli.clinic.serve import serve
from wardround.client.cli.connection import add_connection_commands
from wardround.client.cli.daemon import add_daemon_commands
from wardround.client.cli.joining import worth
from wardround.client.cli.ledger import ledger_app
from wardround.client.cli.page import page
from wardround.client.cli.peers import peers_app
from wardround.client.cli.withdrawal import add_withdrawal_commands
from wardround.common.runtime.command_options import AsJson
from wardround.common.runtime.printable import word

if TYPE_CHECKING:
    from wardround.client.doctor.policy import PolicyReport
    from wardround.common.files.json_lines import ChainHead
    from wardround.common.security.audit_receipt import Receipt
    from wardround.common.security.audit_verification import Entry
    from wardround.common.study.study import Study

site_app = typer.Typer(
    help="What a hospital decides and looks at.", no_args_is_help=True, suggest_commands=False
)
policy_app = typer.Typer(
    help="What this hospital allows: policy.toml.", no_args_is_help=True, suggest_commands=False
)
audit_app = typer.Typer(
    help="What has left this hospital.", no_args_is_help=True, suggest_commands=False
)
site_app.add_typer(policy_app, name="policy")
site_app.add_typer(audit_app, name="audit")
site_app.add_typer(ledger_app, name="ledger")
site_app.add_typer(pacs_app, name="pacs")
site_app.add_typer(monitor_app, name="monitor")
site_app.add_typer(review_app, name="review")
site_app.add_typer(peers_app, name="peers")
site_app.command()(serve)
site_app.command()(page)
site_app.command()(worth)
add_daemon_commands(site_app)
add_connection_commands(site_app)
add_backup_commands(site_app)
add_import_commands(site_app)
add_check_command(site_app)
add_withdrawal_commands(site_app)

SiteFolder = Annotated[Path, typer.Argument(help="A site folder.", show_default=False)]
_SHOWN = 8  # of a digest


@site_app.command()
def explain(
    context: typer.Context,
    study: Annotated[
        str,
        typer.Argument(
            help="A study file (TOML), the digest of one that waits or was decided on, "
            "or the name of a built-in study.",
            show_default=False,
        ),
    ],
    site: Annotated[Path, typer.Option(help="A site folder.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Say what a study asks for, and which rules of the site's policy allow it; 1 if one does not.

    Example: wardround site explain study.toml --site /data/wardround/north
    """
    from wardround.client.doctor.policy import evaluate_policy
    from wardround.client.doctor.terms import terms_of
    from wardround.client.policy.approvals import study_file
    from wardround.common.runtime.printable import write_lines
    from wardround.common.study.explain.study import explain_study
    from wardround.common.study.loading import load_study

    held = study_file(site, study.strip().lower())
    find = context.obj  # the front door knows built-in studies by name; a site does not
    loaded = find(study) if held is None and callable(find) else load_study(held or Path(study))
    report, terms = evaluate_policy(site, loaded), terms_of(site, loaded).lines
    if as_json:
        _print_json(_as_json(loaded, report, terms))
    else:
        write_lines(explain_study(loaded) + "\n")
        write_lines("What you would approve\n" + "\n".join(terms) + "\n\n")
        _print_verdicts(report)
    if not report.allowed:
        raise typer.Exit(1)


@policy_app.command()
def new(site: SiteFolder) -> None:
    """Write a cautious policy to start from.

    Example: wardround site policy new /data/wardround/north
    """
    from wardround.client.policy.policy import POLICY_FILE
    from wardround.client.policy.template import TEMPLATE
    from wardround.common.errors import InputError
    from wardround.common.files.atomic import BY_UMASK, write_new

    path = site / POLICY_FILE
    try:
        write_new(path, TEMPLATE.encode(), BY_UMASK)
    except FileExistsError:
        msg = f"{path} exists already: edit it, or move it away."
        raise InputError(msg) from None
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror}. Give a site folder that is there."
        raise InputError(msg) from None
    sys.stdout.write(f"Wrote {path}. Edit it, then: wardround site policy check {word(site)}\n")


@policy_app.command()
def package(
    name: Annotated[str, typer.Argument(help="An installed package.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Print the line that lists an installed package in policy.toml; nothing of it is imported.

    Read its files first: whoever lists it lets its code run beside this hospital's data.

    Example: wardround site policy package example-ward
    """
    from wardround.common.files.packages.references import GROUPS, normalised
    from wardround.common.files.packages.snapshot import read_package, registered

    found = read_package(normalised(name))
    names = {
        kind: [text for text in registered(kind) if text.startswith(f"{found.package}:")]
        for kind in GROUPS
    }
    if as_json:
        said = {"package": found.package, "version": found.version, "sha256": found.sha256}
        _print_json({**said, "registers": names, "files": sorted(found.files)})
        return
    for path in sorted(found.files):
        sys.stdout.write(f"{found.root / path}\n")
    for kind, texts in names.items():
        if texts:
            sys.stdout.write(f"{kind}: {', '.join(texts)}\n")
    sys.stdout.write(f'\n[packages]\n{found.package} = "{found.sha256}"\n')


@policy_app.command()
def check(site: SiteFolder, as_json: AsJson = False) -> None:
    """Check the policy of a site folder and print what it says, defaults included.

    Example: wardround site policy check /data/wardround/north
    """
    import tomli_w

    from wardround.client.policy.policy import open_policy

    policy = open_policy(site)
    if as_json:
        _print_json(policy.model_dump(mode="json"))
        return
    sys.stdout.write(tomli_w.dumps(policy.model_dump(mode="json", exclude_none=True)))
    if policy.simulated:
        sys.stdout.write("# simulated = true: this allows everything. No hospital sets it.\n")


@audit_app.command()
def verify(
    site: SiteFolder,
    counter: Annotated[
        int, typer.Option(help="Entries that a server or an auditor has seen.", min=0)
    ] = 0,
    head: Annotated[str, typer.Option(help="Hash of the last of those entries.")] = "",
    key: Annotated[
        Path | None,
        typer.Option(help="The site's public key, as the auditor has it.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that no entry was changed, moved, added or taken away, and who signed them.

    That its end was cut off is seen from the server's receipts, which lie beside it, and from what
    somebody else remembers of it.

    Example: wardround site audit verify runs/first/sites/hospital-1 --counter 25 --head 5e3a...
    """
    from wardround.client.egress.receipts import kept_receipts
    from wardround.client.site.folder import AUDIT_FOLDER, KEY_FOLDER
    from wardround.common.errors import InputError
    from wardround.common.files.json_lines import NO_HASH, ChainHead
    from wardround.common.security.audit_verification import verify_log
    from wardround.common.security.signing_key import PUBLIC_FILE, open_public_key

    if bool(counter) != bool(head):
        msg = "--counter and --head belong together: give both, or neither."
        raise InputError(msg)
    known = ChainHead(counter, head) if counter else ChainHead(0, NO_HASH)
    public = open_public_key(key or site / KEY_FOLDER / PUBLIC_FILE)
    receipts = kept_receipts(site, public)
    found = verify_log(site / AUDIT_FOLDER, public, known, receipts)
    if as_json:
        _print_json(_verified(found, receipts))
        return
    sys.stdout.write(
        f"{found.entries} entries, each as it was written and signed.\n"
        f"--counter {found.entries} --head {found.hash}\n"
    )
    _print_how_far(found.entries, known.entries, receipts)


@audit_app.command()
def show(
    site: SiteFolder,
    last: Annotated[int, typer.Option(help="How many of the last entries; 0 for all.", min=0)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, all of each entry.")] = False,
) -> None:
    """Print what left the site, and what was refused; 'verify' says whether it can be believed.

    Example: wardround site audit show runs/first/sites/hospital-1 --last 5
    """
    from wardround.client.site.folder import AUDIT_FOLDER
    from wardround.common.security.audit_verification import read_log

    entries = list(read_log(site / AUDIT_FOLDER))
    shown = entries[-last:] if last else entries
    if as_json:
        sys.stdout.write(json.dumps([asdict(entry) for entry in shown], indent=2) + "\n")
    else:
        _print_entries(shown)


def _as_json(study: "Study", report: "PolicyReport", terms: "Sequence[str]") -> dict[str, object]:
    said = {"study": study.name, "digest": study.digest, "allowed": report.allowed}
    return {**said, "terms": [*terms], **asdict(report)}


def _verified(found: "ChainHead", receipts: "Sequence[Receipt]") -> dict[str, object]:
    newest = receipts[-1] if receipts else None
    return {
        "entries": found.entries,
        "head": found.hash,
        "countersigned": None if newest is None else newest.report.entries,
        "countersigned_at": None if newest is None else newest.time,
    }


def _print_json(said: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(said, indent=2) + "\n")


def _print_how_far(entries: int, known: int, receipts: "Sequence[Receipt]") -> None:
    """Say up to where nothing was cut off."""
    from datetime import UTC, datetime

    if receipts:
        newest = receipts[-1]
        signed, when = newest.report.entries, datetime.fromtimestamp(newest.time, UTC)
        sys.stdout.write(
            f"The server countersigned the first {signed} of them on {when:%Y-%m-%d %H:%M} UTC.\n"
        )
        known = max(known, signed)
    if not known:
        sys.stdout.write("Whether entries after the last one were cut off is not known.\n")
    elif known < entries:
        sys.stdout.write(f"Nobody else knows yet of the last {entries - known}.\n")


def _print_verdicts(report: "PolicyReport") -> None:
    from rich.console import Console
    from rich.table import Table

    from wardround.common.runtime.printable import cell, printable

    table = Table("rule", "", "why", title=cell(f"The policy of {report.site}"))
    for verdict in report.verdicts:
        word = "[green]allow[/]" if verdict.allowed else "[bold red]deny[/]"
        table.add_row(verdict.rule, word, cell(verdict.reason, 2_000))
    console = Console()
    console.print(table)
    for problem in report.problems:
        console.print(printable(f"Not known: {problem}"), markup=False, soft_wrap=True)
    for note in report.notes:
        console.print(printable(f"Note: {note}."), markup=False, soft_wrap=True)
    reply = "would take part" if report.allowed else "refuses"
    console.print(printable(f"{report.site} {reply}."), markup=False)


def _print_entries(entries: "list[Entry]") -> None:
    from rich.console import Console
    from rich.table import Table

    from wardround.common.runtime.printable import cell

    # 80 columns hold it: the hash of what left, and the rest of a digest, are in --json.
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "time (UTC)", "what", "verdict", "study", "round"):
        table.add_column(title, no_wrap=title not in ("what", "verdict"), overflow="fold")
    table.add_column("bytes", justify="right", no_wrap=True)
    for entry in entries:
        event = entry.event
        round_ = f"{event.round}.{event.attempt}" if event.run else ""
        table.add_row(
            str(entry.number),
            cell(_to_the_second(entry.time)),
            cell(event.kind),
            cell(event.verdict),
            cell(event.study[:_SHOWN]),
            round_,
            str(event.bytes),
        )
    Console().print(table)


def _to_the_second(time: str) -> str:
    """Return a time of a log as people write it; as it is, where it is something else."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?(Z|\+00:00)", time)
    return f"{found[1]} {found[2]}" if found else time
