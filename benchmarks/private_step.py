"""What a step of patient-level DP-SGD costs: beside the plain step and Opacus, in one run.

Every variant of a network lives in a process of its own and makes one step when it is told to, so
that the repeats of all variants alternate and each peak memory is its own. Time is the CPU time of
the process, one thread; memory is its peak less what it held before the first step. Linux only.

    python -m benchmarks.private_step [--jobs small-cnn,resnet18] [--repeats 9]
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.server_memory import reset_peak
from benchmarks.support.processes import machine
from wardround.client.data.batch import Batch
from wardround.client.privacy.gradients.clipped_sum import clipped_gradient_sum
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.client.privacy.step import noised_mean
from wardround.client.training.losses.mean_loss import MeanLoss
from wardround.client.training.losses.registry import build_loss
from wardround.common.models.networks.registry import build_network
from wardround.common.privacy.secure_random import Randomness
from wardround.common.runtime.system.memory import keep_freed_memory
from wardround.common.study.loading import parse_study
from wardround.common.study.plans.patient_privacy import PrivacyPlan
from wardround.common.study.private_networks import PRIVATE_NETWORKS

Step = Callable[[], None]
_WARM_UP = 2


@dataclass(frozen=True)
class Job:
    """A network, the side of its images and the batch, with the most that privacy may cost."""

    network: str
    dimensions: int
    side: int
    batch: int
    normalisation: str
    most_time: float


JOBS = {
    "small-cnn 28x28": Job("small-cnn", 2, 28, 32, "default", 1.6),
    "resnet18 28x28": Job("resnet18", 2, 28, 32, "group", 3.0),
    "unet 64x64": Job("unet", 2, 64, 32, "default", 1.3),
    "unet 32x32x32": Job("unet", 3, 32, 8, "default", 1.3),
}
MOST_MEMORY = 1.5


@dataclass(frozen=True)
class Made:
    """What every variant of a job starts from; one example a patient."""

    network: nn.Module
    loss: MeanLoss
    patients: PatientBatch
    method: str
    optimiser: torch.optim.Optimizer


def make(job: Job) -> Made:
    """Return the job's network, loss and random images, always the same."""
    segmentation, size = "unet" in job.network, [job.side] * job.dimensions
    study = parse_study(
        {
            "study": {
                "name": "private-step",
                "task": "segmentation" if segmentation else "classification",
            },
            "data": {"classes": ["a", "b"], "dimensions": job.dimensions, "size": size},
            "model": {"network": job.network, "normalisation": job.normalisation},
        }
    )
    torch.manual_seed(0)
    network = build_network(study, 0).train()
    images = torch.randn(job.batch, 1, *size)
    targets = torch.randint(0, 2, (job.batch, *(size if segmentation else [])))
    return Made(
        network,
        build_loss(study, None, torch.device("cpu")),
        PatientBatch(Batch(images, None, targets), (1,) * job.batch),
        PRIVATE_NETWORKS[job.network].method_for(job.dimensions),
        torch.optim.SGD(network.parameters(), 0.01, 0.9),
    )


def plain(made: Made) -> Step:
    """Return the step without privacy."""
    examples = made.patients.examples

    def step() -> None:
        made.optimiser.zero_grad(set_to_none=True)
        made.loss(made.network(*examples.inputs), examples.targets).backward()  # type: ignore[no-untyped-call]
        made.optimiser.step()

    return step


def private(made: Made, *, noisy: bool = True, method: str = "", microbatch: int = 32) -> Step:
    """Return Wardround's step: clipped by patient, with or without the noise."""
    patients = made.patients.patients
    plan = PrivacyPlan(0.05, patients, 1.0, 1.0 if noisy else 0.0, 1, 1, 1e-5, 8)
    randomness, parameters = Randomness(), dict(made.network.named_parameters())

    def step() -> None:
        total = clipped_gradient_sum(
            made.network,
            made.patients,
            made.loss.per_sample,
            1.0,
            method or made.method,
            microbatch,
        )
        if noisy:
            total = noised_mean(total, plan, randomness)
        for name, gradient in total.items():
            parameters[name].grad = gradient
        del total
        made.optimiser.step()
        made.optimiser.zero_grad(set_to_none=True)

    return step


def opacus_hooks(made: Made) -> Step:
    """Return Opacus's step with its default hooks."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    network: Any = GradSampleModule(_for_opacus(made.network))
    optimiser: Any = DPOptimizer(made.optimiser, expected_batch_size=made.patients.patients, **_DP)
    examples = made.patients.examples

    def step() -> None:
        optimiser.zero_grad()
        made.loss(network(*examples.inputs), examples.targets).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def opacus_ghost(made: Made) -> Step:
    """Return Opacus's step with ghost clipping."""
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers.optimizer_fast_gradient_clipping import (
        DPOptimizerFastGradientClipping,
    )
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    network: Any = GradSampleModuleFastGradientClipping(
        _for_opacus(made.network), max_grad_norm=1.0
    )
    optimiser: Any = DPOptimizerFastGradientClipping(
        made.optimiser, expected_batch_size=made.patients.patients, **_DP
    )
    loss: Any = DPLossFastGradientClipping(network, optimiser, _SampleLoss(made.loss))
    examples = made.patients.examples

    def step() -> None:
        optimiser.zero_grad()
        loss(network(*examples.inputs), examples.targets).backward()
        optimiser.step()

    return step


_DP = {"noise_multiplier": 1.0, "max_grad_norm": 1.0}

VARIANTS: dict[str, Callable[[Made], Step]] = {
    "plain": plain,
    "wardround": private,
    "wardround, micro-batch 8": lambda made: private(made, microbatch=8),
    "wardround without noise": lambda made: private(made, noisy=False),
    "loop of patients": lambda made: private(made, noisy=False, method="loop"),
    "opacus hooks": opacus_hooks,
    "opacus ghost": opacus_ghost,
}


class _SampleLoss:
    """The study's loss as Opacus asks for one: a number a sample when it sets ``reduction``."""

    def __init__(self, loss: MeanLoss) -> None:
        self.reduction = "mean"
        self._loss = loss

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self._loss.per_sample(logits, targets)


def _for_opacus(network: nn.Module) -> nn.Module:
    """Return the network without what Opacus refuses: changes in place."""
    from monai.networks.nets.resnet import ResNetBlock

    for layer in network.modules():
        if getattr(layer, "inplace", False):
            layer.inplace = False  # type: ignore[assignment]
    ResNetBlock.forward = _forward_out_of_place
    return network


def _forward_out_of_place(block: Any, images: Tensor) -> Tensor:
    out = block.bn2(block.conv2(block.act(block.bn1(block.conv1(images)))))
    residual = images if block.downsample is None else block.downsample(images)
    made: Tensor = block.act(out + residual)
    return made


def serve(job: Job, variant: str) -> None:
    """Make a step for every line that comes, and print its seconds; at the end, the peak bytes."""
    torch.set_num_threads(1)
    keep_freed_memory()
    step = VARIANTS[variant](make(job))
    held = reset_peak()
    for _ in range(_WARM_UP):
        step()
    print("ready", flush=True)
    for _ in iter(sys.stdin.readline, "end\n"):
        started = time.process_time()
        step()
        print(time.process_time() - started, flush=True)
    print(_peak_bytes() - held, flush=True)


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


class _Child:
    """A process that makes steps."""

    def __init__(self, job: str, variant: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.private_step", "--serve", job, variant],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.seconds: list[float] = []
        self.works = self._read() == "ready"

    def step(self) -> None:
        self.seconds.append(float(self._ask("step")))

    def end(self) -> int:
        """Return the peak bytes."""
        peak = int(self._ask("end"))
        self.process.wait()
        return peak

    def failure(self) -> str:
        """Return the last line of what it said before it died."""
        _, errors = self.process.communicate()
        return errors.strip().splitlines()[-1]

    def _ask(self, what: str) -> str:
        assert self.process.stdin is not None  # noqa: S101 # it is a pipe
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> str:
        assert self.process.stdout is not None  # noqa: S101 # it is a pipe
        return self.process.stdout.readline().strip()


def compare(name: str, repeats: int) -> bool:
    """Print a job's table; return whether the step of the product met its targets."""
    children = {variant: _Child(name, variant) for variant in VARIANTS}
    working = {variant: child for variant, child in children.items() if child.works}
    for _ in range(repeats):
        for child in working.values():
            child.step()
    seconds = {variant: statistics.median(child.seconds) for variant, child in working.items()}
    memory = {variant: child.end() for variant, child in working.items()}
    job = JOBS[name]
    print(f"\n### {name}, batch {job.batch}\n")
    print("| | CPU ms a step | x plain | (lowest, highest) | MB | x plain |\n" + "|---" * 6 + "|")
    for variant, child in children.items():
        if variant not in working:
            print(f"| {variant} | fails: {child.failure()[:90]} | | | | |")
            continue
        bases = children["plain"].seconds
        ratios = [own / base for own, base in zip(child.seconds, bases, strict=True)]
        cells = (
            variant,
            f"{seconds[variant] * 1e3:.1f}",
            f"{seconds[variant] / seconds['plain']:.2f}",
            f"({min(ratios):.2f}, {max(ratios):.2f})",
            f"{memory[variant] / 1e6:.0f}",
            f"{memory[variant] / memory['plain']:.2f}",
        )
        print("| " + " | ".join(cells) + " |")
    time_ratio = seconds["wardround"] / seconds["plain"]
    memory_ratio = memory["wardround"] / memory["plain"]
    met = time_ratio <= job.most_time and memory_ratio <= MOST_MEMORY
    said = "met" if met else "MISSED"
    print(
        f"\ntargets: {job.most_time:g} times the time, {MOST_MEMORY:g} the memory: {said}",
        flush=True,
    )
    return met


def main() -> None:
    """Compare the variants of each job; exit with 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", default=",".join(JOBS), help="parts of their names")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--serve", nargs=2, metavar=("JOB", "VARIANT"), help="used by itself")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(JOBS[arguments.serve[0]], arguments.serve[1])
        return
    print(f"{machine()}, opacus {version('opacus')}, monai {version('monai')}; one thread")
    asked = arguments.jobs.split(",")
    chosen = [name for name in JOBS if any(part in name for part in asked)]
    met = [compare(name, arguments.repeats) for name in chosen]
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
