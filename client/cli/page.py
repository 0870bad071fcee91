"""``wardround site page``: what happens at this hospital, in a browser of its own machine."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def page(
    site: Annotated[Path, typer.Argument(help="A site folder.", show_default=False)],
    port: Annotated[int, typer.Option(help="Of this machine; 0 takes a free one.")] = 0,
    allow_decisions: Annotated[
        bool,
        typer.Option(
            "--allow-decisions", help="Approve and reject studies on it; else it only reads."
        ),
    ] = False,
) -> None:
    """Serve a page of this site to this machine's browsers, until Ctrl-C.

    It shows what was asked, what left, what privacy is spent and what the daemon is at, also while
    none runs. Whoever has the link reads it: it is not for others.

    Example: wardround site page /data/wardround/north
    """
    from wardround.client.page.serving import serve_site_page
    from wardround.common.files.account import shown, started_as_owner

    def tell(link: str) -> None:
        sys.stdout.write(f"Open {link}\nCtrl-C ends the page.\n")
        sys.stdout.flush()

    with started_as_owner(site, shown("wardround", "site", "page", site)):
        serve_site_page(site, port, allow_decisions, tell)
