"""Each model of a sequence on each wave of test patients, into the run folder."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path

from wardround.client.data.cohorts import open_cohorts
from wardround.client.data.manifest.label_words import label_words
from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import open_site
from wardround.client.training.evaluation import evaluate
from wardround.client.training.losses.registry import build_loss
from wardround.common.files.tables import write_table
from wardround.common.metrics.sums import MetricSums, merge, summarise
from wardround.common.models.networks.registry import build_network
from wardround.common.models.pretrained import load_pretrained
from wardround.common.parameters.schema import Parameters, read_parameters, write_parameters
from wardround.common.statistics.interval import Interval
from wardround.common.study.study import Study
from wardround.simulations.experiment.testing.predictions import whole_model
from wardround.simulations.experiment.testing.wave_gains import gain_interval
from wardround.simulations.experiment.training import TrainedModel
from wardround.simulations.run_files.folder import ALL_SITES
from wardround.simulations.run_files.waves import (
    DRAWN,
    MADE,
    PARENT,
    WAVES,
    WaveRow,
    read_waves,
)


def write_waves(out: Path, folders: Sequence[Path], study: Study, federated: TrainedModel) -> None:
    """Write ``waves.csv`` of a study whose data come in waves; of any other nothing.

    A study that trains the federated model on before each test leaves none, for no file holds the
    model that would be asked.
    """
    if study.continual is None:
        return
    context = ModelContext.build(study, "cpu")
    if context.plan.objective == "fine-tune":
        return
    before = study.simulation.parent
    rows = [*(read_waves(Path(before)) if before else ())]
    rows += _measured(folders, context, federated)
    write_table(out / WAVES, rows, WaveRow)


def _measured(
    folders: Sequence[Path], context: ModelContext, federated: TrainedModel
) -> Iterator[WaveRow]:
    study = context.study
    starts = _starts(study)
    sums: dict[tuple[str, int], list[tuple[str, MetricSums]]] = {}
    reaches: dict[tuple[str, int], float] = {}
    people: dict[tuple[str, int], int] = {}
    for folder in folders:
        site = open_site(folder)
        cohorts = open_cohorts(site, study)
        counts = cohorts.train.class_counts() if _weighs(study) else None
        annotated = label_words(site, study).annotated
        loss = build_loss(study, counts, context.device, annotated)
        models = {MADE: whole_model(context, folder, federated), **starts}
        for wave in sorted(set(cohorts.test.waves.tolist())):
            cohort = cohorts.test.of_wave(wave)
            people[site.name, wave] = len({one.patient for one in cohort.examinations})
            if PARENT in models:
                gain = gain_interval(context, cohort, models[MADE], models[PARENT])
                reaches[site.name, wave] = _reach(gain)
            for name, parameters in models.items():
                write_parameters(context.network, parameters)
                found = evaluate(context.network, cohort, study, context.device, loss)
                sums.setdefault((name, wave), []).append((site.name, found))
    for (name, wave), parts in sums.items():
        together = reduce(merge, (part for _, part in parts))
        for site_name, part in (*parts, (ALL_SITES, together)):
            row = _row(study, name, site_name, wave, part)
            reach = reaches.get((site_name, wave), math.nan) if name == PARENT else math.nan
            of_all = sum(people[site, wave] for site, _ in parts)
            yield replace(row, patients=people.get((site_name, wave), of_all), reach=reach)


def _reach(gain: Interval | None) -> float:
    """Return half of an interval; endless where nobody can tell it of one patient."""
    if gain is None:
        return math.nan
    return (gain.high - gain.low) / 2 if gain.is_known else math.inf


def _starts(study: Study) -> dict[str, Parameters]:
    """Return the model that the study goes on from, and one that nobody has trained."""
    network = build_network(study, study.federation.seed)
    found = {DRAWN: dict(read_parameters(network))}
    if study.model.weights_sha256 is not None:
        load_pretrained(network, study)
        found[PARENT] = dict(read_parameters(network))
    return found


def _weighs(study: Study) -> bool:
    return study.training.class_weights == "balanced"


def _row(study: Study, name: str, site: str, wave: int, sums: MetricSums) -> WaveRow:
    value = next(
        one.value
        for one in summarise(sums, study)
        if one.metric == study.metric and not one.class_name
    )
    after = 1 if study.continual is None else study.continual.wave
    return WaveRow(study.digest, after, name, site, wave, study.metric, value, sums.examinations)
