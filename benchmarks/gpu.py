"""Wardround on one GPU: is it right, is it fast, what fits? Under ten minutes.

Without a GPU it only checks itself, on the CPU with the least work: no number of it means anything.

    python -m benchmarks.gpu [--jobs small-cnn,unet] [--steps 40] [--json gpu.json]
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from benchmarks.private_step import Made, opacus_ghost, opacus_hooks, plain, private
from benchmarks.support.processes import machine
from wardround.client.data.augmentation.applied import apply_changes
from wardround.client.data.augmentation.drawn import draw_changes
from wardround.client.data.augmentation.presets import PRESETS
from wardround.client.data.batch import Batch
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.client.site.device import arranged_for, choose_arithmetic
from wardround.client.training.evaluation import evaluate
from wardround.client.training.local import LocalWork, train_locally
from wardround.client.training.losses.registry import build_loss
from wardround.client.training.objectives.base import LocalStart
from wardround.client.training.optimisers import build_optimiser
from wardround.client.training.schedule import SchedulePosition
from wardround.common.models.networks.registry import build_network
from wardround.common.models.sharing import layout_of
from wardround.common.study.loading import parse_study, with_changes
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.private_networks import PRIVATE_NETWORKS
from wardround.common.study.study import Study

CPU = torch.device("cpu")
IS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda", 0) if IS_GPU else CPU
LEAST_SPEED = 0.95  # of the bare loop's
MOST_APART = 1e-2  # of two losses, after steps in which a GPU multiplied in TF32
MOST_MEMORY = 1.5  # of one copy of a volume's logits in half precision
_WARM_UP = 3


@dataclass(frozen=True)
class Job:
    """A network, its images, and how they are augmented."""

    network: str
    size: tuple[int, ...]
    batch: int
    augmentation: str

    @property
    def is_segmentation(self) -> bool:
        """Whether each pixel gets a class."""
        return "unet" in self.network

    def study(self, precision: str = "float32") -> Study:
        """Return the study of the job."""
        return parse_study(
            {
                "study": {
                    "name": "gpu",
                    "task": "segmentation" if self.is_segmentation else "classification",
                },
                "data": {
                    "classes": ["a", "b", "c"],
                    "dimensions": len(self.size),
                    "size": list(self.size),
                    "augmentation": self.augmentation,
                },
                "model": {"network": self.network},
                "training": {
                    "batch_size": self.batch,
                    "optimiser": "sgd",
                    "learning_rate": 0.01,
                    "precision": precision,
                },
            }
        )


JOBS = (
    {
        "small-cnn 224x224": Job("small-cnn", (224, 224), 64, "dermoscopy"),
        "resnet18 224x224": Job("resnet18", (224, 224), 64, "dermoscopy"),
        "unet 256x256": Job("unet", (256, 256), 16, "mr"),
        "unet 96x96x96": Job("unet", (96, 96, 96), 2, "mr"),
    }
    if IS_GPU
    else {
        "small-cnn 32x32": Job("small-cnn", (32, 32), 4, "dermoscopy"),
        "unet 32x32": Job("unet", (32, 32), 2, "mr"),
    }
)
# A part of a CT of 512 x 512 x 300, and what it is looked at through.
VOLUME, WINDOW = ((512, 512, 300), 96) if IS_GPU else ((40, 32, 24), 16)


class RandomPatients:
    """Random examinations in memory, made into batches as a site's cohort makes them."""

    def __init__(self, study: Study, count: int) -> None:
        numbers, size = Generator().manual_seed(0), study.data.size or ()
        is_dense = study.task.dense
        self._study = study
        self._images = torch.randn(count, study.data.planes, *size, generator=numbers)
        shape = (count, *(size if is_dense else ()))
        kind = torch.uint8 if is_dense else torch.int64
        self._targets = torch.randint(0, 3, shape, generator=numbers).to(kind)

    def batches(self, steps: int, device: torch.device) -> Iterator[Batch]:
        """Yield batches on a device, each augmented there."""
        size, drawing = self._study.training.batch_size, Generator().manual_seed(1)
        preset = PRESETS[self._study.data.augmentation]
        for step in range(steps):
            chosen = (torch.arange(size) + step * size) % len(self._images)
            batch = Batch(self._images[chosen], None, self._targets[chosen]).to(device)
            drawn = draw_changes(preset, size, self._study.data.dimensions, drawing)
            if batch.images is None:
                return
            masks = batch.targets if self._study.task.dense else None
            images, masks = apply_changes(batch.images, masks, drawn)
            yield Batch(images, None, batch.targets if masks is None else masks).widened()


def wait() -> None:
    """Wait until the device has done what it was told."""
    if IS_GPU:
        torch.cuda.synchronize()


def train(study: Study, device: torch.device, steps: int) -> tuple[LocalWork, float, nn.Module]:
    """Train as a site does; return what it came to, milliseconds a step, and the network."""
    choose_arithmetic(device, study)
    precision = study.training.precision
    network = arranged_for(build_network(study, 0).to(device), device, precision)
    patients, plan = RandomPatients(study, 4 * study.training.batch_size), plan_of(study)
    optimiser, layout = build_optimiser(network, study.training), layout_of(network, plan)
    loss = build_loss(study, None, device)

    def work(count: int) -> LocalWork:
        start = LocalStart(
            network=network,
            parameters={},
            auxiliary={},
            memory={},
            plan=plan,
            layout=layout,
            training=study.training,
            position=SchedulePosition(0.0, 0.5, count),
            loss=loss,
        )
        done = train_locally(start, patients.batches(count, device), optimiser)
        wait()
        return done

    work(_WARM_UP if IS_GPU else 1)
    began = time.perf_counter()
    done = work(steps)
    return done, (time.perf_counter() - began) / steps * 1e3, network


def bare_loop(study: Study, device: torch.device, steps: int) -> float:
    """Return milliseconds a step of a plain loop over the same MONAI network and loss.

    Its batches lie on the device already, are never augmented, and its memory order is torch's.
    """
    network, training = build_network(study, 0).to(device).train(), study.training
    optimiser = torch.optim.SGD(network.parameters(), training.learning_rate, training.momentum)
    loss = build_loss(study, None, device)
    batches = list(RandomPatients(study, 4 * training.batch_size).batches(4, device))
    half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(training.precision)

    def work(count: int) -> None:
        for number in range(count):
            batch = batches[number % len(batches)]
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast(device.type, dtype=half, enabled=half is not None):
                value = loss(network(*batch.inputs), batch.targets)
            value.backward()  # type: ignore[no-untyped-call] # torch's own
            optimiser.step()
        wait()

    work(_WARM_UP if IS_GPU else 1)
    began = time.perf_counter()
    work(steps)
    return (time.perf_counter() - began) / steps * 1e3


def compare_losses(jobs: dict[str, Job]) -> list[dict[str, Any]]:
    """Return the mean loss of two steps on the CPU and on the device, from the same weights."""
    rows = []
    for name, job in jobs.items():
        small = Job(job.network, job.size, min(job.batch, 2), "none")
        here = train(small.study(), CPU, 2)[0].mean_loss
        there = train(small.study(), DEVICE, 2)[0].mean_loss
        apart = abs(here - there) / abs(here)
        rows.append({"job": name, "CPU": here, "device": there, "met": apart <= MOST_APART})
    return rows


def compare_speed(jobs: dict[str, Job], steps: int) -> list[dict[str, Any]]:
    """Return milliseconds a step beside the bare loop's, and the peak memory of ours."""
    rows = []
    for name, job in jobs.items():
        for precision in ("float32", "bfloat16"):
            study = job.study(precision)
            turns = [_one_turn(study, steps) for _ in range(3 if IS_GPU else 1)]
            ours, bare = (statistics.median(turn[column] for turn in turns) for column in (0, 1))
            speed = bare / ours
            rows.append(
                {
                    "job": f"{name} {precision}",
                    "ms": ours,
                    "bare ms": bare,
                    "speed": speed,
                    "peak GB": max(turn[2] for turn in turns) if IS_GPU else None,
                    "met": _met(speed >= LEAST_SPEED),
                }
            )
    return rows


def _one_turn(study: Study, steps: int) -> tuple[float, float, float]:
    """Return our milliseconds a step, the bare loop's, and the peak gigabytes of ours."""
    _reset_peak()
    ours = train(study, DEVICE, steps)[1]
    peak = _peak_gigabytes() or 0.0
    return ours, bare_loop(study, DEVICE, steps), peak


def compare_private_steps(jobs: dict[str, Job], steps: int) -> list[dict[str, Any]]:
    """Return milliseconds of a private step beside the plain one and Opacus's."""
    variants: dict[str, Callable[[Made], Callable[[], None]]] = {
        "plain": plain,
        "wardround": private,
        "opacus hooks": opacus_hooks,
        "opacus ghost": opacus_ghost,
    }
    return [
        {
            "job": name,
            **{variant: _milliseconds(job, make, steps) for variant, make in variants.items()},
        }
        for name, job in jobs.items()
    ]


def _milliseconds(job: Job, make: Callable[[Made], Callable[[], None]], steps: int) -> Any:
    """Return the milliseconds of a step; the reason where a variant refuses the network."""
    study = with_changes(job.study(), {"model.normalisation": "group"})
    size = study.training.batch_size
    batch = next(iter(RandomPatients(study, 4 * size).batches(1, DEVICE)))
    network = build_network(study, 0).to(DEVICE).train()
    method = PRIVATE_NETWORKS[job.network].method_for(len(job.size))
    optimiser = torch.optim.SGD(network.parameters(), 0.01, 0.9)
    loss = build_loss(study, None, DEVICE)
    try:
        step = make(Made(network, loss, PatientBatch(batch, (1,) * size), method, optimiser))
        step()
        wait()
        began = time.perf_counter()
        for _ in range(steps):
            step()
        wait()
    except Exception as error:  # of a library beside which we measure: it is part of the table
        return f"fails: {type(error).__name__}: {str(error).splitlines()[0][:80]}"
    return (time.perf_counter() - began) / steps * 1e3


class _OneVolume:
    """A random CT of one patient."""

    def __len__(self) -> int:
        return 1

    def case(self, index: int, device: torch.device = CPU) -> Batch:
        numbers = Generator().manual_seed(index)
        mask = torch.randint(0, 14, (1, *VOLUME), generator=numbers).to(torch.uint8)
        return Batch(torch.randn(1, 1, *VOLUME, generator=numbers), None, mask).to(device).widened()

    def spacing(self, index: int) -> tuple[float, ...]:
        return (1.0, 1.0, 1.0)

    def stored_mask(self, index: int) -> None:
        return None


def measure_volume() -> list[dict[str, Any]]:
    """Return seconds and peak memory of the evaluation of a whole CT with 14 classes."""
    study = parse_study(
        {
            "study": {"name": "ct", "task": "segmentation"},
            "data": {"classes": [f"organ {number}" for number in range(14)], "dimensions": 3},
            "model": {"network": "unet", "features": [8, 16, 32]},
            "training": {"patch_size": [WINDOW] * 3, "batch_size": 2},
        }
    )
    choose_arithmetic(DEVICE, study)
    network, loss = build_network(study, 0).to(DEVICE), build_loss(study, None, DEVICE)
    _reset_peak()
    began = time.perf_counter()
    evaluate(network, _OneVolume(), study, DEVICE, loss)  # type: ignore[arg-type]
    wait()
    half: Tensor = torch.tensor(VOLUME).prod() * 14 * 2
    copies = (_peak_gigabytes() or 0.0) * 1e9 / float(half)
    return [
        {
            "volume": " x ".join(map(str, VOLUME)),
            "seconds": time.perf_counter() - began,
            "peak GB": _peak_gigabytes(),
            "copies of the logits": copies if IS_GPU else None,
            "met": _met(copies <= MOST_MEMORY),
        }
    ]


def _met(is_met: bool) -> bool | None:
    """Return whether a target of time or memory is met; None where there is no GPU to say so."""
    return is_met if IS_GPU else None


def _reset_peak() -> None:
    if IS_GPU:
        torch.cuda.reset_peak_memory_stats()


def _peak_gigabytes() -> float | None:
    return torch.cuda.max_memory_allocated() / 1e9 if IS_GPU else None


def _print_table(title: str, rows: list[dict[str, Any]]) -> None:
    columns = list(rows[0])
    print(f"\n### {title}\n\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for row in rows:
        print("| " + " | ".join(_shown(row[column]) for column in columns) + " |")
    sys.stdout.flush()


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def _heading() -> str:
    versions = f"torch {torch.__version__}, monai {version('monai')}"
    if not IS_GPU:
        return f"no GPU: it checks only itself, and no number below means anything ({versions})"
    gigabytes = torch.cuda.get_device_properties(0).total_memory / 1e9
    return f"{torch.cuda.get_device_name(0)}, {gigabytes:.0f} GB; {machine()}; {versions}"


def main() -> None:
    """Print the tables; exit with 1 where a target is missed on a GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", default=",".join(JOBS), help="parts of their names")
    parser.add_argument("--steps", type=int, default=40 if IS_GPU else 1)
    parser.add_argument("--json", type=Path, help="write the tables there too")
    arguments = parser.parse_args()
    asked = arguments.jobs.split(",")
    jobs = {name: job for name, job in JOBS.items() if any(part in name for part in asked)}
    if not jobs:
        parser.error(f"no job is called so: there are {', '.join(JOBS)}")
    print(_heading(), flush=True)
    measured: dict[str, list[dict[str, Any]]] = {}
    for title, measure in {
        "the loss of two steps, CPU and device": lambda: compare_losses(jobs),
        "a step beside a bare loop": lambda: compare_speed(jobs, arguments.steps),
        "a private step": lambda: compare_private_steps(jobs, arguments.steps),
        "a whole CT": measure_volume,
    }.items():
        measured[title] = measure()
        _print_table(title, measured[title])
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(measured, indent=1), encoding="utf-8")
    rows = [row for table in measured.values() for row in table]
    sys.exit(1 if IS_GPU and any(row.get("met") is False for row in rows) else 0)


if __name__ == "__main__":
    main()
