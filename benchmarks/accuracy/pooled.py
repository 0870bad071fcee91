"""The pooled comparison of a study alone: all sites' patients trained on in one place.

``wardround simulate --compare`` trains it beside the federation and every site alone. This trains
it without them, by the product's own functions: the split, the patients of each split and the test
patients are those of ``wardround simulate`` with the same study, recipe and seed. Each round is
printed with its value on validation patients; the model of the best one is tested once. Of a run
that was stopped, ``--stopped`` tests the best round so far, and trains nothing.

    python -m benchmarks.accuracy.pooled hippocampus --recipe best --data-root DATA --out RUN
"""

import argparse
import os
import time
from pathlib import Path

from benchmarks.support.processes import machine
from wardround.common.errors import RunError
from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import RefusalRecord
from wardround.server.checkpoints.store import CheckpointStore
from wardround.server.sites.site_info import describe_sites
from wardround.simulations.experiment.baselines import baselines_of
from wardround.simulations.experiment.federation import Machine, open_grid
from wardround.simulations.experiment.testing.cross_site import cross_site_rows
from wardround.simulations.experiment.training import (
    TrainedModel,
    checkpoints_of,
    load_trained,
    train_baseline,
)
from wardround.simulations.run_files.events import Event, RoundDone
from wardround.simulations.run_files.folder import POOLED
from wardround.simulations.sites.preparation import PreparedSites, prepare_sites, reopen_sites
from wardround.simulations.studies import find_study
from wardround.simulations.studies.recipes import with_recipe


def main() -> None:
    """Train, saying each round, and print the test values."""
    arguments = _arguments()
    print(machine(), flush=True)
    study = with_recipe(find_study(arguments.study), arguments.study, arguments.recipe)
    study = with_changes(study, {"federation.seed": arguments.seed})
    if arguments.stopped:
        print("\n".join(_tested(arguments.out, study, reopen_sites(arguments.out))))
        return
    arguments.out.mkdir(parents=True)
    sites = prepare_sites(study, arguments.out, arguments.data_root)
    started = time.perf_counter()
    _train(arguments.out, study, sites)
    spent = os.times()
    print(
        f"{(spent.user + spent.system) / 60:.1f} CPU minutes, "
        f"{(time.perf_counter() - started) / 60:.1f} minutes"
    )
    for line in _tested(arguments.out, study, sites):
        print(line)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study")
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="must be new")
    parser.add_argument("--stopped", action="store_true", help="test a run that was stopped")
    return parser.parse_args()


def _train(out: Path, study: Study, sites: PreparedSites) -> None:
    baselines = baselines_of(study, sites.folders, sites.pooled)
    pooled = next(baseline for baseline in baselines if baseline.name == POOLED)
    train_baseline(out, pooled, _one_thread(), _print_round)


def _tested(out: Path, study: Study, sites: PreparedSites) -> list[str]:
    """Return a line a value of the pooled model on the test patients of the sites.

    Raises:
        RunError: A site did not measure it.
    """
    model = load_trained(out, POOLED) or _best_so_far(out)
    refusals: list[RefusalRecord] = []
    with open_grid(sites.folders, study, _one_thread()) as grid:
        nodes, _ = describe_sites(grid, study)
        rows = list(cross_site_rows(grid, study, nodes, [model], refusals))
    if refusals:
        msg = f"the test is not of all sites: {refusals[0].site} says {refusals[0].reason}"
        raise RunError(msg)
    return [
        f"round {model.round}, {row.site}: {row.metric} {row.class_name or 'all'} {row.value:.4f}"
        for row in rows
        if row.metric == study.evaluation.metric
    ]


def _best_so_far(out: Path) -> TrainedModel:
    store = CheckpointStore(checkpoints_of(out, POOLED))
    last = store.latest()
    if last is None:
        msg = f"{out} holds no round of a pooled model"
        raise RunError(msg)
    best = store.load(last.progress.best_round)
    return TrainedModel(POOLED, last.progress.run, best.progress.round, best.evaluated)


def _one_thread() -> Machine:
    return Machine(device="cpu", engine="in-process", workers=1, threads=1)


def _print_round(event: Event) -> None:
    if isinstance(event, RoundDone):
        print(
            f"round {event.round} of {event.rounds}: {event.metric} {event.value} on validation "
            f"patients, {event.seconds:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
