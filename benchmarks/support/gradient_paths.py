"""What Opacus's gradients of single patients cost: beside the loop and vmap, on unknown networks.

Five networks that ghost clipping has no rule for. In one process and one thread, the ways take
turns; time is CPU time of one clipped sum, memory the most that its tensors held at once, as
torch's profiler counts them. Before it is timed, each way is held against one pass a patient.

    python -m benchmarks.support.gradient_paths [--repeats 7]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from benchmarks.support.processes import machine
from wardround.client.data.batch import Batch
from wardround.client.privacy.gradients.clipped_sum import clipped_gradient_sum
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.common.errors import RunError
from wardround.common.models.private_layers import replace_layers
from wardround.common.runtime.system.memory import keep_freed_memory

PATIENTS = 32
SIDE = 32
CLASSES = 5
WAYS = ("loop", "vmap", "opacus-hooks", "opacus-functorch", "opacus-ew")
_MOST_APART = 1e-4
_CLIP = 0.5


class _Recurrent(nn.Module):
    """Two layers of LSTM over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrence = nn.LSTM(SIDE, 64, 2, batch_first=True)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.recurrence(images[:, 0])[0][:, -1])
        return out


class _Words(nn.Module):
    """Grey values as words of 256, embedded; a network of three layers on their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(256, 64)
        self.head = nn.Sequential(
            nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, CLASSES)
        )

    def forward(self, images: Tensor) -> Tensor:
        words = (images.flatten(1) * 32 + 128).long().clamp(0, 255)
        out: Tensor = self.head(self.words(words).mean(1))
        return out


class _Levels(nn.Module):
    """A convolutional network whose head is asked at three levels, as a detector's is."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 32, 32, 32)
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.ReLU())
            for a, b in pairwise(widths)
        )
        self.head = nn.Sequential(
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, CLASSES, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        total = images.new_zeros(len(images), CLASSES)
        for level in self.levels:
            images = level(images)
            total = total + self.head(images).mean((2, 3))
        return total


class _Scaled(nn.Module):
    """A convolution of somebody's own, with a learnt gain for each channel."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3) / (3 * inputs**0.5))
        self.gain = nn.Parameter(torch.ones(outputs, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(images, self.weight, stride=2, padding=1) * self.gain


class _Token(nn.Module):
    """A class token and learnt positions beside the layers, and a mixer over the tokens."""

    def __init__(self, width: int = 64, patch: int = 4) -> None:
        super().__init__()
        tokens = (SIDE // patch) ** 2 + 1
        self.patches = nn.Conv2d(1, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        self.across = nn.Sequential(nn.LayerNorm(tokens), nn.Linear(tokens, tokens), nn.GELU())
        self.within = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.head = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1) + self.places
        tokens = tokens + self.across(tokens.mT).mT
        tokens = tokens + self.within(tokens)
        out: Tensor = self.head(tokens[:, 0])
        return out


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "LSTM, replaced by the fixer": lambda: replace_layers(_Recurrent()),
    "embedding": _Words,
    "head asked at three levels": _Levels,
    "convolutions of one's own": lambda: nn.Sequential(
        _Scaled(1, 16), nn.ReLU(), _Scaled(16, 32), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 5)
    ),
    "class token and positions": _Token,
}


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of each example, ``(M,)``."""
    return F.cross_entropy(logits, targets, reduction="none")


def patients() -> PatientBatch:
    """Return 32 patients of one example each, always the same."""
    torch.manual_seed(1)
    images = torch.randn(PATIENTS, 1, SIDE, SIDE)
    targets = torch.randint(0, CLASSES, (PATIENTS,))
    return PatientBatch(Batch(images, None, targets), (1,) * PATIENTS)


def seconds_of(network: nn.Module, batch: PatientBatch, way: str) -> float:
    """Return the CPU seconds of one clipped sum."""
    started = time.process_time()
    clipped_gradient_sum(network, batch, cross_entropy, _CLIP, way, PATIENTS)
    return time.process_time() - started


def peak_of(network: nn.Module, batch: PatientBatch, way: str) -> int:
    """Return the most bytes that the tensors of one clipped sum held at once."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        clipped_gradient_sum(network, batch, cross_entropy, _CLIP, way, PATIENTS)
    results = profiled.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = [(one.start_ns(), one.nbytes()) for one in results if one.name() == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes):
        held += change
        peak = max(peak, held)
    return peak


def exact(network: nn.Module, batch: PatientBatch, way: str) -> bool:
    """Return whether a way works for a network; it then gives the sum of the loop.

    Raises:
        RuntimeError: It gives another sum.
    """
    expected = clipped_gradient_sum(network, batch, cross_entropy, _CLIP, "loop", PATIENTS)
    try:
        found = clipped_gradient_sum(network, batch, cross_entropy, _CLIP, way, PATIENTS)
    except RunError:
        return False
    gap = sum(float((found[name] - value).square().sum()) for name, value in expected.items())
    whole = sum(float(value.square().sum()) for value in expected.values())
    if gap > _MOST_APART**2 * whole:
        msg = f"{way} is {(gap / whole) ** 0.5:.1g} of its length away from the loop"
        raise RuntimeError(msg)
    return True


def main() -> None:
    """Print a row a network: each way's time and memory over the loop's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    keep_freed_memory()
    batch = patients()
    print(f"{machine()}, opacus {version('opacus')}; one thread, {PATIENTS} patients")
    print(f"\n| network | numbers | {' | '.join(WAYS)} |\n{'|---' * (2 + len(WAYS))}|")
    for name, make in NETWORKS.items():
        torch.manual_seed(0)
        network = make().train()
        working = [way for way in WAYS if exact(network, batch, way)]
        peaks = {way: f"{peak_of(network, batch, way) / 1e6:.1f} MB" for way in working}
        found: dict[str, list[float]] = {way: [] for way in working}
        for _ in range(repeats):
            for way in working:
                found[way].append(seconds_of(network, batch, way))
        cells = [f"{statistics.median(found['loop']) * 1e3:.0f} ms ({peaks['loop']})"]
        for way in WAYS[1:]:
            if way not in working:
                cells.append("refused")
                continue
            pairs = zip(found[way], found["loop"], strict=True)
            ratio = statistics.median(own / loop for own, loop in pairs)
            cells.append(f"{ratio:.2f} ({peaks[way]})")
        count = sum(weight.numel() for weight in network.parameters())
        print(f"| {name} | {count:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
