"""``wardround site join | renew | doctor``: a site's way to its server."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardround.common.runtime.command_options import AsJson

if TYPE_CHECKING:
    from wardround.client.doctor.check import Check

SiteFolder = Annotated[Path, typer.Argument(help="A site folder.", show_default=False)]
ServerOption = Annotated[
    str, typer.Option(help="host:port, instead of the server that the site has joined.")
]
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def add_connection_commands(app: typer.Typer) -> None:
    """Add the commands to ``wardround site``."""
    app.command()(join)
    app.command()(renew)
    app.command()(doctor)
    app.command()(model)


def join(
    token: Annotated[
        str,
        typer.Argument(help="The invitation; - reads it from standard input.", show_default=False),
    ],
    folder: Annotated[
        Path | None, typer.Option(help="The site folder; made where it is missing.")
    ] = None,
    again: Annotated[
        bool, typer.Option(help="Join anew, though the folder has joined before.")
    ] = False,
    ledger_of: Annotated[
        Path | None,
        typer.Option(help="A site folder of the same patients: both then spend one budget."),
    ] = None,
) -> None:
    """Join a server with the token of an invitation.

    The site's keys are made here and never leave; the server signs a request. Nothing secret is
    sent before the server has shown that the token is from it. A hospital that joins a second
    consortium with the same patients gives --ledger-of the first folder.

    Example: wardround site join wardround-AQ7Gq0f4N4... --folder north
    """
    from wardround.client.site.enrolment import join as join_server
    from wardround.client.site.folder import open_site
    from wardround.common.security.join_token import parse_token

    # A token on the command line can be seen by others of this machine: hence "-".
    invitation = parse_token(sys.stdin.read() if token == "-" else token)
    place = folder or Path(invitation.site)
    ledger = None if ledger_of is None else open_site(ledger_of).ledger_folder
    certificate = join_server(invitation, place, again, ledger)
    sys.stdout.write(
        f"{invitation.site} has joined {invitation.address}; its certificate is valid until "
        f"{certificate.not_valid_after_utc:%Y-%m-%d} and is renewed by the site's daemon.\n"
        f"{_offered_ledgers(place)}"
        f"Next: {_what_is_missing(place)}wardround site doctor {place}\n"
    )


def _offered_ledgers(place: Path) -> str:
    """Return what to do where a site folder of another consortium lies beside this one."""
    from wardround.client.doctor.neighbours import neighbours_of
    from wardround.client.site.folder import open_site

    site, lines = open_site(place), ""
    for other in neighbours_of(place):
        ours, theirs = site.settings.server, other.settings.server
        if theirs is None or theirs == ours or other.ledger_folder == site.ledger_folder:
            continue
        lines += (
            f"{other.folder.name} beside it belongs to {theirs.address}. If it holds the same "
            "patients, both must spend one budget: before the first study write\n"
            f"  ledger = {json.dumps(os.path.relpath(other.ledger_folder, site.folder))}\n"
            f"above the tables of {site.folder / 'site.toml'}.\n"
        )
    return lines


def _what_is_missing(site: Path) -> str:
    policy, manifest = site / "policy.toml", site / "manifest.csv"
    if manifest.exists():
        return f"look at {policy}; then: "
    return f"edit {policy}; write {manifest} (manifest.example.csv has the columns); then: "


def renew(site: SiteFolder, server: ServerOption = "") -> None:
    """Get a new certificate for a new key; the old one works until it expires.

    Example: wardround site renew north
    """
    from wardround.client.site.enrolment import renew as renew_certificate

    expires = renew_certificate(site, server).not_valid_after_utc
    sys.stdout.write(f"The site's certificate is valid until {expires:%Y-%m-%d %H:%M} UTC.\n")


def model(
    digest: Annotated[
        str, typer.Argument(help="The study's digest, or its first digits.", show_default=False)
    ],
    site: Annotated[Path, typer.Option(help="The site folder.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="The model folder; models/DIGITS below the site by default."),
    ] = None,
    server: ServerOption = "",
) -> None:
    """Fetch the finished model of a study that this site took part in, as a model folder.

    It holds what all sites share, and is checked before it is kept.

    Example: wardround site model 5e3a90c2b7d14f68 --site north
    """
    from wardround.client.clinic.inference.released_model import fetch_model

    place = out or site / "models" / digest
    found = fetch_model(site, digest, place, server)
    makers = "1 site" if found.said.sites == 1 else f"{found.said.sites} sites"
    sys.stdout.write(
        f"The model of round {found.said.round}, made by {makers}: {found.folder}\n"
        f"digest {found.digest}\n"
    )
    if not found.is_complete:
        sys.stdout.write(
            "It is what the sites share. Each site keeps a part of its own, without which it "
            "predicts nothing.\n"
        )


def doctor(
    site: SiteFolder,
    server: ServerOption = "",
    quick: Annotated[bool, typer.Option("--quick", help="Leave the images unopened.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check everything that a site needs to take part, and say what to do; 1 if something fails.

    Every image of the manifest is opened once; one that has not changed is not opened again.

    Example: wardround site doctor north
    """
    from dataclasses import asdict

    from wardround.client.cli.progress import counting
    from wardround.client.doctor.doctor import examine

    with counting("opening images", quiet=as_json) as progress:
        checks = examine(site, server, quick, progress)
    if as_json:
        sys.stdout.write(json.dumps([asdict(check) for check in checks], indent=2) + "\n")
    else:
        _print(checks)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)


def _print(checks: "tuple[Check, ...]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from wardround.common.runtime.printable import cell

    table = Table("what", "", "found", "what to do")
    for check in checks:
        status = Text(check.status, style=_COLOURS[check.status])
        table.add_row(check.name, status, cell(check.fact, 2_000), cell(check.remedy, 2_000))
    Console().print(table)
