"""Everything of ``wardround predict``: inputs in batches, what failed beside what did not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wardround
from wardround.client.clinic.inference.inputs import (
    Input,
    find_inputs,
    modality_of,
    names_of,
    read_images,
)
from wardround.client.clinic.inference.prediction import Prediction
from wardround.client.clinic.inference.predictor import Predictor, refusal
from wardround.client.clinic.inference.results import Done, Results
from wardround.client.data.reading.image import Image
from wardround.common.errors import (
    DataError,
    ModelError,
    WardroundError,
    describe_defect,
    is_full_disk,
)
from wardround.common.models.model_folder import CONTRACT

Progress = Callable[[int, int], None]
Watch = Callable[[Input, Sequence[Image], Prediction, bool], None]
"""Is shown an input, its images, what was said of it, and whether the model was made for it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a prediction ended.

    Attributes:
        predicted: Of all inputs, those of an earlier try among them.
        failed: What could not be predicted, and why.
        skipped: How many an earlier try had done.
    """

    predicted: Sequence[Done]
    failed: Sequence[Done]
    skipped: int


@dataclass(frozen=True, slots=True)
class _Ready:
    input: Input
    name: str
    images: tuple[Image, ...]
    outside: tuple[str, ...]


def model_folders(model: Path, others: Sequence[Path], ensemble: bool) -> list[Path]:
    """Return the model folders that a user names.

    Args:
        model: A model folder, or a run folder: its federated model, or all its sites' own.
        others: Further model folders.
        ensemble: Whether to take the models that the sites of a run trained alone.

    Raises:
        ModelError: There is none.
    """
    kept = model / "models"
    if not kept.is_dir():
        if ensemble:
            msg = f"--ensemble takes the sites' models of a run, and {model} is no run folder."
            raise ModelError(msg)
        return [model, *others]
    known = sorted(path.parent for path in kept.glob(f"*/{CONTRACT}"))
    chosen = [
        path
        for path in known
        if (path.name.startswith("local-") if ensemble else path.name == "federated")
    ]
    if not chosen:
        names = ", ".join(path.name for path in known) or "none, for it has not finished"
        msg = f"the run {model} has no such model folder. It has: {names}. Name one: {kept}/NAME."
        raise ModelError(msg)
    return [*chosen, *others]


def predict_all(
    predictor: Predictor,
    given: Sequence[str],
    out: Path,
    options: dict[str, Any],
    progress: Progress,
    watch: Watch | None = None,
) -> Outcome:
    """Predict all that a user names, and write it to a folder.

    What an earlier try has done is not done again; what fails stops nothing else.

    Args:
        options: Those that change what is predicted; ``outside``: "refuse" or "mark".
        progress: Is told how many of how many are done.
        watch: Is shown what is predicted now; None where nobody monitors.

    Raises:
        InputError: An input is not there, or the folder cannot be used.
    """
    inputs = find_inputs(given, predictor.study)
    results = Results(out, _header(predictor, options))
    names = names_of(inputs, results.names)
    skipped = [results.has(one) for one in inputs]
    done = sum(skipped)
    waiting: list[_Ready] = []
    for one, name, skip in zip(inputs, names, skipped, strict=True):
        if skip:
            continue
        ready = _ready(predictor, (one, name), results, options["outside"] == "mark")
        done += 1
        if ready is not None:
            waiting.append(ready)
        if len(waiting) >= predictor.batch_size:
            _predict(predictor, waiting, results, watch)
            waiting = []
            progress(done, len(inputs))
    _predict(predictor, waiting, results, watch)
    progress(len(inputs), len(inputs))
    predicted, failed = results.finish(inputs)
    return Outcome(predicted, failed, sum(skipped))


def _header(predictor: Predictor, options: dict[str, Any]) -> dict[str, Any]:
    return {
        "wardround": wardround.__version__,
        "models": [
            {"name": model.contract.name, "digest": model.digest, "signed_by": model.signed_by}
            for model in predictor.models
        ],
        "study": predictor.study.name,
        "study_digest": predictor.contract.study_digest,
        "classes": list(predictor.study.data.classes),
        "is_calibrated": all(m.contract.temperature is not None for m in predictor.models),
        "calibration": [model.contract.calibration for model in predictor.models],
        "operating_point": predictor.operating_point,
        **options,
    }


def _ready(
    predictor: Predictor, named: tuple[Input, str], results: Results, marks: bool
) -> _Ready | None:
    """Read and check an input; write down why it cannot be predicted."""
    one, name = named
    try:
        images = read_images(one, predictor.study)
        outside = predictor.outside(images, modality_of(one)) if images else ()
        if outside and not marks:
            raise DataError(refusal(outside))
        return _Ready(one, name, images, outside)
    except Exception as error:
        results.add_failure(one, name, _why(error))
        return None


def _predict(
    predictor: Predictor, some: Sequence[_Ready], results: Results, watch: Watch | None
) -> None:
    if not some:
        return
    try:
        given = [(ready.images, ready.input.covariates) for ready in some]
        prepared = predictor.prepare_several(given)
        predictions = predictor.predict_prepared(prepared)
    except Exception as error:
        if len(some) == 1:
            results.add_failure(some[0].input, some[0].name, _why(error))
            return
        for ready in some:  # one of them is at fault; the others are predicted all the same
            _predict(predictor, [ready], results, watch)
        return
    may_lack = bool(predictor.study.data.optional)
    results.add(
        [
            (ready.input, ready.name, prediction, _notes(ready, one.missing if may_lack else None))
            for ready, one, prediction in zip(some, prepared, predictions, strict=True)
        ]
    )
    if watch is not None:
        for ready, prediction in zip(some, predictions, strict=True):
            watch(ready.input, ready.images, prediction, bool(ready.outside))


def _notes(ready: _Ready, missing: Sequence[str] | None) -> dict[str, Sequence[str]]:
    """Return notes on a prediction, by column; None for what the model never lacks."""
    notes: dict[str, Sequence[str]] = {"outside": ready.outside} if ready.outside else {}
    return notes if missing is None else {**notes, "missing": missing}


def _why(error: Exception) -> str:
    if is_full_disk(error):
        raise error
    return str(error) if isinstance(error, WardroundError) else describe_defect(error)
