"""``wardround data``: public data sets, listed, shown and fetched."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from wardround.common.runtime.command_options import AsJson
from wardround.simulations.cli.options import Changes, DataRoot

data_app = typer.Typer(
    help="Public data sets, ready to be split into sites.",
    no_args_is_help=True,
    suggest_commands=False,
)


@data_app.command("list")
def list_data(as_json: AsJson = False) -> None:
    """List the data sets, with task and licence.

    Example: wardround data list
    """
    from dataclasses import asdict

    from wardround.simulations.datasets.catalogue import describe_datasets

    summaries = describe_datasets()
    if as_json:
        sys.stdout.write(json.dumps([asdict(s) for s in summaries], indent=2) + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "what it is", "task", "licence")
    for summary in summaries:
        table.add_row(summary.name, summary.title, summary.task, summary.licence)
    Console().print(table)


@data_app.command("show")
def show_data(
    name: Annotated[
        str,
        typer.Argument(help="A data set, or a study whose data set is shown.", show_default=False),
    ],
    as_json: AsJson = False,
) -> None:
    """Show everything known about a data set: licence, citation, options.

    Example: wardround data show ham10000
    """
    from rich.console import Console
    from rich.table import Table

    from wardround.simulations.datasets.catalogue import DATASETS, dataset_facts

    facts = dataset_facts(name if name in DATASETS else _data_of(name))
    if as_json:
        options = {key[7:]: text for key, text in facts.items() if key.startswith("option ")}
        known = {key: text for key, text in facts.items() if not key.startswith("option ")}
        sys.stdout.write(json.dumps({**known, "options": options}, indent=2) + "\n")
        return
    table = Table(show_header=False, box=None)
    for key, value in facts.items():
        table.add_row(key, value)
    Console().print(table)


def _data_of(study: str) -> str:
    """Return the data set of a study; the name itself where it is no study's either."""
    from wardround.common.errors import InputError, known_names
    from wardround.simulations.datasets.catalogue import DATASETS
    from wardround.simulations.studies import built_in_names, find_study

    if study in built_in_names() or Path(study).is_file():
        return find_study(study).simulation.data
    names = {*DATASETS, *built_in_names()}
    raise InputError(known_names("data set or study", study, names))


@data_app.command("get")
def get_data(
    study: Annotated[str, typer.Argument(help="A study file or built-in study.")],
    data_root: DataRoot = None,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Fetch (or find) the data set of a study and check that it serves it.

    Example: wardround data get pneumonia-xray
    """
    from wardround.simulations.cli.simulate import Options, run_get

    run_get(Options(study=study, data_root=data_root, changes=tuple(changes or ())), as_json)


@data_app.command("landmarks")
def make_landmarks(
    study: Annotated[str, typer.Argument(help="A study file or built-in study.")],
    image: Annotated[
        list[Path] | None,
        typer.Option(help="A public image instead of the study's data set.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the study with them; a new file.")] = None,
    data_root: DataRoot = None,
    changes: Changes = None,
) -> None:
    """Take the grey values that images are matched to from a public reference.

    Nothing is asked of a hospital: the numbers stand in the study, and each site moves its own
    images there.

    Example: wardround data landmarks brain-tissue --out alike.toml
    """
    from wardround.simulations.cli.simulate import Options, resolve_study
    from wardround.simulations.sites.landmarks import (
        landmarks_of_data,
        landmarks_of_files,
        write_landmarks,
    )

    chosen = resolve_study(Options(study=study, data_root=data_root, changes=tuple(changes or ())))
    found = landmarks_of_files(chosen, image) if image else landmarks_of_data(chosen, data_root)
    sys.stdout.write(write_landmarks(found, out))
