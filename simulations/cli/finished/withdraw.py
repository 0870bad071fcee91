"""``wardround withdraw FOLDER --site SITE``: a run repeated without a site, or patients."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wardround.common.runtime.command_options import AsJson
from wardround.simulations.cli.options import Out


def withdraw(  # noqa: PLR0913 # one argument an option of the command line
    run: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A run folder.", show_default=False)
    ],
    site: Annotated[str, typer.Option(help="The site that leaves.", show_default=False)],
    patients: Annotated[
        Path | None,
        typer.Option(
            help="Not the site leaves, but these patients of it: one identifier a line.",
            show_default=False,
        ),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be done, and end.")] = False,
    out: Out = None,
    engine: Annotated[str, typer.Option(help="As of simulate.")] = "auto",
    threads: Annotated[int, typer.Option(help="As of simulate.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Repeat a run without a site, from the last commit before its first number came in.

    It is said first what is kept, what is repeated, and what that costs. The repeat is a run folder
    of its own, with a signed certificate; killed or stopped, the same command goes on.

    Example: wardround withdraw runs/first --site hospital-3 --out runs/without
    """
    from wardround.client.data.manifest.parts.forgetting import read_identifiers
    from wardround.common.models.documents.withdrawn import certificate_words
    from wardround.common.runtime.printable import write_lines
    from wardround.common.security.withdrawal.certificate import CERTIFICATE_FILE
    from wardround.simulations.cli.progress import watching
    from wardround.simulations.experiment.federation import Machine
    from wardround.simulations.experiment.withdrawal import (
        WithdrawalRequested,
        plan_of_run,
    )
    from wardround.simulations.experiment.withdrawal import withdraw as repeat

    machine = Machine(engine=engine, threads=threads)
    machine.check()
    gone = () if patients is None else read_identifiers(patients)
    place = out or run.with_name(f"{run.name}-without-{site}")
    command = ("wardround", *sys.argv[1:])
    asked = WithdrawalRequested(run, site, place, gone, machine, command)
    planned = plan_of_run(asked)
    if not as_json:
        write_lines("\n".join(planned.words()) + "\n")
    if plan:
        if as_json:
            sys.stdout.write(json.dumps(asdict(planned)) + "\n")
        return
    with watching(quiet=as_json) as watch:
        found = repeat(asked, watch)
    certificate = place / CERTIFICATE_FILE
    if as_json:
        said = {**asdict(planned), "run": str(place), "certificate": str(certificate)}
        sys.stdout.write(json.dumps({**said, "model": found.said.model}) + "\n")
        return
    write_lines("\n".join(certificate_words(found)) + f"\nCertificate: {certificate}\n")
