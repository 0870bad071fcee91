"""Many small sites trained as one stack beside one after the other, in the same process, in pairs.

Each job is trained by the two local steps that the engines use: batches lie ready, and nothing is
evaluated or sent. The last rows are whole rounds of both engines, with all that a round has.

    python -m benchmarks.support.stacked_sites [--jobs mlp,small-cnn] [--sites 4,16,64] [--pairs 5]

With a GPU it measures there, in seconds of the clock. Without one it measures one thread of the
CPU, in seconds of CPU, so that what else the machine does counts for little. Three minutes at most.
"""

import argparse
import csv
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Generator, nn

from benchmarks.support.processes import machine
from wardround.client.data.batch import Batch
from wardround.client.site.device import arranged_for, choose_arithmetic
from wardround.client.training.local import train_locally
from wardround.client.training.losses.registry import build_loss
from wardround.client.training.objectives.base import LocalStart
from wardround.client.training.optimisers import build_optimiser
from wardround.client.training.schedule import SchedulePosition
from wardround.client.training.stacked.steps import StackedSite, train_stacked
from wardround.common.models.networks.registry import build_network
from wardround.common.models.sharing import layout_of
from wardround.common.parameters.schema import Parameters, read_parameters, write_parameters
from wardround.common.study.loading import parse_study
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.study import Study
from wardround.simulations.engines.stacked import sites_a_stack
from wardround.simulations.experiment.federation import Machine, open_grid, run_federation
from wardround.simulations.sites.site_folders import write_open_policy

IS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda", 0) if IS_GPU else torch.device("cpu")
now = time.perf_counter if IS_GPU else time.process_time
_ROUNDS, _PATIENTS = 3, 60
_IMAGE = {"channels": ["image"], "intensity": "none"}
_VALUES = {"kind": "table", "classes": ["a", "b"]}


@dataclass(frozen=True)
class Job:
    """What each site trains.

    Attributes:
        steps: Of a site in one measurement.
    """

    title: str
    content: dict[str, Any]
    steps: int

    @property
    def study(self) -> Study:
        """The study of the job."""
        training = {"optimiser": "adam", "local_steps": self.steps, **self.content["training"]}
        return parse_study({**self.content, "training": training})


def _cnn(batch: int) -> dict[str, Any]:
    return {
        "study": {"name": "cnn", "task": "classification"},
        "data": {**_IMAGE, "classes": [f"c{n}" for n in range(10)], "size": [28, 28]},
        "model": {"network": "small-cnn", "features": [16, 32], "normalisation": "none"},
        "training": {"batch_size": batch},
    }


def _unet(batch: int) -> dict[str, Any]:
    return {
        "study": {"name": "unet", "task": "segmentation"},
        "data": {**_IMAGE, "classes": ["b", "c", "d"], "size": [32, 32, 32], "dimensions": 3},
        "model": {"network": "unet", "features": [8, 16, 32]},
        "training": {"batch_size": batch},
    }


def _mlp(batch: int) -> dict[str, Any]:
    return {
        "study": {"name": "mlp", "task": "classification"},
        "data": {**_VALUES, "covariates": [{"name": f"x{number}"} for number in range(13)]},
        "model": {"network": "mlp", "features": [64, 32]},
        "training": {"batch_size": batch},
        "federation": {"rounds": _ROUNDS},
        "evaluation": {"metric": "loss", "keep": "last"},
    }


JOBS = (
    Job("mlp, 13 values, batch 16", _mlp(16), 10),
    Job("small-cnn, 28 x 28, batch 4", _cnn(4), 4),
    Job("small-cnn, 28 x 28, batch 32", _cnn(32), 2),
    Job("unet, 32 x 32 x 32, batch 1", _unet(1), 1),
    Job("unet, 32 x 32 x 32, batch 2", _unet(2), 1),
)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", default="", help="beginnings of their titles, e.g. mlp,unet")
    parser.add_argument("--sites", default="4,16,64")
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine(), f"| {torch.cuda.get_device_name(0)}" if IS_GPU else "")
    counts = [int(text) for text in arguments.sites.split(",")]
    chosen = tuple(arguments.jobs.split(","))
    print("\n| training alone | sites | in turn, ms | stacked, ms | ratio (least to most) |")
    print("|---|---|---|---|---|")
    for job in JOBS:
        for sites in counts if job.title.startswith(chosen) else ():
            _print_row(job.title, sites, _steps(job, sites), arguments.pairs)
    print("\n| whole rounds | sites | in turn, ms | stacked, ms | ratio (least to most) |")
    print("|---|---|---|---|---|")
    for sites in counts if JOBS[0].title.startswith(chosen) else ():
        with tempfile.TemporaryDirectory() as folder:
            warm_up = int(sites == counts[0])  # of the process, not of the sites
            work = _rounds(Path(folder), sites)
            _print_row(JOBS[0].title, sites, work, arguments.pairs, warm_up)


def _print_row(
    title: str, sites: int, work: Callable[[bool], float], pairs: int, warm_up: int = 1
) -> None:
    """Measure both ways by turns; ``work`` returns the seconds of one of them."""
    for _ in range(warm_up):
        work(True), work(False)
    measured = [(work(False), work(True)) for _ in range(pairs)]
    ratios = [alone / together for alone, together in measured]
    alone, together = (statistics.median(seconds) for seconds in zip(*measured, strict=True))
    span = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    print(f"| {title} | {sites} | {alone * 1e3:.1f} | {together * 1e3:.1f} | {span} |", flush=True)


def _steps(job: Job, sites: int) -> Callable[[bool], float]:
    """Return what trains all sites of a job, as a stack or in turn, and says the seconds."""
    study = job.study
    choose_arithmetic(DEVICE, study)
    network = build_network(study, 0).to(DEVICE)
    network = arranged_for(network, DEVICE, study.training.precision)
    parameters = read_parameters(network)
    starts = [_start(study, network, parameters) for _ in range(sites)]
    batches = [_batches(study, seed) for seed in range(sites)]
    most = sites_a_stack(study, DEVICE)

    def work(is_stacked: bool) -> float:
        began = now()
        if is_stacked:
            for first in range(0, sites, most):
                part = slice(first, first + most)
                pairs = zip(starts[part], batches[part], strict=True)
                train_stacked(network, [StackedSite(s, iter(drawn)) for s, drawn in pairs])
        else:
            for start, drawn in zip(starts, batches, strict=True):
                write_parameters(network, start.parameters)
                train_locally(start, drawn, build_optimiser(network, study.training))
        if IS_GPU:
            torch.cuda.synchronize()
        return now() - began

    return work


def _start(study: Study, network: nn.Module, parameters: Parameters) -> LocalStart:
    plan = plan_of(study)
    steps = study.training.local_steps or 1
    return LocalStart(
        network=network,
        parameters=parameters,
        auxiliary={},
        memory={},
        plan=plan,
        layout=layout_of(network, plan),
        training=study.training,
        position=SchedulePosition(0.0, 0.5, steps),
        loss=build_loss(study, None, DEVICE),
    )


def _batches(study: Study, seed: int) -> list[Batch]:
    generator, size = Generator().manual_seed(seed), study.training.batch_size
    shape = study.input_size or ()

    def one() -> Batch:
        values = study.data.input_planes if shape else study.data.covariate_width
        inputs = torch.randn(size, values, *shape, generator=generator).to(DEVICE)
        dense = shape if study.task.dense else ()
        targets = torch.randint(study.class_count, (size, *dense), generator=generator).to(DEVICE)
        return Batch(inputs, None, targets) if shape else Batch(None, inputs, targets)

    return [one() for _ in range(study.training.local_steps or 1)]


def _rounds(folder: Path, sites: int) -> Callable[[bool], float]:
    """Return what runs a federation of tables, and says the seconds of its median round."""
    study, folders = JOBS[0].study, list(_write_sites(folder, sites))
    runs = iter(range(1000))

    def work(is_stacked: bool) -> float:
        machine_used = Machine(engine="stacked" if is_stacked else "in-process", threads=1)
        out = folder / f"run-{next(runs)}"
        ends: list[float] = []
        with open_grid(folders, study, machine_used) as grid:
            run_federation(grid, study, out, lambda _: ends.append(now()))
        return statistics.median(after - before for before, after in pairwise(ends))

    return work


def _write_sites(root: Path, sites: int) -> Iterator[Path]:
    for number in range(sites):
        folder, drawn = root / f"site-{number:02d}", random.Random(number)
        folder.mkdir(parents=True)
        (folder / "site.toml").write_text(f'name = "site-{number:02d}"\n', encoding="utf-8")
        write_open_policy(folder)
        with (folder / "manifest.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["patient", "label", *(f"x{place}" for place in range(13))])
            for patient in range(_PATIENTS):
                values = (f"{drawn.gauss(patient % 2, 1):.4f}" for _ in range(13))
                writer.writerow([f"p{patient}", "ab"[patient % 2], *values])
        yield folder


if __name__ == "__main__":
    main()
