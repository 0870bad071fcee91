"""A finished model of a run, or of a file, as a network that predicts."""

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from torch import nn

from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import open_site
from wardround.client.site.state import SiteState
from wardround.common.errors import InputError, ModelError, known_names
from wardround.common.files.usable_path import usable_path
from wardround.common.models.model_folder import is_model_folder
from wardround.common.parameters.model_file import SavedModel
from wardround.common.parameters.model_file import load_model as read_model_file
from wardround.common.parameters.schema import (
    Parameters,
    check_schema,
    read_parameters,
    schema,
    write_parameters,
)
from wardround.common.study.study import Study as AnyStudy
from wardround.common.study.variants import plain
from wardround.simulations.notebook.studies import Study, for_notebook, load_study
from wardround.simulations.run_files.folder import FEDERATED, UNPROTECTED

_SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model with what is needed to use it.

    Attributes:
        network: In evaluation mode, on the device asked for. It takes images ``(B, planes,
            *spatial)``, covariates ``(B, F)``, or both in this order, prepared as the study says,
            and returns logits ``(B, K)``, or ``(B, K, *spatial)`` for a segmentation.
        class_names: The K classes, in the order of the logits.
        study: What the network was trained for.
        name: Of the model: ``federated``, ``pooled``, ``local-SITE``, or the file's own.
        round: The round that the weights are from; 0 where the file does not say.
        folder: The same model as a folder, which knows what its training images looked like; None
            where there is none.
    """

    network: nn.Module = field(repr=False)
    class_names: tuple[str, ...]
    study: Study
    name: str
    round: int
    folder: Path | None = None


def load_model(
    run_or_file: "str | PathLike[str]",
    study: "AnyStudy | str | PathLike[str] | None" = None,
    *,
    name: str = FEDERATED,
    site: str | None = None,
    device: str = "cpu",
) -> LoadedModel:
    """Return a finished model of a simulated run, or of a ``.safetensors`` file.

    Args:
        run_or_file: A run folder, or a model file.
        study: The model's study; needed for a file that does not lie in a run folder.
        name: Which model of a run folder: ``federated``, ``pooled``, ``local-SITE`` or
            ``without-privacy``.
        site: Whose model, where the strategy gives each site one of its own (FedBN, FedRep,
            Ditto, ...).
        device: "cpu", "cuda", "cuda:1" or "auto".

    Raises:
        InputError: There is no such run, site or device.
        ModelError: There is no such model, it does not fit the study's network, or it is only the
            part that sites share.
    """
    path = usable_path(run_or_file, "a model")
    file = path / "models" / f"{name}{_SUFFIX}" if path.is_dir() else path
    run_folder = path if path.is_dir() else file.parent.parent
    if path.is_dir():
        _require_model(path, name)
    saved = read_model_file(file)
    chosen = _study_of(run_folder, file, study)
    name = saved.metadata.get("model", file.stem)
    if name not in (FEDERATED, UNPROTECTED):
        # Who trains alone, or on pooled data, follows no strategy.
        chosen = for_notebook(plain(chosen))
    context = ModelContext.build(chosen, device)
    parameters = _whole(context, saved, run_folder, site)
    check_schema(parameters, schema(read_parameters(context.network)))
    write_parameters(context.network, parameters)
    number = int(saved.metadata.get("round", "0"))
    whole = name if site is None or not context.layout.personal else f"{name}-{site}"
    folder = run_folder / "models" / whole
    return LoadedModel(
        context.network.eval(),
        chosen.data.classes,
        chosen,
        name,
        number,
        folder if is_model_folder(folder) else None,
    )


def model_names(run_folder: Path) -> tuple[str, ...]:
    """Return the names of a run's finished models, the federated one first."""
    found = {file.stem for file in (run_folder / "models").glob(f"*{_SUFFIX}")}
    return tuple(sorted(found, key=lambda name: (name != FEDERATED, name)))


def _require_model(run_folder: Path, name: str) -> None:
    known = model_names(run_folder)
    if not known:
        msg = (
            f"{run_folder} holds no finished model: give the folder of a run that has ended, or a "
            "model file."
        )
        raise ModelError(msg)
    if name not in known:
        raise ModelError(known_names("model", name, known))


def _study_of(
    run_folder: Path, file: Path, study: "AnyStudy | str | PathLike[str] | None"
) -> Study:
    if study is not None:
        return load_study(study)
    path = run_folder / "study.toml"
    if not path.is_file():
        msg = (
            f"{file} lies in no run folder, so that its study is not known: give study=, the "
            "study that the model was trained for."
        )
        raise InputError(msg)
    return load_study(path)


def _whole(
    context: ModelContext, saved: SavedModel, run_folder: Path, site: str | None
) -> Parameters:
    """Return all numbers of the network: what is shared, and what a site keeps for itself."""
    if site is None and not context.layout.personal:
        return context.on_base(saved.parameters)
    folders = {folder.name: folder for folder in sorted((run_folder / "sites").glob("*"))}
    if site is None:
        known = f", one of: {', '.join(folders)}" if folders else ""
        msg = (
            f"strategy {context.study.federation.strategy} gives each site a model of its own, "
            f"and the file holds only what they share: give site={known}."
        )
        raise ModelError(msg)
    if site not in folders:
        raise InputError(known_names("site", site, folders))
    digest, run = context.study.digest, saved.metadata.get("run", "")
    number = int(saved.metadata.get("round", "0"))
    state = SiteState(open_site(folders[site]).state_folder, digest, run)
    if context.layout.personal and not state.after(number):
        msg = (
            f"site {site} keeps nothing of round {number} of this run, so its own part of the "
            "model is gone: run the study again."
        )
        raise ModelError(msg)
    return context.own_model(state, number, saved.parameters)
