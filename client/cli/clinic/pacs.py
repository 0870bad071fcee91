"""``wardround site pacs``: the picture archive, asked by hand."""

import json
from pathlib import Path
from typing import Annotated

import typer

from wardround.common.runtime.command_options import AsJson

pacs_app = typer.Typer(
    help="The picture archive that pacs.toml names.", no_args_is_help=True, suggest_commands=False
)
SiteFolder = Annotated[Path, typer.Argument(help="A site folder.", show_default=False)]


@pacs_app.command("test")
def ask_archive(
    site: SiteFolder,
    as_json: AsJson = False,
) -> None:
    """Ask the archive whether it is there and lets this site search; nothing is read from it.

    2 if pacs.toml cannot be used, 3 if the archive is away or refuses.

    Example: wardround site pacs test /data/wardround/north
    """
    from wardround.client.clinic.pacs.archive import open_archive
    from wardround.client.site.folder import open_site
    from wardround.common.runtime.printable import write_lines

    archive = open_archive(open_site(site).folder)
    archive.ping()
    if as_json:
        said = {"archive": archive.name, "answers": True}
        write_lines(json.dumps(said) + "\n")
        return
    write_lines(f"{archive.name[:1].upper()}{archive.name[1:]} answers and lets this site in.\n")


@pacs_app.command("fetch")
def fetch_series(  # noqa: PLR0913 # one argument an option of the command line
    site: SiteFolder,
    out: Annotated[Path, typer.Option(help="Folder to write; what is there is not fetched anew.")],
    study: Annotated[str, typer.Option(help="Study Instance UID.")] = "",
    modality: Annotated[str, typer.Option(help="Of the series, e.g. MR.")] = "",
    study_description: Annotated[str, typer.Option(help="A pattern with * and ?.")] = "",
    series_description: Annotated[str, typer.Option(help="A pattern with * and ?.")] = "*",
    date_from: Annotated[str, typer.Option("--from", help="First day, YYYYMMDD.")] = "",
    date_to: Annotated[str, typer.Option("--to", help="Last day, YYYYMMDD.")] = "",
) -> None:
    """Fetch series into a folder each, as they are: they name patients. 1 if some did not come.

    Example: wardround site pacs fetch /data/wardround/north --modality MR --from 20260901 --out new
    """
    from wardround.client.clinic.pacs.archive import open_archive
    from wardround.client.clinic.pacs.fetching import fetch_all, query_of
    from wardround.client.site.folder import open_site
    from wardround.common.runtime.printable import write_lines

    query = query_of(study, modality, study_description, (date_from, date_to))
    archive = open_archive(open_site(site).folder)
    fetched = fetch_all(archive, query, series_description, out)
    lines = [f"Fetched {fetched.new} series into {out}; {fetched.held} were there."]
    lines += [f"not fetched: {reason}" for reason in fetched.failed]
    write_lines("\n".join(lines) + "\n")
    if fetched.failed:
        raise typer.Exit(1)
