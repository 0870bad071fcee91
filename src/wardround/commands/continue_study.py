"""``wardround study continue``: a new study that goes on from a finished one with new data."""

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardround.common.runtime.command_options import AsJson
from wardround.server.cli.operators import Identity, ServerOfRun
from wardround.simulations.cli.options import Changes

if TYPE_CHECKING:
    from wardround.common.models.model_folder import ModelFolder
    from wardround.common.study.study import Study


def continue_study(  # noqa: PLR0913 # one argument an option of the command line
    run: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|RUN",
            help="A run folder, a model folder, or with --server the name of a run.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The study file to write; must be new.")],
    method: Annotated[
        str | None, typer.Option(help="What keeps what was learnt: replay, ewc, lwf or none.")
    ] = None,
    replay: Annotated[
        float | None, typer.Option(help="Share of each batch that is of old rows.")
    ] = None,
    wave: Annotated[
        int | None, typer.Option(help="Of the new rows; the parent's and one by default.")
    ] = None,
    add_class: Annotated[
        list[str] | None, typer.Option(help="A class that comes to the parent's; may be repeated.")
    ] = None,
    warmup: Annotated[
        float, typer.Option(help="Share of the study in which the learning rate rises again.")
    ] = 0.1,
    changes: Changes = None,
    server: ServerOfRun = None,
    identity: Identity = None,
    as_json: AsJson = False,
) -> None:
    """Write a study that goes on from a finished run, with data that came since.

    It names its parent and that model's hash, has a digest of its own, and is approved anew. It is
    refused where the run has no model, a change does not fit, or the file is there already.

    Example: wardround study continue runs/first --out second.toml
    """
    from wardround.common.errors import InputError
    from wardround.common.files.atomic import BY_UMASK, replace_file
    from wardround.common.models.parent import Continuation, continued
    from wardround.common.models.pretrained import offer_weights, start_of
    from wardround.simulations.cli.simulate import parse_change

    if out.exists():
        msg = f"{out} exists already: choose another name."
        raise InputError(msg)
    with tempfile.TemporaryDirectory() as aside:
        model = model_of(run, server, identity, Path(aside))
        asked: dict[str, object] = {"training.warmup": warmup}
        asked |= {"continual.method": method} if method is not None else {}
        asked |= {"continual.replay": replay} if replay is not None else {}
        asked |= _beside(Path(run), out, model)
        asked |= dict(parse_change(text) for text in changes or ())
        continuation = Continuation(asked, wave, tuple(add_class or ()))
        study = continued(model, continuation, offer_weights(model))
        parent = model.study
    start = start_of(study)
    try:
        replace_file(out, file_text(study), BY_UMASK)
    except OSError as error:
        msg = f"cannot write {out} ({error.strerror}): choose another place."
        raise InputError(msg) from None
    taken = "" if start is None else f"{start.words()}."
    if as_json:
        sys.stdout.write(json.dumps(_as_json(study, parent, out)) + "\n")
        return
    sys.stdout.write("".join(f"{line}\n" for line in (*_told(study, parent, out), taken) if line))


def _as_json(study: "Study", parent: "Study", out: Path) -> dict[str, object]:
    held = study.continual
    return {
        "study": study.name,
        "digest": study.digest,
        "parent": parent.digest,
        "model": None if held is None else held.model,
        "wave": None if held is None else held.wave,
        "file": str(out),
    }


def _told(study: "Study", parent: "Study", out: Path) -> tuple[str, ...]:
    held = study.continual
    wave = 1 if held is None else held.wave
    spends = (
        "What it spends of the patients' privacy adds to what the parent spent, in each "
        "hospital's own ledger."
        if study.privacy.mode == "patient"
        else ""
    )
    return (
        f"Wrote {out}: {study.name} goes on from {parent.name}.",
        f"parent {parent.digest}",
        f"digest {study.digest}",
        "This digest is another one: each hospital approves the study anew.",
        "A manifest's rows with 1 or nothing in the column wave are new, and none is old."
        if wave == 1
        else f"A manifest's rows with {wave} in the column wave are new, those with less, or "
        "nothing, old.",
        spends,
    )


def model_of(run: str, server: str | None, identity: Path | None, aside: Path) -> "ModelFolder":
    """Return the finished model of a run.

    Raises:
        InputError: There is none.
    """
    from wardround.common.errors import InputError
    from wardround.common.models.model_folder import is_model_folder, open_model_folder
    from wardround.simulations.run_files.folder import FEDERATED

    folder = Path(run)
    if server is not None and not folder.is_dir():
        from wardround.server.cli.operators import line_to
        from wardround.server.operators.run_model import write_model

        with line_to(server, identity) as line:
            write_model(line.model(run), line.record(run), aside / "model")
        return open_model_folder(aside / "model")
    if is_model_folder(folder):
        return open_model_folder(folder)
    if is_model_folder(folder / "models" / FEDERATED):
        return open_model_folder(folder / "models" / FEDERATED)
    if (folder / "run.json").exists():
        msg = (
            f"the run {folder} has no federated model that a study could go on from: it was not "
            "finished (go on with 'wardround simulate --resume'), it pretrained nothing, or each "
            "of its sites keeps a part of the model."
        )
        raise InputError(msg)
    msg = (
        f"{run} is no run folder and no model folder: give the folder that 'wardround simulate "
        "--out' wrote, one of 'wardround runs model', or a run's name with --server."
    )
    raise InputError(msg)


def _beside(folder: Path, out: Path, model: "ModelFolder") -> dict[str, object]:
    """Return the simulation of a run folder, and where that lies from the new study file.

    Raises:
        InputError: The run's study is not the one that its model was made by.
    """
    import os

    from wardround.common.errors import InputError
    from wardround.common.study.loading import load_study

    file = folder / "study.toml"
    if not (folder / "run.json").exists() or not file.exists():
        return {}
    study = load_study(file)
    if study.digest != model.study.digest:
        msg = (
            f"{file} was changed after the run, and its model is of the study that it was: put "
            "the file back."
        )
        raise InputError(msg)
    said = study.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    found = {f"simulation.{key}": value for key, value in said.get("simulation", {}).items()}
    return {**found, "simulation.parent": os.path.relpath(folder, out.parent)}


def file_text(study: "Study") -> str:
    """Return a study as a file that says what it changes, and no default."""
    import tomli_w

    content = study.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return tomli_w.dumps(content)
