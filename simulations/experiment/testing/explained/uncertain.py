"""A run's segmentations with a map of how sure the model is, and whether that is where it errs."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from wardround.client.clinic.explanations.uncertainty import UNCERTAINTIES, entropy, errors_found
from wardround.client.data.cohorts import open_cohorts
from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import open_site
from wardround.common.parameters.schema import write_parameters
from wardround.simulations.experiment.testing.explained.explaining import Explainers
from wardround.simulations.experiment.testing.explained.shown import Shown, as_shown
from wardround.simulations.experiment.testing.predictions import whole_model
from wardround.simulations.run_files.explanations import UncertaintyRow

Labels = NDArray[np.integer]


@dataclass(frozen=True, slots=True, eq=False)
class Doubted:
    """One examination's row, and its picture with the map and where the marks are wrong."""

    row: UncertaintyRow
    picture: Shown | None


def doubt_site(
    folder: Path, context: ModelContext, explainers: Explainers, count: int
) -> Iterator[Doubted]:
    """Map how sure a model is of test examinations of one site of a segmentation.

    Args:
        folder: The site's.
        context: Its network is written over.
        count: How many examinations, spread over the test patients; 0 takes all.

    Raises:
        ExplanationError: The method does not fit the network, or the run.
    """
    site, study = open_site(folder), context.study
    cohort = open_cohorts(site, study).test
    networks = _networks(context, folder, explainers)
    number = len(cohort) if count == 0 else min(count, len(cohort))
    for index in np.linspace(0, len(cohort) - 1, number, dtype=int).tolist():
        batch = cohort.case(index)
        probabilities = UNCERTAINTIES[explainers.method](networks, batch, study)
        found = probabilities.argmax(0).cpu().numpy()
        truth = batch.targets[0].cpu().numpy()
        known = truth < study.class_count
        doubt, wrong = entropy(probabilities), (found != truth) & known
        said = errors_found(doubt[known], wrong[known])
        examination = cohort.examinations[index]
        row = UncertaintyRow(
            explainers.method,
            explainers.model.name,
            site.name,
            examination.row,
            int(cohort.patients[index]),
            _dice(found, truth, study.class_count),
            float(doubt[known].mean()),
            said.auroc,
            said.wrong,
            said.caught,
        )
        picture = None
        if batch.images is not None:
            picture = as_shown((examination, batch), (site, study), doubt, wrong)
        yield Doubted(row, picture)


def _networks(context: ModelContext, folder: Path, explainers: Explainers) -> Sequence[nn.Module]:
    """Return the network that is explained and, for an ensemble, one of each site's own models."""
    models = [explainers.model]
    if explainers.method == "ensemble":
        models += explainers.alone
    networks = []
    for model in models:
        network = deepcopy(context.network) if len(models) > 1 else context.network
        write_parameters(network, whole_model(context, folder, model))
        networks.append(network)
    return networks


def _dice(found: Labels, truth: Labels, classes: int) -> float:
    """Return the mean Dice of the foreground classes that the truth holds; NaN where none."""
    known = truth < classes
    values = []
    for k in range(1, classes):
        a, b = (found == k) & known, truth == k
        if b.any():
            values.append(2 * float((a & b).sum()) / float(a.sum() + b.sum()))
    return sum(values) / len(values) if values else float("nan")
