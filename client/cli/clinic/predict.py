"""``wardround predict``: a model applied to new images."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wardround.common.runtime.command_options import AsJson, Device, Quiet

if TYPE_CHECKING:
    from wardround.client.clinic.inference.predictor import Predictor
    from wardround.client.clinic.inference.work import Outcome

_SOME_FAILED = 1
_SHOWN = 20


def predict(  # noqa: PLR0913 # one argument an option of the command line
    model: Annotated[
        Path,
        typer.Argument(help="A model folder, or a run folder: its federated model."),
    ],
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Pictures, NIfTI files, arrays (set.npz#images), folders of these or of DICOM "
            "series, a manifest (CSV), or pacs:SITE?modality=MR&series=*t1*."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; one that was begun is gone on with.")],
    others: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="MODEL", help="A further model: their mean is predicted."),
    ] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Of a run: the mean of its sites' own models.")
    ] = False,
    tta: Annotated[
        bool,
        typer.Option("--tta", help="Average over views of each image, as training showed them."),
    ] = False,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Say how certain each segmentation is.")
    ] = False,
    outside: Annotated[
        str,
        typer.Option(help="Images that the model was not made for: refuse, or mark and predict."),
    ] = "refuse",
    key: Annotated[
        Path | None,
        typer.Option(help="A public key that must have signed the model.", show_default=False),
    ] = None,
    monitor: Annotated[
        Path | None,
        typer.Option(
            metavar="SITE",
            help="A site folder: count what is predicted now to the period that runs.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Apply a model to new images; 1 if some of them could not be predicted.

    Every task gives predictions.csv and predictions.json: of classes their probabilities, of a
    regression the number. A detection gives boxes.csv too, and a segmentation a mask on the voxels
    of each image, as NIfTI, PNG or .npy. Series of an archive come into OUT/fetched as they are:
    they name patients.

    Example: wardround predict runs/first/models/federated scans/ --out predicted
    """
    from wardround.client.clinic.inference.predictor import load_predictor
    from wardround.client.clinic.inference.work import model_folders, predict_all
    from wardround.common.errors import InputError, known_names
    from wardround.common.security.signing_key import open_public_key

    if outside not in ("refuse", "mark"):
        raise InputError(known_names("value of --outside", outside, ("refuse", "mark")))
    folders = model_folders(model, others or (), ensemble)
    predictor = load_predictor(
        folders,
        device,
        key=None if key is None else open_public_key(key),
        views=tta,
        uncertainty=uncertainty or monitor is not None,
    )
    counted = None
    if monitor is not None:
        from wardround.client.clinic.monitoring.serving import Counted

        counted = Counted(monitor, predictor)
    options = {"tta": tta, "uncertainty": uncertainty, "outside": outside}
    found, not_fetched = _from_archives(inputs, out)
    progress = _progress(quiet or as_json)
    outcome = predict_all(
        predictor, found, out, options, progress, None if counted is None else counted.take
    )
    if counted is not None:
        counted.write()
    _say(outcome, out, as_json, predictor)
    for reason in not_fetched:
        sys.stderr.write(f"not fetched: {reason}\n")
    if outcome.failed or not_fetched:
        raise typer.Exit(_SOME_FAILED)


def _from_archives(inputs: list[str], out: Path) -> tuple[list[str], list[str]]:
    """Return the inputs, with a folder for those that ask an archive, and what did not come."""
    found: list[str] = []
    failed: list[str] = []
    for text in inputs:
        if not text.startswith("pacs:"):
            found.append(text)
            continue
        from wardround.client.clinic.inference.results import FETCHED
        from wardround.client.clinic.pacs.fetching import fetch_asked

        place = out / FETCHED
        failed += fetch_asked(text, place).failed
        found.append(str(place))
    return list(dict.fromkeys(found)), failed


def _progress(quiet: bool) -> Callable[[int, int], None]:
    if quiet or not sys.stderr.isatty():
        return lambda done, total: None

    def show(done: int, total: int) -> None:
        sys.stderr.write(f"\r{done} of {total}" + ("\n" if done == total else ""))
        sys.stderr.flush()

    return show


def _calibration(predictor: "Predictor") -> list[str]:
    """Return whether the probabilities of each model are calibrated; only classes have any."""
    from wardround.common.models.card import calibration_words

    if not predictor.study.task.classifies:
        return []
    return [f"{m.contract.name}: {calibration_words(m.contract)}." for m in predictor.models]


def _say(outcome: "Outcome", out: Path, as_json: bool, predictor: "Predictor") -> None:
    from wardround.common.runtime.printable import printable

    if as_json:
        said = {
            "out": str(out),
            "predicted": len(outcome.predicted),
            "skipped": outcome.skipped,
            "calibration": _calibration(predictor),
            "lacking": sum(bool(one.content.get("missing")) for one in outcome.predicted),
            "failed": [{"input": d.input, "reason": d.failure} for d in outcome.failed],
        }
        sys.stdout.write(json.dumps(said) + "\n")
        return
    before = f", {outcome.skipped} of them before" if outcome.skipped else ""
    sys.stdout.write(f"Predicted {len(outcome.predicted)}{before}: {out / 'predictions.csv'}\n")
    for sentence in _calibration(predictor):
        sys.stdout.write(f"{printable(sentence)}\n")
    if lacking := sum(bool(one.content.get("missing")) for one in outcome.predicted):
        sys.stdout.write(f"{lacking} lack an optional part: see the column missing.\n")
    sys.stdout.write("Not for diagnosis.\n")
    for done in outcome.failed[:_SHOWN]:
        sys.stdout.write(f"Not predicted: {printable(done.input)}: {printable(done.failure)}\n")
    if len(outcome.failed) > _SHOWN:
        sys.stdout.write(f"{len(outcome.failed) - _SHOWN} more: {out / 'failed.csv'}\n")
