"""Options that several of the researcher's commands have."""

from pathlib import Path
from typing import Annotated

import typer

StudyName = Annotated[
    str,
    typer.Argument(metavar="[STUDY|NAME]", help="A study file, or the name of a built-in study."),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder that holds the data sets (else WARDROUND_DATA).", show_default=False),
]
RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe", metavar="NAME", help="Of a built-in study: fast, default or best; see the docs."
    ),
]
Sites = Annotated[int | None, typer.Option(help="How many sites.", show_default=False)]
SplitRule = Annotated[
    str | None,
    typer.Option("--split", help="natural, iid, dirichlet, quantity, one-large or classes."),
]
Seed = Annotated[int | None, typer.Option(help="Seed of weights, split and order.")]
Assigned = Annotated[Path | None, typer.Option(help="A saved split (assignment.csv) to use again.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key, e.g. training.batch_size=16."),
]
Privacy = Annotated[
    str | None,
    typer.Option(
        metavar="KEY=VALUE,...",
        help="Protect each patient: epsilon=8, or more keys of a study's [privacy].",
        show_default=False,
    ),
]
Out = Annotated[Path | None, typer.Option(help="Folder to write; must be new.")]
SkipUnreadable = Annotated[
    bool, typer.Option("--skip-unreadable", help="Leave unreadable images out, and say so.")
]
RayAddress = Annotated[
    str | None,
    typer.Option(help="Engine ray: a running cluster, else one is started.", show_default=False),
]
RayCpus = Annotated[float, typer.Option(help="Engine ray: CPUs of one site's work.")]
RayGpus = Annotated[
    float | None,
    typer.Option(help="Engine ray: GPUs of one site's work, e.g. 0.25.", show_default=False),
]
UserFilePath = Annotated[
    Path | None,
    typer.Option(
        "--track",
        metavar="FILE",
        help="Your own file of trackers, else ~/.config/wardround/user.toml if it is there.",
        show_default=False,
    ),
]
