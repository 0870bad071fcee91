"""``wardround site``: what a hospital decides and looks at, on its own machine."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardround.client.cli.backup import add_backup_commands
from wardround.client.cli.connection import add_connection_commands
from wardround.client.cli.daemon import add_daemon_commands
from wardround.client.cli.ledger import ledger_app

if TYPE_CHECKING:
    from wardround.client.doctor.policy import PolicyReport
    from wardround.common.security.audit_verification import Entry

site_app = typer.Typer(help="What a hospital decides and looks at.", no_args_is_help=True)
policy_app = typer.Typer(help="What this hospital allows: policy.toml.", no_args_is_help=True)
audit_app = typer.Typer(help="What has left this hospital.", no_args_is_help=True)
site_app.add_typer(policy_app, name="policy")
site_app.add_typer(audit_app, name="audit")
site_app.add_typer(ledger_app, name="ledger")
add_daemon_commands(site_app)
add_connection_commands(site_app)
add_backup_commands(site_app)

SiteFolder = Annotated[Path, typer.Argument(help="A site folder.", show_default=False)]
_SHOWN = 12  # of a digest


@site_app.command()
def explain(
    study: Annotated[
        Path,
        typer.Argument(
            help="A study file (TOML), or the digest of one that waits for a decision.",
            show_default=False,
        ),
    ],
    site: Annotated[Path, typer.Option(help="A site folder.", show_default=False)],
) -> None:
    """Say what a study asks for, and which rules of the site's policy allow it; 1 if one does not.

    Example: wardround site explain study.toml --site /data/wardround/north
    """
    from wardround.client.doctor.policy import evaluate_policy
    from wardround.client.policy.approvals import pending_file
    from wardround.common.runtime.printable import write_lines
    from wardround.common.study.explain.study import explain_study
    from wardround.common.study.loading import load_study

    loaded = load_study(pending_file(site, str(study)) or study)
    report = evaluate_policy(site, loaded)
    write_lines(explain_study(loaded) + "\n")
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
    sys.stdout.write(f"Wrote {path}. Edit it, then: wardround site policy check {site}\n")


@policy_app.command()
def check(site: SiteFolder) -> None:
    """Check the policy of a site folder and print what it says, defaults included.

    Example: wardround site policy check /data/wardround/north
    """
    import tomli_w

    from wardround.client.policy.policy import open_policy

    policy = open_policy(site)
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
) -> None:
    """Check that no entry was changed, moved, added or taken away, and who signed them.

    A log cannot tell that its end was cut off: give what somebody else remembers of it.

    Example: wardround site audit verify runs/first/sites/hospital-1 --counter 25 --head 5e3a...
    """
    from wardround.client.egress.gateway import AUDIT_FOLDER
    from wardround.client.site.folder import KEY_FOLDER
    from wardround.common.errors import InputError
    from wardround.common.files.json_lines import ChainHead
    from wardround.common.security.audit_verification import read_receipt, verify_log
    from wardround.common.security.signing_key import PUBLIC_FILE, open_public_key

    if bool(counter) != bool(head):
        msg = "--counter and --head belong together: give both, or neither."
        raise InputError(msg)
    folder = site / AUDIT_FOLDER
    known = ChainHead(counter, head) if counter else read_receipt(folder)
    public = open_public_key(key or site / KEY_FOLDER / PUBLIC_FILE)
    found = verify_log(folder, public, known)
    sys.stdout.write(
        f"{found.entries} entries, each as it was written and signed.\n"
        f"--counter {found.entries} --head {found.hash}\n"
    )
    if not known.entries:
        sys.stdout.write("Whether entries after the last one were cut off is not known.\n")


@audit_app.command()
def show(
    site: SiteFolder,
    last: Annotated[int, typer.Option(help="How many of the last entries; 0 for all.", min=0)] = 20,
) -> None:
    """Print what left the site, and what was refused; 'verify' says whether it can be believed.

    Example: wardround site audit show runs/first/sites/hospital-1 --last 5
    """
    from wardround.client.egress.gateway import AUDIT_FOLDER
    from wardround.common.security.audit_verification import read_log

    entries = list(read_log(site / AUDIT_FOLDER))
    _print_entries(entries[-last:] if last else entries)


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

    table = Table()
    for title in ("", "time", "what", "verdict"):
        table.add_column(title, overflow="fold", no_wrap=title in ("what", "verdict"))
    for title in ("study", "round", "bytes", "SHA-256"):
        table.add_column(title)
    for entry in entries:
        event = entry.event
        round_ = f"{event.round}.{event.attempt}" if event.run else ""
        table.add_row(
            str(entry.number),
            cell(entry.time),
            cell(event.kind),
            cell(event.verdict),
            cell(event.study[:_SHOWN]),
            round_,
            str(event.bytes),
            cell(event.sha256[:_SHOWN]),
        )
    Console().print(table)
