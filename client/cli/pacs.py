"""``wardround site pacs``: is the picture archive there, and does it let this site in?"""

import sys
from pathlib import Path
from typing import Annotated

import typer

pacs_app = typer.Typer(help="The picture archive that pacs.toml names.", no_args_is_help=True)
SiteFolder = Annotated[Path, typer.Argument(help="A site folder.", show_default=False)]


@pacs_app.command("test")
def test_archive(site: SiteFolder) -> None:
    """Ask the archive whether it is there and lets this site search; nothing is read from it.

    2 if pacs.toml cannot be used, 3 if the archive is away or refuses.

    Example: wardround site pacs test /data/wardround/north
    """
    from wardround.client.clinic.pacs.archive import open_archive
    from wardround.client.site.folder import open_site
    from wardround.common.runtime.printable import write_lines

    archive = open_archive(open_site(site).folder)
    archive.ping()
    write_lines(f"{archive.name[:1].upper()}{archive.name[1:]} answers and lets this site in.\n")
    sys.stdout.flush()
