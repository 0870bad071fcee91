"""``wardround server peers``: by whose keys the server tells sites' masked messages from others'.

What stands in the server's list has no part in what a site believes, so no words are asked for.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from wardround.common.runtime.command_options import AsJson

peers_app = typer.Typer(
    help="The sites' public keys, for studies that mask their updates.",
    no_args_is_help=True,
    suggest_commands=False,
)
ServerOption = Annotated[Path, typer.Option("--server", help="The server folder.")]
_HERE = Path()


@peers_app.command("import")
def import_keys(
    cards: Annotated[
        list[Path], typer.Argument(help="What the sites exported.", show_default=False)
    ],
    server: ServerOption = _HERE,
    replace: Annotated[bool, typer.Option("--replace", help="A site has a new key.")] = False,
) -> None:
    """Take in the sites' public keys; a study that masks is refused where there are none.

    Example: wardround server peers import north.peer south.peer --server /srv/wardround
    """
    from wardround.common.runtime.printable import write_lines
    from wardround.common.security.peer_card import read_card
    from wardround.common.security.peers import add_peer, known_peers, require_new
    from wardround.server.settings import open_server

    folder = open_server(server).folder
    for card in [read_card(path) for path in cards]:
        is_new = require_new(known_peers(folder), card, None, replace)
        if is_new:
            add_peer(folder, card)
        write_lines(f"{card.site}: {card.words}{'' if is_new else ' (known already)'}\n")


@peers_app.command("list")
def list_keys(
    server: ServerOption = _HERE,
    as_json: AsJson = False,
) -> None:
    """List the sites whose keys the server knows, with their words.

    Example: wardround server peers list --server /srv/wardround
    """
    from wardround.common.runtime.printable import write_lines
    from wardround.common.security.peer_card import PeerCard
    from wardround.common.security.peers import known_peers
    from wardround.server.settings import open_server

    known = known_peers(open_server(server).folder)
    found = [PeerCard(name, key) for name, key in sorted(known.items())]
    if as_json:
        sys.stdout.write(json.dumps([one.facts() for one in found], indent=2) + "\n")
        return
    for one in found:
        write_lines(f"{one.site}: {one.words}\n")
    if not found:
        write_lines("No site's key was taken in: 'wardround server peers import' does it.\n")


@peers_app.command("remove")
def remove_key(
    name: Annotated[str, typer.Argument(help="The site's name.", show_default=False)],
    server: ServerOption = _HERE,
) -> None:
    """Forget a site's key.

    Example: wardround server peers remove north --server /srv/wardround
    """
    from wardround.common.runtime.printable import write_lines
    from wardround.common.security.peers import remove_peer
    from wardround.server.settings import open_server

    remove_peer(open_server(server).folder, name)
    write_lines(f"The server no longer knows {name}.\n")
