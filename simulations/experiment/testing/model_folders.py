"""The finished models of a run as model folders: ``models/NAME/``, each ready to predict."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import wardround
from wardround.client.clinic.inference.seen import look_at
from wardround.client.data.cohorts import open_cohorts
from wardround.client.data.preprocessing.scanner_shift import generator_of, scanner_of, shift_image
from wardround.client.data.reading.image import Image, fill_absent
from wardround.client.data.reading.readers import read_image
from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import open_site
from wardround.client.site.state import SiteState
from wardround.common.models.card import licence_text, model_card
from wardround.common.models.contract import Contract, Seen, study_content
from wardround.common.models.model_folder import write_model_folder
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import Parameters
from wardround.common.study.study import Study
from wardround.simulations.evidence.released import release_of
from wardround.simulations.experiment.training import TrainedModel
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.documents.origin import measured_of, origin_of
from wardround.simulations.run_files.folder import FEDERATED, UNPROTECTED, local_model

_LOOKED_AT = 48  # training images of a site: percentiles of more differ little
_PRIVATE = (
    "the study promises privacy, and the values of the training images would tell of patients"
)


def write_model_folders(
    out: Path,
    folders: Sequence[Path],
    models: Sequence[tuple[TrainedModel, Study]],
    contents: RunContents,
) -> None:
    """Write a model folder for each finished model, beside its file.

    Where a strategy gives each site a model of its own, there is one a site: ``federated-SITE``.

    Args:
        folders: The sites.
        models: Each with the study that it followed.
        contents: Of the run, with what was measured at its end, and what the models said.
    """
    seen = {folder.name: _seen(folder, models[0][1]) for folder in folders}
    sites = [folder.name for folder in folders]
    for model, study in models:
        for name, weights, complete in _whole(folders, model, study):
            measured = tuple(measured_of(contents, model.name))
            looks = [one for site, one in seen.items() if model.name in _trained_by(site)]
            release = release_of(name, contents.scores, sites, study, complete)
            contract = Contract(
                wardround=wardround.__version__,
                name=name,
                run=model.run,
                round=model.round,
                study=study_content(study),
                study_digest=study.digest,
                parameters=digest(weights),
                complete=complete,
                temperature=release.temperature,
                threshold=release.threshold,
                calibration=release.note,
                **_looks(looks, study),
            )
            origin = origin_of(replace(contents, study=study), model.name)
            licence = licence_text(origin.licence, study)
            texts = model_card(contract, study, origin, measured), licence
            write_model_folder(out / "models" / name, weights, contract, measured, texts)


def _trained_by(site: str) -> tuple[str, ...]:
    """Return the models that a site's images took part in."""
    return (FEDERATED, UNPROTECTED, "pooled", local_model(site))


def _looks(looks: Sequence[Seen | None], study: Study) -> dict[str, object]:
    found = [one for one in looks if one is not None]
    if not found:
        if study.data.kind == "table":
            return {"seen_note": "it takes no images"}
        return {"seen_note": _PRIVATE}
    total = found[0]
    for one in found[1:]:
        total = total.plus(one)
    return {"seen": total, "seen_note": f"from {total.images} training images of the run's sites"}


def _seen(folder: Path, study: Study) -> Seen | None:
    """Return what a simulated site's training images look like, of the first to the last evenly."""
    if study.data.kind == "table" or study.privacy.mode != "none":
        return None
    site = open_site(folder)
    examinations = open_cohorts(site, study).train.examinations
    step = max(1, -(-len(examinations) // _LOOKED_AT))
    total: Seen | None = None
    for examination in examinations[::step]:
        scanner = scanner_of(examination, site)
        generator = generator_of(examination, scanner)
        channels: list[Image | None] = []
        for location in examination.images:
            if location is None:
                channels.append(None)
                continue
            image = read_image(location, study.data.dimensions, study.data.colour)
            array = shift_image(image.array, scanner.shift, generator)
            channels.append(Image(array, image.spacing, image.affine, image.eight_bit))
        one = look_at(fill_absent(channels)).as_seen()
        total = one if total is None else total.plus(one)
    return total


def _whole(
    folders: Sequence[Path], model: TrainedModel, study: Study
) -> Iterator[tuple[str, Parameters, bool]]:
    """Yield each model's name, all its numbers, and whether they are all."""
    context = ModelContext.build(study, "cpu")
    if model.name != FEDERATED or not (context.layout.personal or context.keeps_state):
        yield model.name, context.on_base(model.parameters), not context.layout.personal
        return
    for folder in folders:
        state = SiteState(open_site(folder).state_folder, study.digest, model.run)
        own = context.own_model(state, model.round, model.parameters)
        if not context.layout.personal and _same(own, model.parameters):
            yield model.name, own, True
            return
        yield f"{model.name}-{folder.name}", own, True


def _same(own: Parameters, shared: Parameters) -> bool:
    return all(own[name] is tensor for name, tensor in shared.items())
