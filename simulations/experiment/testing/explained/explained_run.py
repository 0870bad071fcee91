"""``wardround explain-predictions``: the predictions of a run's model explained, site by site."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.clinic.explanations.attribution import ExplanationError
from wardround.client.clinic.explanations.methods import choose_method
from wardround.client.session.model_context import ModelContext
from wardround.common.errors import InputError, ModelError, known_names
from wardround.common.study.loading import load_study
from wardround.common.study.study import Study
from wardround.server.checkpoints.store import CheckpointStore
from wardround.simulations.experiment.testing.explained.explaining import (
    Explained,
    Explainers,
    explain_site,
    names_alone,
    nearest_round,
)
from wardround.simulations.experiment.testing.explained.uncertain import Doubted, doubt_site
from wardround.simulations.experiment.training import TrainedModel, load_trained
from wardround.simulations.run_files.explanations import (
    FOLDER,
    ExplanationRow,
    Maps,
    UncertaintyRow,
    write_explanations,
)
from wardround.simulations.run_files.folder import FEDERATED, local_model


@dataclass(frozen=True, slots=True)
class ExplanationRequest:
    """What a user asks for.

    Attributes:
        method: None for the usual one of the study's task.
        cases: How many test examinations a site; 0 takes all.
        site: Only this one's; None for every site's.
        model: Whose predictions.
        masks: A folder or a column of the manifest; None for the column ``lesion_mask``.
    """

    run: Path
    method: str | None = None
    cases: int = 8
    site: str | None = None
    model: str = FEDERATED
    masks: str | None = None


Rows = Sequence[ExplanationRow] | Sequence[UncertaintyRow]


def explain_run(request: ExplanationRequest) -> tuple[str, Rows]:
    """Explain predictions of a run's model; the run folder keeps maps and scores.

    Returns:
        The method, and a row an examination.

    Raises:
        InputError: The run, the site, the model, the method or the masks are not there, or the
            method does not fit.
    """
    run = request.run
    if not (run / "run.json").is_file():
        msg = f"{run} holds no run: give the folder that 'wardround simulate --out' wrote."
        raise InputError(msg)
    study = load_study(run / "study.toml")
    method = choose_method(request.method, study)
    folders = _folders(run, request.site)
    explainers = _explainers(request, method, study)
    context = ModelContext.build(study, "cpu")
    if context.plan.objective == "fine-tune":
        msg = (
            "the study trains the federated model on at each site before each test, and no file "
            "holds what that gave: explain a run of another strategy."
        )
        raise ExplanationError(msg)
    context.network.eval()
    if context.layout.personal:  # what a site kept of another round is gone
        explainers = replace(explainers, earlier=None)
    if study.task.dense:
        doubted = [
            one
            for folder in folders
            for one in doubt_site(folder, context, explainers, request.cases)
        ]
        rows: Rows = [one.row for one in doubted]
        write_explanations(run, method, rows, (), _maps(doubted))
        return method, rows
    explained = [
        one
        for folder in folders
        for one in explain_site(folder, context, explainers, request.cases, request.masks)
    ]
    rows = [one.row for one in explained]
    features = [feature for one in explained for feature in one.features]
    write_explanations(run, method, rows, features, _maps(explained))
    return method, rows


def explanation_folder(run: Path) -> Path:
    """Return where the maps of a run lie."""
    return run / FOLDER


def _folders(run: Path, site: str | None) -> list[Path]:
    folders = {path.name: path for path in sorted((run / "sites").glob("*")) if path.is_dir()}
    if site is None:
        return list(folders.values())
    if site not in folders:
        raise InputError(known_names("site", site, folders))
    return [folders[site]]


def _explainers(request: ExplanationRequest, method: str, study: Study) -> Explainers:
    run, known = request.run, _finished_models(request.run)
    if not known:
        msg = (
            f"{run} holds no finished model: give the folder of a run that has ended, or go on "
            "with it by wardround simulate --resume."
        )
        raise ModelError(msg)
    if request.model not in known:
        raise ModelError(known_names("model", request.model, known))
    model = load_trained(run, request.model)
    if model is None:
        raise ModelError(known_names("model", request.model, known))
    alone = [load_trained(run, name) for name in names_alone(_folders(run, None)) if name in known]
    return Explainers(
        method, model, tuple(one for one in alone if one is not None), _earlier(run, model, study)
    )


def _finished_models(run: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (run / "models").glob("*.safetensors")))


def _earlier(run: Path, model: TrainedModel, study: Study) -> TrainedModel | None:
    """Return the model after the nearest other round that the run has kept."""
    if study.task.dense or model.name.startswith(local_model("")):
        return None
    folder = run / "checkpoints" / model.name
    rounds = [
        int(path.name.removeprefix("round-"))
        for path in folder.glob("round-*")
        if path.name.removeprefix("round-").isdecimal()
    ]
    number = nearest_round(model, rounds)
    if number is None:
        return None
    stored = CheckpointStore(folder, durable=False).load(number)
    return TrainedModel(model.name, model.run, number, stored.evaluated)


def _maps(found: Sequence[Explained] | Sequence[Doubted]) -> Maps | None:
    """Return the pictures, padded to one size."""
    kept = [(one.row, one.picture) for one in found if one.picture is not None]
    if not kept:
        return None
    height = max(picture[0].shape[0] for _, picture in kept)
    width = max(picture[0].shape[1] for _, picture in kept)

    def padded(part: int) -> NDArray[Any]:
        return np.stack([_padded(picture[part], height, width) for _, picture in kept])

    return Maps(
        images=padded(0),
        maps=padded(1),
        masks=padded(2),
        site=np.array([row.site for row, _ in kept]),
        case=np.array([row.case for row, _ in kept], dtype=np.int64),
        class_name=np.array([getattr(row, "class_name", "") for row, _ in kept]),
    )


def _padded(array: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    missing = [(0, height - array.shape[0]), (0, width - array.shape[1])]
    return np.pad(array, missing + [(0, 0)] * (array.ndim - 2))
