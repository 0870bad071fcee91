"""The finished models of a run as model folders: ``models/NAME/``, each ready to predict."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import wardround
from wardround.client.clinic.inference.seen import look_at
from wardround.client.data.cohort import open_cohorts
from wardround.client.data.preprocessing.scanner_shift import generator_of, scanner_of, shift_image
from wardround.client.data.reading.image import Image
from wardround.client.data.reading.readers import read_image
from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import open_site
from wardround.client.site.state import SiteState
from wardround.common.models.card import Origin, licence_text, model_card
from wardround.common.models.contract import Contract, Measured, Seen, study_content
from wardround.common.models.model_folder import write_model_folder
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import Parameters
from wardround.common.study.study import Study
from wardround.simulations.evidence.answers import AllScores
from wardround.simulations.evidence.released import release_of
from wardround.simulations.experiment.training import TrainedModel
from wardround.simulations.run_files.folder import (
    FEDERATED,
    UNPROTECTED,
    MetricRow,
    PrivacyRow,
    local_model,
)
from wardround.simulations.run_files.predictions import read_scores

_LOOKED_AT = 48  # training images of a site: percentiles of more differ little
_KEPT, _INTERVAL = -1, 1.96
_UNBOUNDED = ("loss", "hd95")
_PRIVATE = (
    "the study promises privacy, and the values of the training images would tell of patients"
)


def write_model_folders(
    out: Path,
    folders: Sequence[Path],
    models: Sequence[tuple[TrainedModel, Study]],
    rows: Sequence[MetricRow],
    facts: tuple[Mapping[str, str], Sequence[PrivacyRow]],
) -> None:
    """Write a model folder for each finished model, beside its file.

    Where a strategy gives each site a model of its own, there is one a site: ``federated-SITE``.

    Args:
        folders: The sites.
        models: Each with the study that it followed.
        rows: What was measured at the end.
        facts: Of the data set (its licence, ...), and what the sites' ledgers say.
    """
    seen = {folder.name: _seen(folder, models[0][1]) for folder in folders}
    scores = _scores(out, models[0][1])
    sites = [folder.name for folder in folders]
    for model, study in models:
        for name, weights, complete in _whole(folders, model, study):
            measured = tuple(_measured(rows, model.name))
            looks = [one for site, one in seen.items() if model.name in _trained_by(site)]
            release = release_of(name, scores, sites, study, complete)
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
            origin = Origin(
                tuple(_trained_on(folders, model, facts[0])),
                tuple(_privacy(study, model, facts[1])),
                _data_licence(facts[0]),
            )
            texts = model_card(contract, study, origin, measured), licence_text(origin.licence)
            write_model_folder(out / "models" / name, weights, contract, measured, texts)


def _scores(out: Path, study: Study) -> AllScores:
    """Return what the models said of validation patients; empty for what is no classification."""
    return read_scores(out, study.data.classes) if study.task.classifies else {}


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
        channels = []
        for location in examination.images:
            image = read_image(location, study.data.dimensions, study.data.colour)
            array = shift_image(image.array, scanner.shift, generator)
            channels.append(Image(array, image.spacing, image.affine, image.eight_bit))
        one = look_at(channels).as_seen()
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


def _measured(rows: Sequence[MetricRow], name: str) -> Iterator[Measured]:
    for row in rows:
        if row.model != name or row.round != _KEPT or row.split != "test" or row.value != row.value:
            continue
        half = _INTERVAL * row.standard_error
        most = math.inf if row.metric in _UNBOUNDED else 1.0
        yield Measured(
            of=f"{row.site}, test patients",
            metric=row.metric,
            class_name=row.class_name,
            value=row.value,
            interval=_interval(row.value, half, most) if half > 0 else None,
            support=row.support,
        )


def _interval(value: float, half: float, most: float) -> tuple[float, float]:
    return max(0.0, value - half), min(most, value + half)


def _trained_on(
    folders: Sequence[Path], model: TrainedModel, facts: Mapping[str, str]
) -> Iterator[str]:
    named = facts.get("title") or facts.get("name") or "a data set without a name"
    yield f"{named}, divided into {len(folders)} simulated sites on one machine"
    if model.name.startswith("local-"):
        yield f"the training patients of {model.name.removeprefix('local-')} alone"
    if citation := facts.get("citation"):
        yield f"cite: {citation}"


def _privacy(study: Study, model: TrainedModel, spent: Sequence[PrivacyRow]) -> Iterator[str]:
    if study.privacy.mode == "none":
        yield "nothing was promised to patients: what the model remembers of them is not bounded"
        return
    yield f"the study promises privacy to each {study.privacy.mode}"
    for row in spent:
        if row.part == "train":
            yield (
                f"{row.site}: training spent epsilon {row.epsilon:.3f} at delta {row.delta:g} "
                f"in {row.charged} answers"
            )


def _data_licence(facts: Mapping[str, str]) -> str:
    licence = facts.get("licence")
    if not licence:
        return "The data set of this run names no licence: ask whoever owns it."
    return f"The weights were made from data under this licence: {licence}"
