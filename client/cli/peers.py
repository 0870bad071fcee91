"""``wardround site peers``: whose signatures count where this site masks its updates."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from wardround.common.runtime.command_options import AsJson

peers_app = typer.Typer(
    help="The other sites' public keys, for studies that mask their updates.",
    no_args_is_help=True,
    suggest_commands=False,
)
SiteFolder = Annotated[Path, typer.Argument(help="A site folder.", show_default=False)]
SiteOption = Annotated[Path, typer.Option("--site", help="The site folder.", show_default=False)]


@peers_app.command("export")
def export_key(
    site: SiteFolder,
    out: Annotated[
        Path | None,
        typer.Option(help="A file for it; standard output otherwise.", show_default=False),
    ] = None,
) -> None:
    """Write this site's public key for the others, and say the words to read to them.

    Nothing in it is secret: it may go by mail, or over the server.

    Example: wardround site peers export north --out north.peer
    """
    from wardround.client.site.folder import open_site
    from wardround.client.site.peers import own_card
    from wardround.common.security.peer_card import write_card

    card, key = own_card(open_site(site))
    if out is None:
        sys.stdout.write(card.signed(key))
    else:
        write_card(out, card.signed(key))
        sys.stdout.write(f"{out}\n")
    sys.stderr.write(f"Read these words to each other site by telephone: {card.words}\n")


@peers_app.command("import")
def import_key(
    card: Annotated[Path, typer.Argument(help="What the other site exported.", show_default=False)],
    site: SiteOption,
    words: Annotated[
        str,
        typer.Option(help="What a person there read out; asked for otherwise.", show_default=False),
    ] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="The other site has a new key.")
    ] = False,
) -> None:
    """Take in another site's public key, after its words were heard from a person there.

    Call a number that you knew before: whose key stands in this list can be that site.

    Example: wardround site peers import south.peer --site north
    """
    from wardround.client.site.folder import open_site
    from wardround.client.site.peers import is_known, take_in
    from wardround.common.errors import InputError
    from wardround.common.runtime.printable import write_lines
    from wardround.common.security.peer_card import read_card

    opened, other = open_site(site), read_card(card)
    if is_known(opened, other, replace):
        write_lines(f"{other.site} is known with this key already.\n")
        return
    try:
        heard = words or str(typer.prompt(f"The words that {other.site} reads out", err=True))
    except typer.Abort:
        if sys.stdin.isatty():  # Ctrl-C, or Ctrl-D
            raise
        msg = f"nobody can be asked for the words that {other.site} reads out: give --words."
        raise InputError(msg) from None
    take_in(opened, other, heard, replace)
    write_lines(f"{opened.name} knows {other.site}.\n")


@peers_app.command("list")
def list_keys(site: SiteFolder, as_json: AsJson = False) -> None:
    """List this site and those that it knows, with the words of their keys.

    Example: wardround site peers list north
    """
    from wardround.client.site.folder import open_site
    from wardround.client.site.peers import own_card, peers_of
    from wardround.common.runtime.printable import write_lines

    opened = open_site(site)
    own, others = own_card(opened)[0], peers_of(opened)
    if as_json:
        said = [one.facts(is_own=one is own) for one in (own, *others)]
        sys.stdout.write(json.dumps(said, indent=2) + "\n")
        return
    write_lines(f"{own.site} (this site): {own.words}\n")
    for one in others:
        write_lines(f"{one.site}: {one.words}\n")


@peers_app.command("remove")
def remove_key(
    name: Annotated[str, typer.Argument(help="The other site's name.", show_default=False)],
    site: SiteOption,
) -> None:
    """Forget another site's key: nothing is masked together with it any longer.

    Example: wardround site peers remove south --site north
    """
    from wardround.client.site.folder import open_site
    from wardround.client.site.peers import forget
    from wardround.common.runtime.printable import write_lines

    opened = open_site(site)
    forget(opened, name)
    write_lines(f"{opened.name} no longer knows {name}.\n")
