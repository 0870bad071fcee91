"""Predictions of a run's model explained: a map of each, with what its checks say."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wardround.client.clinic.explanations.attribution import (
    Attribution,
    ExplanationError,
    LogOdds,
    by_covariate,
)
from wardround.client.clinic.explanations.likeness import (
    rank_correlation,
    share_inside,
    structural_similarity,
)
from wardround.client.clinic.explanations.masks import lesion_mask, lesion_masks
from wardround.client.clinic.explanations.methods import METHODS, ROUGH
from wardround.client.clinic.explanations.randomisation import Randomisation, randomise
from wardround.client.data.batch import Batch
from wardround.client.data.cohort import Cohort
from wardround.client.data.cohorts import open_cohorts
from wardround.client.data.manifest.examination import Examination, Location
from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import Site, open_site
from wardround.client.tasks.classification import scores_and_truth
from wardround.client.training.evaluation import evaluating, predict
from wardround.common.parameters.schema import write_parameters
from wardround.common.study.study import Study
from wardround.simulations.experiment.testing.explained.shown import as_shown
from wardround.simulations.experiment.testing.predictions import whole_model
from wardround.simulations.experiment.training import TrainedModel
from wardround.simulations.run_files.explanations import ExplanationRow, FeatureRow
from wardround.simulations.run_files.folder import local_model

_NAN = float("nan")
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Explainers:
    """Who explains: the models whose maps are made and compared.

    Attributes:
        model: Whose predictions are explained.
        alone: The models that the sites trained alone, whose maps are compared with each other.
        earlier: The same model after another round; None where none was kept.
    """

    method: str
    model: TrainedModel
    alone: tuple[TrainedModel, ...] = ()
    earlier: TrainedModel | None = None


@dataclass(slots=True)
class _Case:
    """One examination, and what is found of it."""

    index: int
    batch: Batch
    examination: Examination
    class_index: int = 0
    score: float = _NAN
    truth: str = ""
    map: Attribution | None = None
    fault: str = ""
    randomised: Randomisation | None = None
    mask: NDArray[np.bool_] | None = None
    others: list[Attribution] = field(default_factory=list)
    repeatability: float = _NAN


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """One examination's row, its features, and its picture with map and mask."""

    row: ExplanationRow
    features: tuple[FeatureRow, ...]
    picture: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]] | None


def explain_site(
    folder: Path, context: ModelContext, explainers: Explainers, count: int, masks: str | None
) -> Iterator[Explained]:
    """Explain test examinations of one site of a classification.

    Args:
        folder: The site's.
        context: Its network is written over.
        count: How many examinations, spread over the test patients; 0 takes all.
        masks: As in :func:`lesion_masks`.

    Raises:
        InputError: The masks are not where they were said to be.
        ExplanationError: The method does not fit the network.
    """
    site, study = open_site(folder), context.study
    cohort = open_cohorts(site, study).test
    where = lesion_masks(site, masks) if study.data.kind == "image" else {}
    cases = _chosen(cohort, count)
    _load(context, folder, explainers.model)
    for case in cases:
        _explain(case, context, explainers.method)
        case.mask = _mask(case.examination, where, site, study)
    _compare(cases, context, folder, explainers)
    for case in cases:
        yield _finished(case, cohort, (site, study), explainers)


def _compare(
    cases: Sequence[_Case], context: ModelContext, folder: Path, explainers: Explainers
) -> None:
    """Make the maps of other models too: of each site's own, and of another round."""
    for model in explainers.alone:
        _load(context, folder, model)
        maps = [_map_of(case, context, explainers.method) for case in cases]
        for case, found in zip(cases, maps, strict=True):
            case.others += [] if found is None else [found]
    if explainers.earlier is None:
        return
    _load(context, folder, explainers.earlier)
    for case in cases:
        found = _map_of(case, context, explainers.method)
        if found is not None and case.map is not None:
            case.repeatability = rank_correlation(_shown(case.map), _shown(found))


def _chosen(cohort: Cohort, count: int) -> list[_Case]:
    """Return examinations spread over the cohort, so that not all are of one class or patient."""
    number = len(cohort) if count == 0 else min(count, len(cohort))
    places = np.linspace(0, len(cohort) - 1, number, dtype=int).tolist()
    return [_Case(index, cohort.case(index), cohort.examinations[index]) for index in places]


def _load(context: ModelContext, folder: Path, model: TrainedModel) -> None:
    write_parameters(context.network, whole_model(context, folder, model))


def _explain(case: _Case, context: ModelContext, method: str) -> None:
    network, study = context.network, context.study
    with evaluating(network):
        logits = predict(network, case.batch, study).cpu()
    scores, truth = scores_and_truth(logits, case.batch.targets, study)
    case.class_index = int(scores[0].argmax())
    case.score = float(scores[0, case.class_index])
    classes = study.data.classes
    case.truth = ";".join(name for name, holds in zip(classes, truth[0], strict=True) if holds)
    odds = LogOdds(network, study.data.multi_label)
    try:
        case.map = METHODS[method](odds, case.batch.inputs, case.class_index)
    except ExplanationError as error:
        if method != "integrated-gradients":  # the network does not change from case to case
            raise
        case.fault = str(error)
        return
    shown = _shown(case.map)
    case.randomised = randomise(ROUGH[method], odds, case.batch.inputs, case.class_index, shown)


def _map_of(case: _Case, context: ModelContext, method: str) -> Attribution | None:
    if case.map is None:
        return None
    try:
        odds = LogOdds(context.network, context.study.data.multi_label)
        return METHODS[method](odds, case.batch.inputs, case.class_index)
    except ExplanationError:
        return None


def _shown(found: Attribution) -> Floats:
    """Return what is compared: of a map what is shown, of a table's values all with their sign."""
    return found.positive if found.values.ndim > 1 else found.values


def _mask(
    examination: Examination, where: Mapping[int, Location] | Path, site: Site, study: Study
) -> NDArray[np.bool_] | None:
    found = lesion_mask(examination, where, site, study)
    return found if found is not None and found.any() else None


def _finished(
    case: _Case, cohort: Cohort, place: tuple[Site, Study], explainers: Explainers
) -> Explained:
    site, study = place
    found, nothing = case.map, Randomisation(_NAN, (_NAN, _NAN, _NAN))
    random = case.randomised or nothing
    inside = area = _NAN
    if case.mask is not None:
        area = float(case.mask.mean())
        inside = _NAN if found is None else share_inside(found.positive, case.mask)
    row = ExplanationRow(
        method=explainers.method,
        model=explainers.model.name,
        site=site.name,
        case=case.examination.row,
        patient=int(cohort.patients[case.index]),
        true_class=case.truth,
        class_name=study.data.classes[case.class_index],
        score=case.score,
        last_layer=random.last_layer,
        quarter=random.cascade[0],
        half=random.cascade[1],
        all_layers=random.cascade[2],
        completeness_error=_NAN if found is None else found.completeness_error,
        inside=inside,
        area=area,
        agreement_rank=_mean_over_pairs(case.others, rank_correlation),
        agreement_ssim=_mean_over_pairs(case.others, structural_similarity),
        repeatability=case.repeatability,
        cells="" if found is None else "x".join(str(side) for side in found.cells),
        marks=_marks(case),
    )
    return Explained(row, _features(row, found, study), _picture(case, site, study))


def _mean_over_pairs(
    maps: Sequence[Attribution], likeness: Callable[[Floats, Floats], float]
) -> float:
    if len(maps) < 2:
        return _NAN
    pairs = combinations([_shown(one) for one in maps], 2)
    return float(np.mean([likeness(one, other) for one, other in pairs]))


def _marks(case: _Case) -> str:
    """Return why a map is not to be believed."""
    found, random = case.map, case.randomised
    if found is None or random is None:
        return "no map: the attributions do not add up to the score"
    if not found.values.any() or (found.values.ndim > 1 and not found.positive.any()):
        return "the map is empty: nothing speaks for the class"
    if not random.passed:
        return (
            "the map hardly changes with random weights "
            f"(rank correlation {max(random.last_layer, random.cascade[-1]):.2f})"
        )
    return ""


def _features(
    row: ExplanationRow, found: Attribution | None, study: Study
) -> tuple[FeatureRow, ...]:
    if found is None or not study.data.covariate_width:
        return ()
    columns = found.values if found.values.ndim == 1 else found.covariates
    if not len(columns):  # a method of the image alone
        return ()
    data = study.data
    absent = (*data.optional_covariates, *data.optional_channels)
    widths = {covariate.name: covariate.width for covariate in data.covariates}
    widths |= {f"{name} (missing)": 1 for name in absent}
    return tuple(
        FeatureRow(row.method, row.model, row.site, row.case, row.class_name, name, value)
        for name, value in by_covariate(columns, widths).items()
    )


def _picture(
    case: _Case, site: Site, study: Study
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]] | None:
    if case.map is None or case.batch.images is None:
        return None
    mask = np.zeros(case.map.values.shape, bool) if case.mask is None else case.mask
    return as_shown((case.examination, case.batch), (site, study), case.map.positive, mask)


def nearest_round(model: TrainedModel, rounds: Sequence[int]) -> int | None:
    """Return the nearest other round whose model was kept; None where there is none."""
    others = [number for number in rounds if number not in (0, model.round)]
    return min(others, key=lambda number: (abs(number - model.round), number), default=None)


def names_alone(folders: Sequence[Path]) -> tuple[str, ...]:
    """Return the names of the models that sites trained alone."""
    return tuple(local_model(folder.name) for folder in folders)
