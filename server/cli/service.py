"""``wardround server start | status | operator``: running a server, and who may command it."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wardround.common.runtime.command_options import AsJson

ServerFolder = Annotated[Path, typer.Argument(help="A server folder.", show_default=False)]
_HERE = Path()


def add_service_commands(server_app: typer.Typer) -> None:
    """Add the commands to ``wardround server``."""
    server_app.command()(start)
    server_app.command()(status)
    server_app.command()(operator)


def start(
    folder: ServerFolder,
    operators: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Answer operators with certificates here too; else as server.toml says.",
            show_default=False,
        ),
    ] = "",
    pages: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve the operators' page here; on 127.0.0.1 to who has its link, elsewhere to "
            "browsers with an operator's certificate. Else as server.toml says.",
            show_default=False,
        ),
    ] = "",
    page_actions: Annotated[
        bool,
        typer.Option(
            "--page-actions",
            help="Let that page submit studies, stop and resume runs, and invite sites.",
        ),
    ] = False,
) -> None:
    """Serve sites and operators until SIGTERM or Ctrl-C.

    Example: wardround server start /srv/wardround --pages 127.0.0.1:8445
    """
    from wardround.common.files.account import shown, started_as_owner
    from wardround.server.service.service import PageTerms, serve

    def tell(address: str) -> None:
        tell_page(
            f"Sites reach this server at {address}. Hand a study in with: "
            f"wardround study submit STUDY --server {folder}"
        )

    def tell_page(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    with started_as_owner(folder, shown("wardround", "server", "start", folder)):
        serve(folder, operators, tell, PageTerms(pages, page_actions, tell_page))


def status(
    folder: ServerFolder,
    as_json: AsJson = False,
) -> None:
    """Say how the server of a folder stands; 3 if none runs, or sites cannot reach it.

    Example: wardround server status /srv/wardround
    """
    from wardround.common.errors import RunError
    from wardround.common.runtime.printable import write_lines
    from wardround.server.cli.operator_tables import server_words
    from wardround.server.operators.client import server_at
    from wardround.server.settings import open_server

    open_server(folder)
    with server_at(str(folder)) as line:
        found = line.server()
    write_lines(json.dumps(asdict(found)) + "\n" if as_json else server_words(found))
    if not found.link_is_up:
        raise typer.Exit(RunError.exit_code)


def operator(
    name: Annotated[str, typer.Argument(help="Name of the operator.", show_default=False)],
    server: Annotated[Path, typer.Option("--server", help="The server folder.")] = _HERE,
    out: Annotated[
        Path | None, typer.Option(help="A new folder for key and certificate.", show_default=False)
    ] = None,
    days: Annotated[float, typer.Option(help="How long it is valid.", min=0.01, max=3650)] = 365.0,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Take the operator's certificates away instead.")
    ] = False,
    browser: Annotated[
        bool,
        typer.Option(
            "--browser",
            help="Write operator.p12 too, which a browser imports for the operators' page, and "
            "print its passphrase.",
        ),
    ] = False,
) -> None:
    """Make a certificate with which an operator commands the server over the network.

    Whoever has the folder can submit studies and stop runs: hand it over as you would a password.

    Example: wardround server operator ann --server /srv/wardround --out ann
    """
    from wardround.server.identity.operator_access import (
        OPERATOR_BUNDLE,
        issue_operator,
        revoke_operator,
        write_browser_bundle,
    )
    from wardround.server.settings import open_server

    server_folder = open_server(server).folder
    if revoke:
        taken = revoke_operator(server_folder, name)
        sys.stdout.write(f"Took {taken} certificate(s) from operator {name}.\n")
        return
    place = out or Path(f"operator-{name}")
    certificate = issue_operator(server_folder, name, days, place)
    expires = certificate.not_valid_after_utc
    sys.stdout.write(
        f"Made {place}, valid until {expires:%Y-%m-%d %H:%M} UTC. Use it with: "
        f"wardround runs list --server HOST:PORT --identity {place}\n"
    )
    if browser:
        sys.stdout.write(
            f"A browser imports {place / OPERATOR_BUNDLE} with this passphrase, which is kept "
            f"nowhere: {write_browser_bundle(place, name)}\n"
        )
