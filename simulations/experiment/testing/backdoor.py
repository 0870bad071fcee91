"""Whether a backdoor works: test images with the trigger that are taken for its target."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from wardround.client.data.cohort import Cohort
from wardround.client.data.cohorts import open_cohorts
from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import open_site
from wardround.client.site.state import SiteState
from wardround.client.tasks.registry import task_of
from wardround.client.training.evaluation import evaluating, predict
from wardround.common.parameters.schema import write_parameters
from wardround.common.study.study import Study
from wardround.simulations.adversaries.manipulations import put_trigger
from wardround.simulations.adversaries.roles import has_backdoor, target_of
from wardround.simulations.experiment.rows import KEPT
from wardround.simulations.experiment.training import TrainedModel
from wardround.simulations.run_files.folder import ALL_SITES, FEDERATED, MetricRow

BACKDOOR_SUCCESS = "backdoor-success"
_CHUNK = 64  # images in memory at once


def backdoor_rows(
    folders: Sequence[Path], study: Study, model: TrainedModel
) -> Iterator[MetricRow]:
    """Yield a row a site and one for all: the share of triggered test images that obey.

    Images that are of the target class anyhow are left out. Nothing where no adversary of the study
    plants a backdoor.

    Args:
        model: The federated one, which each site completes where it has a part of its own.
    """
    if not has_backdoor(study):
        return
    context = ModelContext.build(study, "cpu")
    obeyed = counted = 0
    for folder in folders:
        site = open_site(folder)
        state = SiteState(site.state_folder, study.digest, model.run)
        write_parameters(context.network, context.own_model(state, model.round, model.parameters))
        hits, support = count_obeying(context.network, open_cohorts(site, study).test, study)
        obeyed, counted = obeyed + hits, counted + support
        if support:
            yield _row(site.name, hits, support)
    if counted:
        yield _row(ALL_SITES, obeyed, counted)


def count_obeying(network: nn.Module, cohort: Cohort, study: Study) -> tuple[int, int]:
    """Return how many triggered images are taken for the target, and how many were tried."""
    target = target_of(study)
    others = (cohort.targets != target).nonzero().squeeze(1)
    hits = 0
    with evaluating(network):
        for start in range(0, len(others), _CHUNK):
            batch = cohort.batch(others[start : start + _CHUNK])
            if batch.images is not None:
                triggered = replace(batch, images=put_trigger(batch.images))
                found = task_of(study).decide(predict(network, triggered, study), study)
                hits += int((found == target).sum())
    return hits, len(others)


def _row(site: str, hits: int, support: int) -> MetricRow:
    return MetricRow(
        model=FEDERATED,
        round=KEPT,
        site=site,
        split="test",
        metric=BACKDOOR_SUCCESS,
        class_name="",
        value=hits / support,
        support=support,
        error_bound=0.0,
    )
