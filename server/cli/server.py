"""``wardround server``: the consortium's server, and who belongs to it."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from wardround.common.runtime.command_options import AsJson
from wardround.server.cli.peers import peers_app

server_app = typer.Typer(
    help="Run a consortium's server.", no_args_is_help=True, suggest_commands=False
)
server_app.add_typer(peers_app, name="peers")

ServerFolder = Annotated[Path, typer.Argument(help="A server folder.", show_default=False)]
ServerOption = Annotated[Path, typer.Option("--server", help="The server folder.")]
SiteName = Annotated[str, typer.Argument(help="Name of the site.", show_default=False)]
_HERE = Path()


@server_app.command()
def init(
    folder: ServerFolder,
    name: Annotated[str, typer.Option(help="Name of the consortium.", show_default=False)],
    public_name: Annotated[
        list[str],
        typer.Option(
            help="Host name or address under which sites reach the server, with its port where "
            "that is not --port (NAT). May be given several times; the first stands in "
            "invitations.",
            show_default=False,
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(help="The one port that sites must reach.")] = 8443,
) -> None:
    """Make a server folder: server.toml, the consortium's certificate authority, its certificate.

    Example: wardround server init /srv/wardround --name Lung-2026 --public-name fl.example.org
    """
    from wardround.server.identity.pki import fingerprint
    from wardround.server.service.installation import init_server

    ca = init_server(folder, name, public_name, host, port)
    sys.stdout.write(
        f"Made {folder}. The private keys in {folder / 'ca'} are readable by you alone; who has "
        "ca.key can admit sites, so keep a backup of it where nobody else comes.\n"
        f"SHA-256 of the CA certificate: {fingerprint(ca).hex()}\n"
        f"Next: wardround server invite SITE --server {folder}\n"
    )


@server_app.command()
def invite(
    site: SiteName,
    server: ServerOption = _HERE,
    hours: Annotated[float, typer.Option(help="How long it may be used.", min=0.01)] = 72.0,
    address: Annotated[
        str,
        typer.Option(help="Which of the server's public names this site dials; else the first."),
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(help="A new file for the token, which you alone can read; not printed then."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a token with which one site joins, once.

    The token alone goes to standard output, or with --out to a file. Hand it over so that nobody
    else sees it (not by open mail): who uses it first joins in the site's place. An earlier token
    of the site is withdrawn.

    Example: wardround server invite north --server /srv/wardround
    """
    from datetime import timedelta

    from wardround.common.errors import InputError
    from wardround.common.files.atomic import create_file
    from wardround.server.identity.invitations import invite as invite_site

    if out is not None and out.exists():
        msg = f"{out} is there already: give another --out."
        raise InputError(msg)
    token = invite_site(server, site, timedelta(hours=hours), address)
    sys.stderr.write(
        f"For {site}, once, until {token.expires:%Y-%m-%d %H:%M} UTC. At the hospital: "
        f"wardround site join TOKEN --folder {site!r}\n"
    )
    if out is not None:
        create_file(out, f"{token.text()}\n".encode())
        sys.stderr.write(f"The token is in {out}, readable by you alone.\n")
    if as_json:
        said = {
            "site": site,
            "expires": token.expires.timestamp(),
            "token": token.text() if out is None else None,
            "file": None if out is None else str(out),
        }
        sys.stdout.write(json.dumps(said) + "\n")
    elif out is None:
        sys.stdout.write(token.text() + "\n")


@server_app.command()
def revoke(site: SiteName, server: ServerOption = _HERE) -> None:
    """Take a site's certificates and open invitation from it; its next request is refused.

    Example: wardround server revoke north --server /srv/wardround
    """
    from wardround.server.identity.membership import revoke as revoke_site
    from wardround.server.settings import open_server

    taken = revoke_site(open_server(server).folder, site)
    sys.stdout.write(
        f"Took {taken} certificate(s) and invitation(s) from {site}.\n"
        if taken
        else f"{site} had no certificate and no open invitation: nothing was to be taken.\n"
    )


@server_app.command()
def renew(folder: ServerFolder) -> None:
    """Give the server a new key and certificate, from the same certificate authority.

    Sites notice nothing. The names in it are the public_names of server.toml.

    Example: wardround server renew /srv/wardround
    """
    from wardround.server.identity.server_certificate import renew_server_certificate

    certificate = renew_server_certificate(folder)
    expires = certificate.not_valid_after_utc
    sys.stdout.write(f"The server's certificate is valid until {expires:%Y-%m-%d %H:%M} UTC.\n")
