"""``wardround runs promote``, ``rollback`` and ``promoted``: which model of a line is in use."""

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardround.common.runtime.command_options import AsJson
from wardround.server.cli.operators import Identity, ServerOfRun

if TYPE_CHECKING:
    from wardround.common.models.model_folder import ModelFolder
    from wardround.server.checkpoints.promotions import Placed, Shelf, SiteFall

ShelfFolder = Annotated[
    Path, typer.Option("--shelf", help="The folder of the models in use.", show_default=False)
]


def promote(
    run: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|RUN",
            help="A run folder of a simulation, or with --server the name of a run.",
            show_default=False,
        ),
    ],
    shelf: ShelfFolder,
    server: ServerOfRun = None,
    identity: Identity = None,
    as_json: AsJson = False,
) -> None:
    """Put a run's model into use, unless a site falls beyond its margin by it.

    Example: wardround runs promote runs/second --shelf models-in-use
    """
    from wardround.common.runtime.printable import write_lines
    from wardround.server.checkpoints.promotions import Shelf

    with tempfile.TemporaryDirectory() as aside:
        model, falls = _judged(run, server, identity, Path(aside))
        held = Shelf(shelf)
        placed = held.promote(model, falls)
    if as_json:
        _print(placed, held)
        return
    lines = "".join(f"  {one.words()}\n" for one in placed.falls)
    write_lines(f"{lines}In use: {held.model_path(placed.model)}\n")


def rollback(shelf: ShelfFolder, as_json: AsJson = False) -> None:
    """Put the model into use again that was before the present one; the record says so.

    Example: wardround runs rollback --shelf models-in-use
    """
    from wardround.server.checkpoints.promotions import Shelf

    held = Shelf(shelf)
    placed = held.roll_back()
    if as_json:
        _print(placed, held)
        return
    sys.stdout.write(f"In use again: {held.model_path(placed.model)}\n")


def promoted(shelf: ShelfFolder, as_json: AsJson = False) -> None:
    """Say which model is in use, and which ever were.

    Example: wardround runs promoted --shelf models-in-use
    """
    from wardround.server.checkpoints.promotions import Shelf

    if not shelf.exists():
        from wardround.common.errors import InputError

        msg = f"there is no shelf {shelf}: mend the name; 'wardround runs promote' makes one."
        raise InputError(msg)
    held = Shelf(shelf)
    record = held.record()
    if as_json:
        said = [_said(placed, held) for placed in record]
        sys.stdout.write(json.dumps(said) + "\n")
        return
    if not record:
        sys.stdout.write("No model is in use.\n")
        return
    for placed in record:
        sys.stdout.write(f"{placed.time} {placed.kind} {placed.model[:16]}\n")
    sys.stdout.write(f"In use: {held.model_path(record[-1].model)}\n")


def _judged(
    run: str, server: str | None, identity: Path | None, aside: Path
) -> "tuple[ModelFolder, tuple[SiteFall, ...]]":
    from wardround.commands.continue_study import model_of
    from wardround.simulations.evidence.waves import falls_of
    from wardround.simulations.run_files.waves import read_waves

    folder = Path(run)
    model = model_of(run, server, identity, aside)
    if server is not None and not folder.is_dir():
        return model, _measured_at_server(run, server, identity, model)
    return model, falls_of(read_waves(folder), model.study)


def _measured_at_server(
    run: str, server: str, identity: Path | None, model: "ModelFolder"
) -> "tuple[SiteFall, ...]":
    from wardround.server.cli.operators import line_to
    from wardround.server.operators.report.falls import falls_at_server

    with line_to(server, identity) as line:
        record = line.record(run)
    return falls_at_server(record, model.study, model.contract.round)


def _said(placed: "Placed", held: "Shelf") -> dict[str, object]:
    return {**asdict(placed), "folder": str(held.model_path(placed.model))}


def _print(placed: "Placed", held: "Shelf") -> None:
    sys.stdout.write(json.dumps(_said(placed, held)) + "\n")
